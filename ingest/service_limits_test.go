package ingest

import (
	"testing"

	"github.com/weir-llm/weir/schemas"
)

func TestServiceCancelsAtOnce(t *testing.T) {
	t.Parallel()
	v := &service{cancels: make(chan struct{}, cancelsAtOnce)}
	var last func()
	for i := range cancelsAtOnce {
		release, err := v.takeCancel(nil)
		if err != nil {
			t.Fatalf("cancel %d: %v", i+1, err)
		}
		last = release
	}
	if _, err := v.takeCancel(nil); schemas.AsError(err).Code != schemas.CodeOverloaded {
		t.Errorf("one more: %v", err)
	}
	last()
	if _, err := v.takeCancel(nil); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
}

// Over NATS a tenant counts as one key, beside others and without an address.
func TestServiceStreamsPerTenant(t *testing.T) {
	t.Parallel()
	v := &service{s: &Ingest{places: newPlaces(5, 2, 1)}}
	from := func(tenant string) *inbox {
		return &inbox{exchange: exchange{id: schemas.Identity{Tenant: tenant}}}
	}
	var last func()
	for i := range 2 {
		release, err := v.takePlace(from("acme"))
		if err != nil {
			t.Fatalf("place %d: %v", i+1, err)
		}
		last = release
	}
	if _, err := v.takePlace(from("acme")); schemas.AsError(err).Code != schemas.CodeRateLimit {
		t.Errorf("one more: %v", err)
	}
	for i := range 2 {
		if _, err := v.takePlace(from("other")); err != nil {
			t.Errorf("place %d of another tenant: %v", i+1, err)
		}
	}
	last()
	if _, err := v.takePlace(from("acme")); err != nil {
		t.Errorf("after one has ended: %v", err)
	}
	if _, err := v.takePlace(from("third")); err != nil {
		t.Errorf("the last place: %v", err)
	}
	if _, err := v.takePlace(from("fourth")); schemas.AsError(err).Code != schemas.CodeOverloaded {
		t.Errorf("beyond all places: %v", err)
	}
}

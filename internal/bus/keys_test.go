package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
)

func TestKeyStore(t *testing.T) {
	server := bustest.Server(t)
	b := connect(t, server, bus.Config{Name: "first"}) // before any stream is there
	store := b.Keys()
	if _, err := store.List(t.Context()); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("List without a store: %v", err)
	}
	for range 2 {
		if err := store.Ensure(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if err := store.Create(t.Context(), "a", []byte("1")); err != nil {
		t.Fatal(err)
	}
	if err := store.Create(t.Context(), "a", []byte("2")); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("a second Create: %v", err)
	}
	entry, err := store.Get(t.Context(), "a")
	if err != nil || string(entry.Value) != "1" {
		t.Fatalf("Get = %+v, %v", entry, err)
	}
	if err := store.Update(t.Context(), "a", []byte("3"), entry.Revision); err != nil {
		t.Fatal(err)
	}
	if err := store.Update(t.Context(), "a", []byte("4"), entry.Revision); !errors.Is(err, bus.ErrConflict) {
		t.Errorf("Update of an old revision: %v", err)
	}
	for _, id := range []string{"b", "", "a b", ">"} {
		if _, err := store.Get(t.Context(), id); !errors.Is(err, bus.ErrNotFound) {
			t.Errorf("Get of %q: %v", id, err)
		}
	}
	list, err := store.List(t.Context())
	if err != nil || len(list) != 1 || string(list[0].Value) != "3" {
		t.Errorf("List = %+v, %v", list, err)
	}
}

// A watch tells everything first, then each change, and everything again after a cut.
func TestKeyStoreWatch(t *testing.T) {
	server := bustest.Server(t)
	near := bustest.Connect(t, server, bus.Config{})
	proxy := bustest.NewProxy(t, server.ClientURL())
	far := connect(t, server, bus.Config{URL: proxy.URL()})
	for _, id := range []string{"a", "b"} {
		if err := near.Keys().Create(t.Context(), id, []byte(id)); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithCancel(t.Context())
	changes := make(chan bus.KeyChange, 16)
	done := make(chan error, 1)
	go func() { done <- far.Keys().Watch(ctx, func(c bus.KeyChange) { changes <- c }) }()
	next := func(all bool, want ...string) {
		t.Helper()
		var got []string
		select {
		case change := <-changes:
			for _, e := range change.Entries {
				got = append(got, e.ID+"="+string(e.Value))
			}
			if diff := cmp.Diff(want, got); diff != "" || change.All != all {
				t.Errorf("told (all: %v) (-want +got):\n%s", change.All, diff)
			}
		case <-time.After(patience):
			t.Fatalf("never told of %v", want)
		}
	}
	next(true, "a=a", "b=b")
	if err := near.Keys().Create(t.Context(), "c", nil); err != nil {
		t.Fatal(err)
	}
	next(false, "c=")
	proxy.Cut()
	next(true, "a=a", "b=b", "c=")

	// The consumer behind the watch is lost, as with the server that it was on.
	_, js := raw(t, server)
	stream, err := js.Stream(t.Context(), "KV_LLM_KEYS")
	if err != nil {
		t.Fatal(err)
	}
	names := stream.ConsumerNames(t.Context())
	for name := range names.Name() {
		if err := stream.DeleteConsumer(t.Context(), name); err != nil {
			t.Fatal(err)
		}
	}
	began := time.Now()
	if err := near.Keys().Create(t.Context(), "d", []byte("d")); err != nil {
		t.Fatal(err)
	}
	next(true, "a=a", "b=b", "c=", "d=d")
	if took := time.Since(began); took > atOnce {
		t.Errorf("told %s after the write", took)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("Watch ended with %v", err)
	}
}

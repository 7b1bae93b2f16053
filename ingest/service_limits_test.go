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

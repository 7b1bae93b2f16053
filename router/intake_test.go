package router

import (
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/bus"
)

// Only what surely was published just now may tell by how much the clocks differ.
func TestWhatIsNew(t *testing.T) {
	t.Parallel()
	var seen newness
	for _, step := range []struct {
		what      string
		order     uint64
		delivered int
		waited    time.Duration
		want      bool
	}{
		{"the first of all may have waited", 8, 1, time.Second, false},
		{"it came while the fetch was waiting", 9, 1, time.Second, true},
		{"it may have been there before the fetch", 10, 1, fetchFresh, false},
		{"it was delivered before", 11, 2, time.Second, false},
		{"the consumer was reset", 1, 1, time.Second, false},
		{"new after the reset", 2, 1, time.Second, true},
	} {
		if got := seen.fresh([]*bus.Delivery{{Order: step.order, Delivered: step.delivered}}, step.waited); got != step.want {
			t.Errorf("%s: fresh is %t", step.what, got)
		}
	}
}

package inference

import (
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// Only the first item of a request, delivered for the first time and just now, is run without a look at what has become of it.
func TestIsFirst(t *testing.T) {
	t.Parallel()
	now := time.Now()
	for name, c := range map[string]struct {
		delivered, dispatch int
		accepted, sent      time.Duration // before now
		want                bool
	}{
		"first":                  {1, 1, time.Second, time.Second, true},
		"waited for room":        {1, 1, bus.DedupeWindow, time.Second, true},
		"delivered again":        {2, 1, time.Second, time.Second, false},
		"dispatched again":       {1, 2, time.Second, time.Second, false},
		"its id is forgotten":    {1, 1, bus.DedupeWindow + 2*time.Second, time.Second, false},
		"the worker was paused":  {1, 1, bus.DedupeWindow + time.Second, bus.DedupeWindow + time.Second, false},
		"by a clock that is off": {1, 1, -time.Minute, -time.Minute, true},
	} {
		r := &run{
			d:    &bus.Delivery{Delivered: c.delivered, Time: now.Add(-c.sent)},
			work: &schemas.Work{Dispatch: c.dispatch, Accepted: now.Add(-c.accepted)},
		}
		if got := r.isFirst(now); got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

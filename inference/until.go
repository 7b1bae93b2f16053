package inference

import (
	"context"
	"time"
)

// until is a context that tells when it will have ended.
type until struct {
	context.Context
	end time.Time
}

func (u until) Deadline() (time.Time, bool) { return u.end, true }

// endingAt returns a context that ends with why at end, or sooner when it is cancelled, as it must be in any case. ctx has no
// deadline of its own. The standard library takes two contexts for that, which every call of a model would keep.
// [ContextError] tells why it ended, and not its Err.
func endingAt(ctx context.Context, end time.Time, why error) (context.Context, context.CancelCauseFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	left := time.Until(end)
	if left <= 0 {
		cancel(why) // before anything is called
		return until{ctx, end}, cancel
	}
	timer := time.AfterFunc(left, func() { cancel(why) })
	return until{ctx, end}, func(cause error) { timer.Stop(); cancel(cause) }
}

package upstream

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

// Bounds are the timeouts of a server's calls, with the error of a call that took too long. They are shared and never
// changed.
type Bounds struct {
	inference.Timeouts
	first, idle, total *schemas.Error
}

// NewBounds makes bounds of timeouts that are filled in.
func NewBounds(t inference.Timeouts) *Bounds {
	return &Bounds{
		Timeouts: t,
		first:    timeout("sent no first token within %v (first-token timeout)", t.FirstToken),
		idle:     timeout("fell silent for %v (idle timeout)", t.Idle),
		total:    timeout("did not finish within %v (total timeout)", t.Total),
	}
}

// Clock ends a call that takes too long. It is owned by the goroutine that makes the call.
type Clock struct {
	bounds *Bounds

	ctx     context.Context // of the call: ends when a timeout passes, with that as its cause
	cancel  context.CancelCauseFunc
	release context.CancelFunc // of the deadline; nil when ctx ended sooner anyway

	silence   *time.Timer                   // ends the call when the server stays silent; one for all phases
	listening bool                          // silence is running
	why       atomic.Pointer[schemas.Error] // what silence ends the call with
}

// Begin starts the time of the call, which ends with ctx, at the deadline (zero = none) or after the total timeout. The
// caller must close it.
func (c *Clock) Begin(ctx context.Context, bounds *Bounds, deadline time.Time) {
	c.bounds = bounds
	c.ctx, c.cancel = context.WithCancelCause(ctx)
	end, cause := time.Now().Add(bounds.Total), error(bounds.total)
	if !deadline.IsZero() && deadline.Before(end) {
		end, cause = deadline, context.DeadlineExceeded
	}
	if sooner, ok := ctx.Deadline(); !ok || end.Before(sooner) {
		c.ctx, c.release = context.WithDeadlineCause(c.ctx, end, cause)
	}
}

// Close ends the call upstream, if it is still under way.
func (c *Clock) Close() {
	c.Hush()
	c.cancel(nil)
	if c.release != nil {
		c.release()
	}
}

// Context is that of the call. When it ends, [inference.ContextError] tells why.
func (c *Clock) Context() context.Context { return c.ctx }

// AwaitFirst ends the call when the server sends nothing within the first-token timeout.
func (c *Clock) AwaitFirst() { c.listen(c.bounds.FirstToken, c.bounds.first) }

// AwaitNext ends the call when the server sends nothing within the idle timeout.
func (c *Clock) AwaitNext() { c.listen(c.bounds.Idle, c.bounds.idle) }

// Listening reports whether the server is being waited for.
func (c *Clock) Listening() bool { return c.listening }

// Alive tells that the server is there although it has sent nothing of the answer.
func (c *Clock) Alive() {
	if c.listening {
		c.silence.Reset(c.bounds.Idle)
	}
}

// listen ends the call with err when nothing stops it within d.
func (c *Clock) listen(d time.Duration, err *schemas.Error) {
	c.why.Store(err)
	c.listening = true
	if c.silence == nil {
		c.silence = time.AfterFunc(d, func() { c.cancel(c.why.Load()) })
		return
	}
	c.silence.Reset(d)
}

// Hush stops waiting: the time that passes is not the server's.
func (c *Clock) Hush() {
	if c.listening {
		c.silence.Stop()
		c.listening = false
	}
}

package inference

import (
	"context"
	"errors"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/weir-llm/weir/schemas"
)

// Retry is what a model may do about a call that failed before its first token. The zero value is the default.
type Retry struct {
	MaxTries int           // calls of the model for one request, and of each fallback; default 3
	Initial  time.Duration // wait before a backend is called again, ±50 %; default 200ms
	Max      time.Duration // longest wait between two calls, whoever asked for it; default 5s
	Budget   int           // extra calls per hundred requests, of whatever kind; default 10
}

func (p Retry) withDefaults() Retry {
	if p.MaxTries == 0 {
		p.MaxTries = 3
	}
	if p.Initial == 0 {
		p.Initial = 200 * time.Millisecond
	}
	if p.Max == 0 {
		p.Max = 5 * time.Second
	}
	if p.Budget == 0 {
		p.Budget = defaultBudget
	}
	return p
}

// Validate reports a setting that cannot be meant.
func (p Retry) Validate() error {
	if p.MaxTries < 0 || p.Initial < 0 || p.Max < 0 || p.Budget < 0 || p.Budget > 100 {
		return errors.New("retry: max_tries, initial and max must not be negative, and budget is 1 to 100: leave them out for the defaults")
	}
	return nil
}

// pauses are the waits of one request. They are not safe for concurrent use.
func (p Retry) pauses() *backoff.ExponentialBackOff {
	return backoff.NewExponentialBackOff(backoff.WithInitialInterval(p.Initial), backoff.WithMaxInterval(p.Max),
		backoff.WithMultiplier(2), backoff.WithMaxElapsedTime(0))
}

// tooLong reports whether a wait would end after the request's deadline or that of ctx.
func tooLong(ctx context.Context, deadline time.Time, d time.Duration) bool {
	if !deadline.IsZero() && time.Until(deadline) <= d {
		return true
	}
	end, ok := ctx.Deadline()
	return ok && time.Until(end) <= d
}

// wait sleeps for d, or until changed is closed if that is not nil. It returns why ctx ended when it ends meanwhile.
func wait(ctx context.Context, d time.Duration, changed <-chan struct{}) *schemas.Error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-changed:
		return nil
	case <-ctx.Done():
		return ContextError(ctx)
	}
}

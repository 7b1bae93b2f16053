package inference

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/cenkalti/backoff/v4"

	"github.com/weir-llm/weir/schemas"
)

// Retry is how calls that fail before their first event are made again. The zero value is the default.
type Retry struct {
	MaxTries int           // calls in all; default 3
	Initial  time.Duration // wait before the second call, ±50 %; default 200ms
	Max      time.Duration // longest wait between two calls that the server did not ask for; default 5s
}

// Generate calls the backend until an event arrives, an error comes that another call would not mend, or the tries or the
// time are used up. Retry-After is honoured, and when it would end after the deadline the error is returned at once.
// Record is told of every call when it has ended, on the goroutine of the loop. What Generate yields and when is as
// [Backend] says.
func (p Retry) Generate(ctx context.Context, b Backend, r *GenerateRequest, record func(schemas.Try)) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		call := *r
		pause := p.pauses() // one per call: it is not safe for concurrent use
		for call.Try = 1; ; call.Try++ {
			t := newTry(b, &call)
			err := t.run(ctx, b, &call, yield)
			record(t.record(err))
			if err == nil || t.stopped {
				return
			}
			if t.visible || call.Try >= p.maxTries() || !worthAnotherTry(err) {
				yield(Event{}, err)
				return
			}
			if gaveUp := wait(ctx, r.Deadline, max(pause.NextBackOff(), err.RetryAfter), err); gaveUp != nil {
				yield(Event{}, gaveUp)
				return
			}
		}
	}
}

func (p Retry) maxTries() int {
	if p.MaxTries == 0 {
		return 3
	}
	return p.MaxTries
}

func (p Retry) pauses() *backoff.ExponentialBackOff {
	initial, most := p.Initial, p.Max
	if initial == 0 {
		initial = 200 * time.Millisecond
	}
	if most == 0 {
		most = 5 * time.Second
	}
	return backoff.NewExponentialBackOff(backoff.WithInitialInterval(initial), backoff.WithMaxInterval(most),
		backoff.WithMultiplier(2), backoff.WithMaxElapsedTime(0))
}

// Validate reports a setting that cannot be meant.
func (p Retry) Validate() error {
	if p.MaxTries < 0 || p.Initial < 0 || p.Max < 0 {
		return errors.New("retry: max_tries, initial and max must not be negative: leave them out for the defaults")
	}
	return nil
}

// try is one call of a backend.
type try struct {
	backend string
	attempt int
	started time.Time
	first   time.Time
	visible bool // an event was passed on
	stopped bool // the loop body broke out
}

func newTry(b Backend, r *GenerateRequest) *try {
	return &try{backend: b.Name(), attempt: r.Attempt, started: time.Now()}
}

func (t *try) run(ctx context.Context, b Backend, r *GenerateRequest, yield func(Event, error) bool) *schemas.Error {
	for event, err := range generate(ctx, b, r) {
		if err != nil {
			return schemas.AsError(err)
		}
		if t.first.IsZero() {
			t.first = time.Now()
		}
		t.visible = true
		if !yield(event, nil) {
			t.stopped = true
			return nil
		}
	}
	return nil
}

func (t *try) record(err *schemas.Error) schemas.Try {
	out := schemas.Try{Attempt: t.attempt, Backend: t.backend, Started: t.started.UTC(), DurationMS: milliseconds(time.Since(t.started))}
	if !t.first.IsZero() {
		out.FirstTokenMS = milliseconds(t.first.Sub(t.started))
	}
	switch {
	case t.stopped:
		out.Outcome = schemas.CodeCancelled
	case err != nil:
		out.Outcome, out.Cause, out.HTTPStatus = err.Code, err.Message, httpStatus(err)
		if upstream, ok := errors.AsType[statusError](err); ok {
			out.Cause = upstream.Error() // the message may quote what the server said
		}
	}
	return out
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// statusError is the cause of an error that came as a reply of the model server.
type statusError interface {
	error
	HTTPStatus() int
}

func httpStatus(err error) int {
	if e, ok := errors.AsType[statusError](err); ok {
		return e.HTTPStatus()
	}
	return 0
}

// worthAnotherTry reports whether the same call may succeed in a moment. A reply that blames the request, the credentials
// or the address never does.
func worthAnotherTry(e *schemas.Error) bool {
	switch status := httpStatus(e); {
	case status == 408, status == 429:
	case status >= 300 && status < 500:
		return false
	}
	switch e.Code {
	case schemas.CodeRateLimit, schemas.CodeSlowDown, schemas.CodeOverloaded, schemas.CodeUnavailable,
		schemas.CodeUpstreamError, schemas.CodeUpstreamTimeout, schemas.CodeUpstreamInterrupted:
		return true
	}
	return false
}

// wait sleeps for d before another call. It returns cause at once when that would be too late, and why ctx ended when it
// ends meanwhile.
func wait(ctx context.Context, deadline time.Time, d time.Duration, cause *schemas.Error) *schemas.Error {
	for _, end := range [...]time.Time{deadline, contextDeadline(ctx)} {
		if !end.IsZero() && time.Until(end) <= d {
			return cause
		}
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ContextError(ctx)
	}
}

func contextDeadline(ctx context.Context) time.Time {
	end, _ := ctx.Deadline()
	return end
}

package inference

import (
	"errors"
	"time"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// try is one call of a backend. It is owned by one goroutine.
type try struct {
	place   *place
	number  int // of the attempt's calls, from 1
	mode    schemas.TryMode
	started time.Time
	first   time.Time
	stream  bool   // the answer comes in events
	called  bool   // the backend was
	visible bool   // callers have seen something of it
	stopped bool   // the loop body broke out
	body    []byte // of the request
	usage   string // as the backend told it last
	tokens  int64  // events that held some of the answer
}

// run passes on what the call says.
func (t *try) run(events said, yield func(Event, error) bool) *schemas.Error {
	for event, err := range events {
		if err != nil {
			return schemas.AsError(err)
		}
		if len(event.Data) > 0 {
			t.visible = true
		}
		if !yield(event, nil) {
			t.stopped = true
			return nil
		}
	}
	return nil
}

// heard notes what the backend says on its way to where it is turned into what callers see.
func (t *try) heard(events said) said {
	return func(yield func(Event, error) bool) {
		t.called = true
		for event, err := range events {
			if err == nil && t.first.IsZero() {
				t.first = time.Now()
				if t.stream {
					t.place.call.FirstToken()
					t.place.model.hedge.took(t.first.Sub(t.started))
				}
			}
			if err == nil {
				t.hear(event.Chunk)
			}
			if !yield(event, err) {
				return
			}
		}
	}
}

// hear notes what an event tells of the cost.
func (t *try) hear(c *openai.Chunk) {
	if speaks(c) {
		t.tokens++
	}
	if c.Usage != "" {
		t.usage = c.Usage
	}
}

// cost is what the call took: as the server told it last, else an estimate when it was cut, else unknown.
func (t *try) cost(failed bool) *schemas.Usage {
	if chunk := (openai.Chunk{Usage: t.usage}); t.usage != "" {
		return chunk.ParseUsage()
	}
	if !failed || t.tokens == 0 {
		return nil
	}
	return estimate(t.body, t.tokens)
}

// record is the call as it stands in the result. What the only call took is known to whoever has read its answer.
func (t *try) record(attempt int, err *schemas.Error) schemas.Try {
	out := schemas.Try{
		Attempt: attempt, Backend: t.place.backend.Name(), Mode: t.mode, Started: t.started.UTC(), DurationMS: milliseconds(time.Since(t.started)),
	}
	if t.place.guest {
		out.Model = t.place.model.name
	}
	if failed := t.stopped || err != nil; failed || t.number > 1 || attempt > 1 {
		out.Usage = t.cost(failed)
	}
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
	out.Cost = t.place.model.price().Of(out.Usage)
	return out
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

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
	usage   string // as the backend told it last
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
			if err == nil && event.Chunk.Usage != "" {
				t.usage = event.Chunk.Usage
			}
			if !yield(event, err) {
				return
			}
		}
	}
}

// record is the call as it stands in the result. What a call took that gave the answer is known to whoever has read that.
func (t *try) record(attempt int, err *schemas.Error) schemas.Try {
	out := schemas.Try{
		Attempt: attempt, Backend: t.place.backend.Name(), Mode: t.mode, Started: t.started.UTC(), DurationMS: milliseconds(time.Since(t.started)),
	}
	if t.place.guest {
		out.Model = t.place.model.name
	}
	if !t.first.IsZero() {
		out.FirstTokenMS = milliseconds(t.first.Sub(t.started))
	}
	switch {
	case t.stopped:
		out.Outcome = schemas.CodeCancelled
		out.Usage = t.took()
	case err != nil:
		out.Outcome, out.Cause, out.HTTPStatus = err.Code, err.Message, httpStatus(err)
		if upstream, ok := errors.AsType[statusError](err); ok {
			out.Cause = upstream.Error() // the message may quote what the server said
		}
		out.Usage = t.took()
	}
	out.Cost = t.place.model.price.Of(out.Usage)
	return out
}

// took is what the backend told last of what the call takes.
func (t *try) took() *schemas.Usage {
	chunk := openai.Chunk{Usage: t.usage}
	return chunk.ParseUsage()
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

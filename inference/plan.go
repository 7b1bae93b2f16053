package inference

import (
	"iter"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// plan is how an attempt goes on from what is visible.
type plan struct {
	mode    schemas.Mode
	refuse  *schemas.Error // instead of an attempt
	splicer *openai.Splicer
}

// plan chooses fresh, splice, or an error, in that order. An answer that was cut is never made to look whole.
func (r *run) plan() plan {
	if n := vanished(r.chain); n >= maxAttempts {
		poison := schemas.Errorf(schemas.CodePoison, "%d workers were lost while they ran this request; it is kept in the dead letter queue", n)
		r.dead = poison.Error()
		return plan{refuse: poison}
	}
	if !r.chain.Visible() {
		return plan{mode: schemas.ModeFresh}
	}
	if r.repeatable() {
		if splicer, err := openai.NewSplicer(r.chain.Events()); err == nil {
			return plan{mode: schemas.ModeSplice, splicer: splicer}
		}
	}
	return plan{refuse: schemas.Errorf(schemas.CodeUpstreamInterrupted, "the worker was lost in the middle of the answer and the model cannot continue it; send the request again")}
}

// vanished counts the attempts that were not handed back (docs/adr/0005).
func vanished(chain *bus.Chain) int {
	n := chain.Attempts()
	for _, f := range chain.Frames {
		if f.Kind == schemas.KindDelta && f.Count == 0 {
			n--
		}
	}
	return n
}

// repeatable reports whether running the request again gives the same text. A request that could not be read never is.
func (r *run) repeatable() bool {
	return r.backend != nil && r.request != nil && r.backend.Capabilities().Deterministic && r.request.Greedy() && r.request.Continuable()
}

// wrap lets a plan change the events of the model.
func (p plan) wrap(generate iter.Seq2[Event, error]) iter.Seq2[Event, error] {
	if p.splicer == nil {
		return generate
	}
	return func(yield func(Event, error) bool) {
		for event, err := range generate {
			if err == nil {
				event, err = p.splice(event)
			}
			if !yield(event, err) || err != nil {
				return
			}
		}
		if err := p.splicer.Done(); err != nil {
			yield(Event{}, diverged(err))
		}
	}
}

// splice takes from an event what readers have seen; what is left may be nothing.
func (p plan) splice(event Event) (Event, error) {
	if len(event.Data) == 0 {
		return event, nil
	}
	data, keep, err := p.splicer.Next(event.Data)
	if err != nil {
		return Event{}, diverged(err)
	}
	if event.Data = data; !keep {
		event.Data = nil
	}
	return event, nil
}

func diverged(err error) *schemas.Error {
	return schemas.Errorf(schemas.CodeStreamDiverged, "the answer was cut and the model, run again, said something else; send the request again").WithCause(err)
}

package inference

import (
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// plan is how an attempt goes on from what is visible.
type plan struct {
	mode    schemas.Mode
	refuse  *schemas.Error // instead of an attempt
	splicer *openai.Splicer
	left    *openai.Chunk   // what is left of an event that was spliced
	listen  func(said) said // makes the op's events of those of the backend
}

// plan chooses fresh, splice, or an error, in that order. An answer that was cut is never made to look whole.
func (r *run) plan() plan {
	if n := vanished(r.chain); n >= maxAttempts {
		poison := schemas.Errorf(schemas.CodePoison, "%d workers were lost while they ran this request; it is kept in the dead letter queue", n)
		r.dead = poison.Error()
		return plan{refuse: poison}
	}
	if !r.chain.Visible() {
		p := plan{mode: schemas.ModeFresh}
		if r.dialect != nil {
			p.listen, _ = r.dialect.listener(r, r.chain.Events()) // there is nothing yet that it could not follow
		}
		return p
	}
	if r.repeatable() {
		splicer, err := r.dialect.splicer(r.chain.Events())
		listen, err2 := r.dialect.listener(r, r.chain.Events())
		if err == nil && err2 == nil {
			return plan{mode: schemas.ModeSplice, splicer: splicer, left: &openai.Chunk{}, listen: listen}
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
	return r.backend != nil && r.request != nil && r.dialect.spliceable() && r.backend.Capabilities().Deterministic &&
		r.request.Greedy() && r.request.Continuable()
}

// wrap lets a plan change the events of the model.
func (p plan) wrap(generate said) said { return p.listen(p.spliced(generate)) }

func (p plan) spliced(generate said) said {
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
		p.forget(event.Chunk)
	} else if err := p.left.Peek(data); err != nil {
		return Event{}, diverged(err)
	}
	event.Chunk = p.left
	return event, nil
}

// forget keeps of an event that readers have seen how its choices ended and what it cost.
func (p plan) forget(c *openai.Chunk) {
	*p.left = openai.Chunk{Usage: c.Usage, Model: c.Model, Choices: p.left.Choices[:0]}
	for i := range c.Choices {
		p.left.Choices = append(p.left.Choices, openai.Choice{Index: c.Choices[i].Index, Finish: c.Choices[i].Finish})
	}
}

func diverged(err error) *schemas.Error {
	return schemas.Errorf(schemas.CodeStreamDiverged, "the answer was cut and the model, run again, said something else; send the request again").WithCause(err)
}

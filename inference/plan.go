package inference

import (
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// plan is how an attempt goes on from what is visible.
type plan struct {
	mode     schemas.Mode
	way      way            // of going on; empty while nothing is visible
	refuse   *schemas.Error // instead of an attempt
	backends []Backend      // of the model and its fallbacks, which can carry it out; nil = all
	visible  seen           // what it goes on from, whatever is written to the chain meanwhile
	resume   *Resume        // of mode continue: what the backend is given
	before   *spending      // of mode continue: what the answer cost so far
	closing  []Event        // instead of a call: what is missing of an answer that is all there
	tell     bool           // token ids are worth recording
}

// plan chooses fresh, one of the ways to go on, or an error. An answer that was cut is never made to look whole.
func (r *run) plan() *plan {
	if n := vanished(r.chain.whole()); n >= maxAttempts {
		poison := schemas.Errorf(schemas.CodePoison, "%d workers were lost while they ran this request; it is kept in the dead letter queue", n)
		r.dead = poison.Error()
		return &plan{refuse: poison}
	}
	visible := (&bus.Chain{Frames: r.chain.whole().Frames}).Events()
	if !r.chain.Visible() {
		return &plan{mode: schemas.ModeFresh, visible: visible, tell: r.tellable()}
	}
	p := r.goOn()
	p.visible = visible
	return &p
}

// vanished counts the attempts of workers that were not handed back (docs/adr/0005).
func vanished(chain *bus.Chain) int {
	n := chain.Attempts()
	for _, f := range chain.Frames {
		if f.GivenUp() || f.Start != nil && f.Start.Leader != "" {
			n--
		}
	}
	return n
}

// follow makes what turns the events of one call into those that callers see next. It is made anew for every call, since
// each begins behind what is visible.
func (r *run) follow(p *plan, d dialect, request *openai.Request) (func(said) said, error) {
	listen, err := d.listener(r.work.Identity, request, p.visible)
	if err != nil || p.mode == schemas.ModeFresh {
		return listen, err
	}
	s, err := d.splicer(p.visible, p.before)
	if err != nil {
		return nil, err
	}
	if p.mode == schemas.ModeContinue {
		s.goOn(p.way == byTokens)
	}
	return func(events said) said { return listen(s.events(events)) }, nil
}

package inference

import (
	"errors"

	"github.com/weir-llm/weir/schemas"
)

// errCut says that an attempt ended in the middle of the answer and that another can go on from there.
var errCut = errors.New("the answer was cut")

// cut learns from an attempt that failed after readers had seen something of the answer, and reports whether another can
// go on. If none can, the error is what the caller is told.
func (r *run) cut(p *plan, further bool, failed *schemas.Error) (*schemas.Error, bool) {
	r.learn(p, further, failed)
	if further && (failed == errEndless || judge(failed) == stop && failed.Code != schemas.CodeStreamDiverged) {
		return failed, false // the content filter, or whatever else says that this is the end
	}
	if r.left > 0 && r.goOn().refuse == nil {
		r.left--
		r.log().Warn("the answer was cut; it goes on", "code", failed.Code, "attempt", r.attempt, "backend", r.cutOff)
		return failed, true
	}
	if !further && failed.Code != schemas.CodeStreamDiverged && r.cause != nil {
		return r.cause, false // that nobody could go on is not why it was cut
	}
	return failed, false
}

// learn notes what the calls of an attempt tell about the next.
func (r *run) learn(p *plan, further bool, failed *schemas.Error) {
	if further {
		r.spent, r.cause = nil, failed
		if len(r.tries) > 0 {
			r.cutOff = r.tries[len(r.tries)-1].Backend
		}
		return
	}
	if r.cause == nil {
		r.cause = workerLost()
	}
	for _, t := range r.tries {
		if t.Attempt == r.attempt {
			r.spent = append(r.spent, spent{p.way, t.Backend})
		}
	}
	if p.way == byClosing {
		r.left = 0 // there is no other
	}
}

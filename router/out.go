package router

import (
	"time"

	"github.com/weir-llm/weir/schemas"
)

// outPatience is how long a request waits for a model that is out before it is refused instead.
const outPatience = 2 * time.Second

// out refuses a request whose model nobody can call for a while: all backends of it and of its fallbacks are out of service
// in every worker. A batch request waits.
func (l *loop) out(it *item, now time.Time) *schemas.Error {
	if it.req.Priority == schemas.PriorityBatch || it.retried > 0 {
		return nil
	}
	after := l.fleet.outFor(it.model(), now)
	if after <= outPatience {
		return nil
	}
	name, err := schemas.DecodeModel(it.model())
	if err != nil {
		name = it.model()
	}
	return schemas.Errorf(schemas.CodeUnavailable, "no backend of model %q is in service at the moment; try again in %v, or wait for it with %s: %s",
		name, after.Round(time.Second), schemas.HeaderPriority, schemas.PriorityBatch).WithRetryAfter(after)
}

// refuseOut answers what has begun to wait for a model before it went out of service.
func (l *loop) refuseOut(now time.Time) {
	for model := range l.queue.waiting() {
		if l.draining || l.fleet.outFor(model, now) <= outPatience {
			continue
		}
		for it := range l.held.all() {
			if it.model() != model || it.place == nil {
				continue
			}
			if err := l.out(it, now); err != nil {
				l.unqueue(it)
				l.answer(it, err)
			}
		}
	}
}

package inference

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// maxHold is how long a request is put off at most before it is tried again.
const maxHold = 10 * time.Minute

// waits reports whether the request waits for better times instead of failing: it is a batch request, readers have nothing
// of its answer, and no model would answer now although one may later.
func (r *run) waits(failed *schemas.Error) bool {
	if r.relay != nil && r.relay.passed {
		return false // the item is another request's
	}
	mayPass := judge(failed) == again || failed.Code == schemas.CodeUpstreamTimeout
	return mayPass && r.work.Priority == schemas.PriorityBatch && time.Now().Before(r.deadline())
}

// hold puts the request off: its attempt is given up in the chain, the item that is to follow is stored with the time at
// which it is due, and only then is this one done. Whoever gets this item again after a crash in between tries again, and
// holds the request anew if need be, under a number that no dispatch has had.
func (r *run) hold(ctx context.Context, failed *schemas.Error) bus.Outcome {
	if err := r.mark(ctx); err != nil {
		return r.lost(ctx, err)
	}
	next := *r.work
	next.Dispatch = max(r.work.Dispatch, r.attempt) + 1
	next.Allowance = ""
	at := time.Now().Add(putOff(r.m.retry.Max, r.work.Dispatch, failed.RetryAfter))
	if deadline := r.deadline(); at.After(deadline) {
		at = deadline
	}
	if err := r.w.bus.Hold(context.WithoutCancel(ctx), &next, at); err != nil {
		r.log().Error("the request could not be put off; it is tried again after the lease", "error", err)
		return bus.Silent
	}
	r.w.meters.held.WithLabelValues(r.m.name).Inc()
	r.log().Info("no model can answer the request now; it is tried again later", "code", failed.Code, "attempt", r.attempt, "at", at.UTC())
	r.w.bus.Event(schemas.EventRetry, (&schemas.RetryEvent{
		V: schemas.Version, Tenant: r.work.Tenant, Request: r.work.Request.Request, Model: r.m.token, Dispatch: next.Dispatch, At: at.UTC(),
		Code: failed.Code, By: r.w.cfg.Name, Time: time.Now().UTC(),
	}).Encode())
	return bus.Ack
}

// putOff is how long a request waits after a dispatch that came to nothing: twice as long each time, from the longest pause
// that a worker makes by itself, ±20 %, and no less than the model server asks for.
func putOff(first time.Duration, dispatch int, asked time.Duration) time.Duration {
	d := first
	for i := 1; i < dispatch && d < maxHold; i++ {
		d *= 2
	}
	d = max(time.Duration(float64(d)*(0.8+0.4*rand.Float64())), asked)
	return min(d, maxHold)
}

package inference

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// maxHold is how long a request is put off at most before it is tried again.
const maxHold = 10 * time.Minute

// maxFailures is how often a request is put off for failures that may be its own.
const maxFailures = 5

// waits reports whether the request waits for better times instead of failing: it is a batch request, readers have nothing
// of its answer, and no model would answer now although one may later. What may be the fault of the request itself is
// waited out a few times only: a server that is ill gets well meanwhile, and a request that makes it ill does not.
func (r *run) waits(failed *schemas.Error) bool {
	if r.relay != nil && r.relay.passed {
		return false // the item is another request's
	}
	mayPass := judge(failed) == again || failed.Code == schemas.CodeUpstreamTimeout
	return mayPass && r.work.Priority == schemas.PriorityBatch && time.Now().Before(r.deadline()) && (outage(failed) || r.work.Failures < maxFailures)
}

// outage reports whether an error says that a model is away or busy, whatever it is asked: it had no room, or nobody had the
// request. Everything else, such as a status 500, a connection that broke and a silence, may be what the request does to it.
func outage(e *schemas.Error) bool {
	switch e.Code {
	case schemas.CodeRateLimit, schemas.CodeSlowDown, schemas.CodeOverloaded, schemas.CodeUnavailable:
		return true
	}
	switch httpStatus(e) {
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	dial, ok := errors.AsType[*net.OpError](e)
	return ok && dial.Op == "dial"
}

// givenUp is the error of a batch request that has been put off as often as its own failures may be.
func (r *run) givenUp(failed *schemas.Error) *schemas.Error {
	if r.work.Failures < maxFailures || outage(failed) {
		return failed
	}
	e := *failed
	e.Message += fmt.Sprintf(" (tried again %d times in %v, and no longer waited for: the request may be the cause)",
		r.work.Failures, time.Since(r.work.Accepted).Round(time.Second))
	return &e
}

// hold puts the request off: its attempt is given up in the chain, the item that is to follow is stored with the time at
// which it is due, and only then is this one done. Whoever gets this item again after a crash in between tries again, and
// holds the request anew if need be, under a number that no dispatch has had. Then the item is no longer this run's to
// acknowledge.
func (r *run) hold(ctx context.Context, failed *schemas.Error) bus.Outcome {
	ctx = context.WithoutCancel(ctx) // each write has its own bound
	if err := r.mark(ctx); err != nil {
		return r.lost(ctx, err)
	}
	next := *r.work
	next.Dispatch = max(r.work.Dispatch, r.attempt) + 1
	next.Allowance = ""
	if !outage(failed) {
		next.Failures++
	}
	at := time.Now().Add(putOff(r.m.retry.Max, r.work.Dispatch, failed.RetryAfter))
	if deadline := r.deadline(); at.After(deadline) {
		at = deadline
	}
	if err := r.w.bus.Hold(ctx, &next, at); err != nil {
		r.log().Error("the request could not be put off; it is tried again after the lease", "error", err)
		return bus.Silent
	}
	last, err := r.w.bus.LastFrame(ctx, r.work.Identity)
	switch {
	case err != nil:
		return r.puzzled(ctx, "looking whether the request that was put off has gone on", err)
	case last.Sequence != r.chain.Sequence():
		return r.lost(ctx, bus.ErrFenced)
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

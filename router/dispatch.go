package router

import (
	"context"
	"errors"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// dispatchRetry is the pause of a model after a dispatch that failed.
const dispatchRetry = 500 * time.Millisecond

// firstDispatch is the dispatch number of a request that comes from LLM_REQUESTS. A redelivery of the request carries the
// same one, so that the stream drops the copy.
const firstDispatch = 1

// heirDispatch is that of a request that was given another's answer before: its worker looks at the chain before it calls.
const heirDispatch = 2

// roomFor is how many requests of the model may go now.
func (l *loop) roomFor(model string, now time.Time) int {
	if now.Before(l.holdoff[model]) || l.asleep(now) {
		return 0
	}
	return l.fleet.room(model)
}

// pump dispatches what waits for the model as far as there is room.
func (l *loop) pump(model string) {
	if l.draining || !l.queue.has(model) {
		return
	}
	for range l.roomFor(model, time.Now()) {
		it := l.queue.pop(model)
		if it == nil {
			return
		}
		l.pace(model).left(it.cost)
		l.expiries.remove(it)
		l.dispatch(it)
	}
}

func (l *loop) pumpAll() {
	for model := range l.queue.waiting() {
		l.pump(model)
	}
}

// errStale is that a dispatch waited for so long that the request may be another router's, and done. Nothing was sent.
var errStale = errors.New("the dispatch waited for longer than a lease")

// dispatch publishes a request to the workers of its model and takes up room from now on.
func (l *loop) dispatch(it *item) {
	l.fleet.sending(it.model())
	if l.books != nil {
		l.books.sending(it)
	}
	work := it.work(max(it.dispatch, it.retried, firstDispatch))
	ordered := time.Now()
	l.dispatches.submit(func() func() {
		if time.Since(ordered) > l.lease {
			return func() { l.dispatched(it, 0, errStale) }
		}
		sequence, err := l.bus.Dispatch(it.ctx, work)
		return func() { l.dispatched(it, sequence, err) }
	})
}

// work is the request as a worker is given it.
func (it *item) work(dispatch int) *schemas.Work {
	return &schemas.Work{
		Request: *it.req, Dispatch: dispatch, Cost: it.estimate, Accepted: it.accepted, Reserve: it.reserve, Allowance: it.allowance,
		Cache: it.order(), Shared: it.flightKey != "" && it.retried == 0, Failures: it.failures,
	}
}

func (l *loop) dispatched(it *item, sequence uint64, err error) {
	now := time.Now()
	if err == nil {
		delete(l.holdoff, it.model())
		l.fleet.sent(it.model(), sequence, now)
		l.meters.dispatched(now.Sub(it.arrived))
		l.launched(it, sequence)
		l.caching.meters.ran(it.order())
		l.settle(it, bus.Ack)
		if l.books != nil && (it.again || it.traced || l.inherited(it)) {
			l.books.resent(it)
		}
		l.pump(it.model())
		return
	}
	l.fleet.unsent(it.model())
	if l.books != nil && it.back == nil { // else the balances, if they are here again, count what others have sent
		l.books.unsent(it, err)
	}
	l.log.Warn("dispatch failed", keyRequest, it.req.Request, keyTenant, it.req.Tenant, keyModel, it.model(), keyError, err)
	switch e, ok := errors.AsType[*schemas.Error](err); {
	case l.draining: // another router has it next
	case it.back != nil:
		l.settle(it, *it.back)
	case ok && !e.Retryable():
		l.answer(it, e)
	case it.cancelled != "":
		l.answer(it, schemas.Cancelled(it.cancelled))
	default:
		l.holdoff[it.model()] = now.Add(dispatchRetry)
		l.queue.unpop(it)
		l.expiries.add(it)
	}
}

// checkUnseen asks the stream about dispatches that no worker shows: one that a worker finished between two beats, of
// which one was lost, would take up room for ever.
func (l *loop) checkUnseen(work context.Context, now time.Time) {
	if l.draining {
		return
	}
	for model, sequence := range l.fleet.unseen(now) {
		l.checks.submit(func() func() {
			exists, err := l.bus.WorkExists(work, sequence)
			return func() {
				if err == nil && !exists {
					l.fleet.forget(model, sequence)
					l.pump(model)
				}
			}
		})
	}
}

package router

import (
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

func (l *loop) arrive(b batch) {
	if !b.due {
		l.note(b)
	}
	for i, it := range b.items {
		if !b.due { // those were accepted long ago
			l.clock.observe(it.arrived, it.accepted, b.fresh && i == 0)
		}
		switch old := l.held.get(it.sequence); {
		case l.draining:
			it.delivery.Settle(bus.Nak)
			it.end()
		case old != nil: // delivered again while it is here: the new delivery is the one with a lease
			old.delivery.Settle(bus.Silent)
			old.delivery, old.back = it.delivery, nil
			it.end()
		default:
			l.hold(it, 1)
			l.route(it)
		}
	}
}

// hold begins to hold a request, or ends it with -1.
func (l *loop) hold(it *item, by int) {
	if it.retried == 0 { // of LLM_REQUESTS
		l.heldOf[it.partition] += by
	}
	if by > 0 {
		l.held.add(it)
	} else {
		l.held.remove(it)
	}
}

// route takes a request one step further: each step that waits for the bus comes back here.
func (l *loop) route(it *item) {
	now := time.Now()
	switch {
	case it.back != nil:
		l.settle(it, *it.back)
	case it.fault != nil:
		l.answer(it, it.fault)
	case it.cancelled != "":
		l.answer(it, schemas.Cancelled(it.cancelled))
	case !l.clock.at(now).Before(it.deadline):
		l.answer(it, expired())
	case it.req.Object != nil && !it.inspected:
		l.inspectObject(it)
	case (it.chosen() || it.retried > 0) && !it.checked:
		l.lookUp(it)
	case l.books != nil && !l.books.ready(it): // it comes back here
	case it.mayShare() && l.begun(it): // before an entry is said, lest it is said behind what was copied already
		l.retrace(it)
	case it.seeking() && l.known(it.model(), now):
		l.consult(it)
	case it.barred():
		l.answer(it, notCached())
	case it.mayShare() && !l.place(it): // it follows, or comes back here
	default:
		l.enact(it, l.decide(it, now))
	}
}

// mayShare reports whether a request may follow another and it is not yet found out whether it does.
func (it *item) mayShare() bool { return it.flightKey != "" && it.retried == 0 && !it.placed }

// begun reports whether somebody may have begun with a request before it was delivered here, which is not yet looked up.
func (l *loop) begun(it *item) bool {
	return !l.leads(it) && (it.again || !it.traced && l.inherited(it))
}

func (l *loop) enact(it *item, v verdict) {
	switch v.action {
	case answerNow:
		l.answer(it, v.err)
	case dispatchNow:
		l.dispatch(it)
	case waitForRoom:
		l.queue.push(it)
		l.expiries.add(it)
	case waitForLimits:
		l.queue.push(it)
		l.expiries.add(it)
		l.pump(it.model())
	}
}

// hint is that somebody wants a request to end.
type hint struct {
	id schemas.Identity
	by schemas.CancelledBy
}

// cancel ends the requests that carry the identity and have not left. One that a job has in hand remembers it.
func (l *loop) cancel(h hint) {
	if len(l.held.with(h.id)) == 0 {
		l.cancelHeld(h)
	}
	for _, it := range l.held.with(h.id) {
		it.cancelled = h.by
		if it.follower != nil || l.unqueue(it) {
			l.retract(it, func() { l.answer(it, schemas.Cancelled(h.by)) })
		}
	}
}

// unqueue takes a request out of the queue. It reports whether it was in it.
func (l *loop) unqueue(it *item) bool {
	l.expiries.remove(it)
	return l.queue.remove(it)
}

// settle ends what the router has to do with a request.
func (l *loop) settle(it *item, outcome bus.Outcome) {
	l.unqueue(it)
	l.hold(it, -1)
	l.unlead(it)
	if l.books != nil {
		l.books.settled(it)
	}
	it.delivery.Settle(outcome)
	it.end()
}

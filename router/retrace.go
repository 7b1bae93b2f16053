package router

import (
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// retrace looks how far a request has come that was delivered before: another router may have copied an answer to it.
func (l *loop) retrace(it *item) {
	l.retracing++
	l.answers.submit(func() func() {
		chain, err := l.copier.bus.Chain(it.ctx, it.req.Identity)
		answered, outcome := false, bus.Silent
		if err == nil && chain.Start() == nil && chain.Terminal() == nil {
			answered, outcome = l.clerk.answered(it) // retention may have emptied the chain of a finished request
		}
		return func() {
			l.retracing--
			switch {
			case l.draining:
			case err != nil:
				l.log.Warn("reading a chain failed; the request is tried again after the lease", keyRequest, it.req.Request, keyTenant, it.req.Tenant, keyError, err)
				l.settle(it, bus.Silent)
			case answered:
				l.settle(it, outcome)
			default:
				l.retraced(it, chain)
			}
		}
	})
}

func (l *loop) retraced(it *item, chain *bus.Chain) {
	it.again, it.traced = false, true
	if chain.Start() != nil && it.cache != nil {
		it.cache.seek = false // it was done before anybody began, and an entry cannot be said behind a part of an answer
	}
	reused := chain.BodyHash() != "" && chain.BodyHash() != it.req.BodyHash()
	switch {
	case it.back != nil:
		l.settle(it, *it.back)
	case chain.Terminal() != nil && !reused:
		l.conclude(it, chain)
	case inherited(chain) && !reused:
		l.reclaimed(it, chain.Start().Start.Work)
	case it.cancelled != "":
		l.route(it)
	case chain.Leader() != "" && !reused:
		l.rejoin(it, chain)
	case chain.Start() != nil || reused: // a worker's, which also finds a second request under a used id
		it.placed = true
		if start := chain.Start(); start != nil {
			it.dispatch = start.Start.Dispatch
		}
		if l.flights.byKey[it.flightKey] == nil && !reused {
			l.lead(it)
		}
		l.route(it)
	default:
		l.route(it)
	}
}

// conclude makes sure of the result of a request that has ended.
func (l *loop) conclude(it *item, chain *bus.Chain) {
	l.answers.submit(func() func() {
		outcome := bus.Ack
		if err := l.copier.keep(it, chain); err != nil {
			outcome = bus.Silent
		}
		return func() { l.settle(it, outcome) }
	})
}

// rejoin goes on with a copy that another router began. Its chain says whom it follows and how far it has come.
func (l *loop) rejoin(it *item, chain *bus.Chain) {
	for _, other := range l.held.with(it.req.Identity) {
		if other != it && other.follower != nil { // sent twice under one id: the other delivery has it
			l.settle(it, bus.Ack)
			return
		}
	}
	it.placed = true
	led := *it.req
	led.Identity.Request = chain.Leader()
	fl := l.flights.byLeader[led.Identity]
	if fl != nil && fl.leader == it.req.Identity { // it is the heir, of which its chain does not tell yet
		l.inherits(it, fl)
		return
	}
	if fl == nil && !chain.Visible() {
		fl = l.flights.byKey[it.flightKey]
	}
	f := newFollower(it, l.cfg.Name)
	f.goOn(chain)
	l.books.resume(it)
	if fl != nil && !l.behind(fl, it) && l.follow(it, f, fl) {
		return
	}
	fl = newFlight(it.flightKey, &led)
	if l.behind(fl, it) {
		l.books.unhit(it)
		it.dispatch = heirDispatch
		l.route(it) // it runs, or else they would follow each other for ever
		return
	}
	l.flights.add(fl)
	l.follow(it, f, fl)
}

// behind reports whether the leader of a flight is the request, or follows it, be it over others. Two routers that have the
// same requests in turn may each let another one lead.
func (l *loop) behind(fl *flight, it *item) bool {
	for range l.held.count {
		if fl.leader == it.req.Identity {
			return true
		}
		next := l.followedBy(fl.leader)
		if next == nil {
			return false
		}
		fl = next
	}
	return true
}

// followedBy is the flight that a request follows here, or nil.
func (l *loop) followedBy(id schemas.Identity) *flight {
	for _, it := range l.held.with(id) {
		if it.follower != nil {
			return it.follower.flight
		}
	}
	return nil
}

// astray takes back a request that follows here although its chain is another's work: that of another router, or of a worker to
// whom it was dispatched before.
func (l *loop) astray(f *follower) {
	if f.it.follower != f {
		return
	}
	l.detach(f)
	if !l.draining {
		f.it.again = true
		l.rerun(f.it)
	}
}

package router

import (
	"context"
	"errors"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

const (
	// heirLook is how often it is looked whether a worker still has the run that an heir was given.
	heirLook = time.Second
	// heirWait is how long a worker has to ask who inherits the run of a leader that has ended, should it not have asked before.
	heirWait = 2 * time.Second
)

// heirQuestion is a worker's: who inherits the run of a request that is about to end without it.
type heirQuestion struct {
	id     schemas.Identity
	answer func(*schemas.Work) // nil: nobody
}

// bequest is the run of a leader that its worker goes on with in the chain of a follower, the heir. That worker holds the item
// of the first leader, so that the heir's own request stays unacknowledged until it has a result.
type bequest struct {
	it      *item
	from    schemas.Identity // the leader before; zero when another router knew that one
	work    uint64           // LLM_WORK sequence of the item; 0 = not known yet
	looked  time.Time
	looking bool
}

// tellHeir answers a worker. While this router may not know all followers it says nothing, and is asked again.
func (l *loop) tellHeir(q heirQuestion) {
	s := l.partitions[schemas.PartitionOf(q.id.Tenant)]
	if s == nil || s.leaving || s.unpinned || l.draining {
		return
	}
	fl := l.flights.byLeader[q.id]
	if fl != nil {
		if b := l.bequests[fl.leader]; b != nil && b.from == q.id { // it did not hear the first answer
			q.answer(b.it.work(firstDispatch))
			return
		}
		if fl.leader == q.id && l.bequeath(fl, q) {
			return
		}
	}
	if !l.knowsAll(fl, s) {
		return
	}
	if fl != nil && fl.leader == q.id {
		l.flights.close(fl) // who comes now has a run of its own
	}
	q.answer(nil)
}

// knowsAll reports whether no follower of a flight can be another router's.
func (l *loop) knowsAll(fl *flight, s *served) bool {
	if fl != nil && !fl.born.IsZero() && !s.since.IsZero() && fl.born.After(s.since) {
		return true
	}
	now := time.Now()
	return !s.whole.IsZero() && !now.Before(s.whole) && now.Sub(s.moved) >= adoptSettle && l.retracing == 0
}

// bequeath has the follower that came first inherit the run of its leader, as soon as nothing is being written to it. It
// reports false when nobody can.
func (l *loop) bequeath(fl *flight, q heirQuestion) bool {
	fl.question = q
	if fl.handing != nil {
		return true
	}
	l.copier.mu.Lock()
	heir := fl.first(func(f *follower) bool { return f.leave == nil && f.state != followerGone })
	l.copier.mu.Unlock()
	if heir == nil || fl.heir != nil { // or that one runs by itself already
		return false
	}
	fl.handing = heir
	l.copier.reclaim(heir, false, func() { l.hand(fl, heir) })
	return true
}

// hand gives a run to a follower of which nothing is being written.
func (l *loop) hand(fl *flight, heir *follower) {
	it, q := heir.it, fl.question
	fl.question = heirQuestion{}
	switch late := !l.clock.at(time.Now()).Before(it.deadline); {
	case l.draining: // another router has it next
	case it.back != nil:
		l.detach(heir)
		l.settle(it, *it.back)
	case it.cancelled != "" || late:
		l.detach(heir)
		if it.cancelled != "" {
			l.answer(it, schemas.Cancelled(it.cancelled))
		} else {
			l.answer(it, overdue())
		}
		if q.answer != nil {
			l.tellHeir(q)
		}
	default:
		l.inherits(it, fl)
		if q.answer != nil {
			q.answer(it.work(firstDispatch))
		}
	}
}

// bequeathed lets the others follow the heir that the end of their leader names: its worker goes on with it.
func (l *loop) bequeathed(fl *flight, heir string) {
	for f := range fl.followers {
		if f.it.req.Request == heir {
			fl.handing, fl.named = f, true
			l.copier.reclaim(f, false, func() { l.hand(fl, f) })
			return
		}
	}
	id := schemas.Identity{Tenant: fl.leader.Tenant, Request: heir}
	l.passTo(fl, id)
	l.regroup(fl)
}

// forgo notes that a follower leaves that was about to inherit. When the end of the leader names it, its worker has been told,
// so that its own end says who is next.
func (l *loop) forgo(fl *flight, f *follower) {
	fl.handing = nil
	if fl.named {
		l.passTo(fl, f.it.req.Identity)
		l.regroup(fl)
	}
}

// inherits makes a request the leader of a flight whose run a worker goes on with in its chain.
func (l *loop) inherits(it *item, fl *flight) {
	b := &bequest{it: it, from: fl.leader, work: fl.work, looked: time.Now()}
	id := it.req.Identity
	if fl.leader != id {
		l.passTo(fl, id)
		fl.until = it.deadline
	}
	it.placed = true
	l.bequests[id] = b
	l.meters.replaced.Inc()
	if f := it.follower; f != nil {
		l.detach(f)
	}
	l.books.inherit(it)
	l.log.Info("a follower inherits the run of its leader", keyRequest, it.req.Request, keyTenant, it.req.Tenant)
	l.regroup(fl)
}

// passTo gives a flight another leader, whose chain holds the same events and goes on.
func (l *loop) passTo(fl *flight, id schemas.Identity) {
	fl.leader, fl.named, fl.doubt, fl.landed, fl.patience = id, false, time.Time{}, time.Time{}, time.Time{}
	fl.names = append(fl.names, id)
	l.flights.add(fl)
	c := l.copier
	c.mu.Lock()
	defer c.mu.Unlock()
	fl.led = id.Request
	fl.quit()
}

// regroup has the followers of a flight given what its new leader is answered.
func (l *loop) regroup(fl *flight) {
	if len(fl.followers) > 0 && !l.draining {
		l.copier.begin(fl, nil)
	}
}

// reclaimed takes up the request of an heir that another router had, and whose chain says by which item a worker goes on.
func (l *loop) reclaimed(it *item, work uint64) {
	id := it.req.Identity
	if b := l.bequests[id]; b != nil && b.it != it { // sent twice under one id: the other delivery has it
		l.settle(it, bus.Ack)
		return
	}
	fl := l.flights.byLeader[id]
	if fl == nil {
		fl = newFlight(it.flightKey, it.req)
		fl.until = it.deadline
		l.flights.add(fl)
	}
	it.placed = true
	if fl.work == 0 {
		fl.work = work
		l.flights.byWork[work] = fl
	}
	l.books.inherit(it)
	l.bequests[id] = &bequest{it: it, work: work}
}

// bereave waits for the worker of a leader that has ended to ask who inherits its run.
func (l *loop) bereave(fl *flight) {
	fl.patience = time.Now().Add(heirWait)
	l.flights.bereaved = append(l.flights.bereaved, fl)
}

// watchHeirs looks after runs whose leader has ended.
func (l *loop) watchHeirs(now time.Time) {
	kept := l.flights.bereaved[:0]
	for _, fl := range l.flights.bereaved {
		switch {
		case fl.patience.IsZero(): // it has a leader
		case now.Before(fl.patience) || fl.handing != nil:
			kept = append(kept, fl)
		default:
			fl.patience = time.Time{}
			l.succeed(fl)
		}
	}
	clear(l.flights.bereaved[len(kept):])
	l.flights.bereaved = kept
	for _, b := range l.bequests {
		if now.Sub(b.looked) >= heirLook {
			l.lookAfter(b, now)
		}
	}
}

// lookAfter finds out whether an heir has got its answer, or will get none because its worker is gone.
func (l *loop) lookAfter(b *bequest, now time.Time) {
	if b.looking || l.draining {
		return
	}
	b.looking, b.looked = true, now
	l.checks.submit(func() func() {
		chain, lost, err := l.fateOf(b)
		return func() {
			b.looking = false
			switch {
			case l.bequests[b.it.req.Identity] != b || l.draining:
			case err != nil:
				l.log.Warn("an heir could not be looked after; it is tried again", keyRequest, b.it.req.Request, keyTenant, b.it.req.Tenant, keyError, err)
			case chain != nil:
				delete(l.bequests, b.it.req.Identity)
				l.conclude(b.it, chain)
			case lost:
				l.revive(b)
			}
		}
	})
}

// fateOf gives the chain of an heir that has ended, or reports that its worker has let go of the item and not ended it.
func (l *loop) fateOf(b *bequest) (ended *bus.Chain, lost bool, err error) {
	ctx, cancel := context.WithTimeout(b.it.ctx, lookTimeout)
	defer cancel()
	id := b.it.req.Identity
	before, err := l.last(ctx, id)
	if err != nil {
		return nil, false, err
	}
	if !before.Kind.Terminal() {
		if there, err := l.hasWorker(ctx, b); there || err != nil {
			return nil, false, err
		}
		after, err := l.last(ctx, id)
		if err != nil {
			return nil, false, err
		}
		if !after.Kind.Terminal() {
			return nil, after.Sequence == before.Sequence, nil
		}
	}
	ended, err = l.copier.bus.Chain(ctx, id)
	return ended, false, err
}

// last is the last frame of a request; an empty one when there is none.
func (l *loop) last(ctx context.Context, id schemas.Identity) (*schemas.Frame, error) {
	f, err := l.copier.bus.LastFrame(ctx, id)
	if errors.Is(err, bus.ErrNotFound) {
		return &schemas.Frame{}, nil
	}
	return f, err
}

// hasWorker reports whether the item is still there that the worker of an heir holds.
func (l *loop) hasWorker(ctx context.Context, b *bequest) (bool, error) {
	work, asked := b.work, make(map[schemas.Identity]bool)
	for id := b.it.req.Identity; work == 0; { // as its chain says, or that of the leader before it
		if asked[id] {
			return false, nil // they follow each other
		}
		asked[id] = true
		chain, err := l.copier.bus.Chain(ctx, id)
		if err != nil {
			return false, err
		}
		switch start := chain.Start(); {
		case start == nil:
			return false, nil
		case start.Start.Leader == "":
			work = start.Start.Work
		default:
			id.Request = start.Start.Leader
		}
	}
	return l.bus.WorkExists(ctx, work)
}

// lookTimeout bounds a look after an heir.
const lookTimeout = 10 * time.Second

// revive has an heir run by itself, behind what it has: its worker is gone.
func (l *loop) revive(b *bequest) {
	it := b.it
	delete(l.bequests, it.req.Identity)
	if fl := l.flights.byLeader[it.req.Identity]; fl != nil && fl.leader == it.req.Identity {
		delete(l.flights.byWork, fl.work)
		fl.work = 0
	}
	l.log.Warn("the worker of an inherited run is gone; another goes on", keyRequest, it.req.Request, keyTenant, it.req.Tenant)
	it.dispatch, it.revived = heirDispatch, true
	l.route(it)
}

// disinherit gives back the heirs for which yes says so.
func (l *loop) disinherit(yes func(*item) bool, outcome bus.Outcome) {
	for id, b := range l.bequests {
		if yes(b.it) {
			delete(l.bequests, id)
			l.settle(b.it, outcome)
		}
	}
}

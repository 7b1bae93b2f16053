package router

import (
	"context"
	"errors"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// CoalesceMode is which requests of a tenant share a run while an equal one is under way.
type CoalesceMode string

// The modes. Whatever the mode, only requests share a run whose answer might come from the cache, and never one that says
// Llm-Coalesce: off, or that wants nothing of the cache or a new answer.
const (
	CoalesceCached CoalesceMode = ""    // those that are answered from the cache
	CoalesceOn     CoalesceMode = "on"  // all
	CoalesceOff    CoalesceMode = "off" // none
)

// flightKey is the key under which a request shares a run with others, or empty. plan is what the cache has to do with it.
func (c *caching) flightKey(req *schemas.Request, parsed *openai.Request, plan *lookup) string {
	if v := req.Header[schemas.HeaderCoalesce]; len(v) > 0 && v[0] == schemas.CoalesceOff {
		return ""
	}
	if plan == nil && req.Header[schemas.HeaderCache] != nil {
		return "" // it is off, or restricts what it would be given
	}
	policy := c.cfg.Policy(req.Tenant)
	switch {
	case policy.Coalesce == CoalesceOff:
		return ""
	case plan != nil && plan.seek:
		return plan.flight
	case plan != nil || policy.Coalesce != CoalesceOn:
		return ""
	}
	d, err := schemas.ParseCacheDirective(req.Header)
	if err != nil {
		return ""
	}
	if d.Namespace == "" {
		d.Namespace = policy.Namespace
	}
	key, reason := cache.KeyOf(&cache.Request{
		Tenant: req.Tenant, Namespace: d.Namespace, Op: req.Op, Revision: c.cfg.Revision(parsed.Model), Header: req.Header,
		Parsed: parsed, Sampled: policy.Sampled,
	})
	if reason != "" {
		return ""
	}
	return key.Flight()
}

// asWork is the request as what its result is made from, when no worker ran it.
func (it *item) asWork() *schemas.Work {
	return &schemas.Work{Request: *it.req, Accepted: it.accepted, Reserve: it.reserve, Cache: it.order()}
}

// coalesce has the loop share runs. It comes before run.
func (l *loop) coalesce(ctx context.Context, log copyLog) {
	l.copier = &copier{bus: log, log: l.log, loop: l, finished: l.finished}
	l.copier.ctx, l.copier.stop = context.WithCancel(ctx)
}

// place finds out whom a request shares its run with. It reports whether the request goes on by itself: it leads, or the
// leader is this very request, delivered again.
func (l *loop) place(it *item) (alone bool) {
	if l.leads(it) {
		it.placed = true
		return true
	}
	return l.join(it)
}

// leads reports whether a request is the leader of a flight.
func (l *loop) leads(it *item) bool {
	fl := l.flights.byLeader[it.req.Identity]
	return fl != nil && fl.leader == it.req.Identity
}

// join has a request follow the flight of its key, or lead one.
func (l *loop) join(it *item) (alone bool) {
	it.placed = true
	fl := l.flights.byKey[it.flightKey]
	if fl != nil && l.copier.joinable(fl, it) {
		err := l.crowded(it)
		if err == nil {
			err = l.books.hit(it)
		}
		if err != nil {
			l.answer(it, err)
			return false
		}
		if !l.follow(it, newFollower(it, l.cfg.Name), fl) {
			l.rerun(it)
		}
		return false
	}
	l.lead(it)
	return true
}

// joinable reports whether a request that was accepted when it was may still be given all of the flight's answer.
func (c *copier) joinable(fl *flight, it *item) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return fl.base == 0 && (fl.ended == nil || !it.accepted.After(fl.ended.Time))
}

func (l *loop) lead(it *item) {
	if fl := l.flights.byKey[it.flightKey]; fl != nil {
		l.flights.close(fl)
	}
	fl := newFlight(it.flightKey, it.req)
	fl.until = it.deadline
	if !it.traced {
		fl.born = time.Now()
	}
	l.flights.add(fl)
}

// launched notes that the leader of a flight is with the workers.
func (l *loop) launched(it *item, sequence uint64) {
	if it.flightKey == "" {
		return
	}
	if fl := l.flights.byLeader[it.req.Identity]; fl != nil && fl.leader == it.req.Identity {
		delete(l.flights.byWork, fl.work)
		fl.work = sequence
		l.flights.byWork[sequence] = fl
	}
}

// unlead forgets a flight whose leader is settled without a run and whom nobody follows.
func (l *loop) unlead(it *item) {
	if it.flightKey == "" {
		return
	}
	if fl := l.flights.byLeader[it.req.Identity]; fl != nil && fl.leader == it.req.Identity && fl.work == 0 && len(fl.followers) == 0 {
		l.flights.remove(fl)
	}
}

// released forgets, in a while, the flights of leaders that workers have let go of and nobody follows.
func (l *loop) released(sequences []uint64) {
	if len(l.flights.byWork) == 0 {
		return
	}
	now := time.Now()
	for _, sequence := range sequences {
		fl := l.flights.byWork[sequence]
		if fl == nil {
			continue
		}
		if b := l.bequests[fl.leader]; b != nil {
			l.lookAfter(b, now)
		}
		if len(fl.followers) == 0 {
			l.flights.linger(fl, now)
		}
	}
}

// follow has a request given what the leader of a flight is answered. It reports false when the flight has forgotten by now what
// the follower lacks of that.
func (l *loop) follow(it *item, f *follower, fl *flight) bool {
	if l.books != nil {
		l.books.tell(it)
	}
	c := l.copier
	c.mu.Lock()
	if fl.base > f.next {
		c.mu.Unlock()
		return false
	}
	f.flight = fl
	fl.followers[f] = struct{}{}
	if fl.ended == nil {
		fl.landed = time.Time{} // it goes on
	}
	reads := fl.open
	if reads {
		c.wake(f)
	}
	c.mu.Unlock()
	it.follower = f
	l.expiries.add(it)
	l.meters.followers.Inc()
	if !reads && !fl.asking {
		l.ask(fl)
	}
	return true
}

// ask looks how the leader of a flight stands that nobody has followed so far.
func (l *loop) ask(fl *flight) {
	fl.asking = true
	leader := fl.leader
	l.lookups.submit(func() func() {
		last, err := l.copier.bus.LastFrame(l.copier.ctx, leader)
		var result *schemas.Result
		if errors.Is(err, bus.ErrNotFound) {
			result, _ = l.copier.bus.Result(l.copier.ctx, leader)
		}
		return func() { l.stands(fl, leader, last, result) }
	})
}

// stands begins to copy, unless the leader had ended before a follower asked: that one runs by itself.
func (l *loop) stands(fl *flight, leader schemas.Identity, last *schemas.Frame, result *schemas.Result) {
	fl.asking = false
	switch {
	case l.draining:
		return
	case fl.leader != leader: // who followed meanwhile waits for this
		if len(fl.followers) > 0 {
			l.ask(fl)
		}
		return
	}
	if last != nil && last.Kind.Terminal() {
		l.flights.linger(fl, time.Now())
		for f := range fl.followers {
			if it := f.it; f.led == "" && it.accepted.After(last.Time) {
				l.flights.close(fl)
				l.retract(it, func() { l.rerun(it) })
			}
		}
	}
	if len(fl.followers) == 0 {
		return
	}
	if result == nil && !runs(last) && fl.work == 0 && fl.doubt.IsZero() {
		l.suspectLost(fl)
	}
	l.copier.begin(fl, result)
}

// runs reports whether the last frame of a request, or nil, tells that a worker has had it.
func runs(last *schemas.Frame) bool {
	return last != nil && last.Kind != schemas.KindAccepted && (last.Start == nil || last.Start.Leader == "")
}

// rerun routes a request as one that follows nobody.
func (l *loop) rerun(it *item) {
	it.placed = false
	l.books.unhit(it)
	l.route(it)
}

// suspectLost has it found out, again and again, whether the leader of a flight is lost, until a worker has it.
func (l *loop) suspectLost(fl *flight) {
	fl.doubt = time.Now().Add(l.lease)
	l.flights.doubtful = append(l.flights.doubtful, fl)
}

// doubt looks after the leaders of whom nothing has come so far.
func (l *loop) doubt(now time.Time) {
	if len(l.flights.doubtful) == 0 || l.draining {
		return
	}
	all := l.flights.doubtful
	l.flights.doubtful = all[:0]
	for _, fl := range all {
		switch {
		case len(fl.followers) == 0 || fl.doubt.IsZero() || fl.work != 0:
			fl.doubt = time.Time{}
		case now.Before(fl.doubt):
			l.flights.doubtful = append(l.flights.doubtful, fl)
		case len(l.held.with(fl.leader)) > 0:
			l.suspectLost(fl)
		default:
			l.inquire(fl)
		}
	}
	clear(all[len(l.flights.doubtful):])
}

// inquire gives up a leader of whom there is no trace although its request should have come back: whoever had it is gone.
func (l *loop) inquire(fl *flight) {
	leader := fl.leader
	l.lookups.submit(func() func() {
		last, err := l.copier.bus.LastFrame(l.copier.ctx, leader)
		return func() {
			switch {
			case l.draining || fl.leader != leader || fl.doubt.IsZero():
			case err == nil && runs(last):
				fl.doubt = time.Time{}
			case (err == nil && last.Start == nil || errors.Is(err, bus.ErrNotFound)) && len(l.held.with(leader)) == 0:
				fl.doubt = time.Time{}
				l.landed(fl, fl.reading, untold())
			default:
				l.suspectLost(fl)
			}
		}
	})
}

// retract takes a request back from its flight, if it follows in one, and then goes on. What is being written is finished
// first, and so is an end.
func (l *loop) retract(it *item, then func()) {
	f := it.follower
	if f == nil {
		then()
		return
	}
	l.copier.reclaim(f, false, func() {
		l.detach(f)
		then()
	})
}

// detach ends the part of a follower in its flight.
func (l *loop) detach(f *follower) {
	fl, c := f.flight, l.copier
	f.it.follower = nil
	l.expiries.remove(f.it)
	l.meters.followers.Dec()
	c.mu.Lock()
	delete(fl.followers, f)
	fl.trim()
	abandoned := len(fl.followers) == 0
	if abandoned {
		fl.reset()
	}
	c.mu.Unlock()
	if fl.handing == f {
		l.forgo(fl, f)
	}
	if abandoned && fl.work == 0 && len(l.held.with(fl.leader)) == 0 { // nothing will tell that the leader has ended
		l.flights.linger(fl, time.Now())
	}
	if fl.heir == f {
		fl.heir = nil
		l.succeed(fl)
	}
}

// copied settles a follower that has got all it gets.
func (l *loop) copied(f *follower, outcome bus.Outcome) {
	if f.it.follower != f {
		return
	}
	l.detach(f)
	if outcome == bus.Ack {
		l.meters.coalesced.Inc()
	}
	l.settle(f.it, outcome)
}

// landed says what becomes of the followers of a leader that has ended.
func (l *loop) landed(fl *flight, reading int, frame *schemas.Frame) {
	if fl.reading != reading || fl.ended != nil || l.draining {
		return
	}
	if b := l.bequests[fl.leader]; b != nil {
		l.lookAfter(b, time.Now())
	}
	switch {
	case frame.Heir != "" && len(fl.followers) > 0:
		l.bequeathed(fl, frame.Heir)
	case frame.Kind == schemas.KindError && len(fl.followers) > 0 && l.replaceable(fl, frame):
		fl.cause = frame
		if frame.Attempt > 0 && (&schemas.Error{Code: codeOf(frame)}).CancelledBy() != "" { // a worker has its run
			l.bereave(fl)
			return
		}
		l.succeed(fl)
	default:
		l.finish(fl, frame)
	}
}

func (l *loop) finish(fl *flight, frame *schemas.Frame) {
	if frame.Time.IsZero() || frame.Kind == schemas.KindError {
		l.flights.close(fl) // who comes now has a run of its own
	}
	l.copier.end(fl, frame)
	l.flights.linger(fl, time.Now())
}

// replaceable reports whether a follower goes on in the place of a leader that has ended so. One that was cancelled or late
// ended by what is its own; one that failed is replaced once, and only while nobody has seen anything of its answer.
func (l *loop) replaceable(fl *flight, frame *schemas.Frame) bool {
	switch codeOf(frame) {
	case schemas.CodeCancelled, schemas.CodeDeadline, schemas.CodeStreamExpired:
		return true
	}
	l.copier.mu.Lock()
	defer l.copier.mu.Unlock()
	if fl.replaced || fl.next() > 0 {
		return false
	}
	fl.replaced = true
	return true
}

func codeOf(frame *schemas.Frame) schemas.Code {
	e, err := schemas.DecodeError(frame.Data)
	if err != nil {
		return schemas.CodeInternal
	}
	return e.Code
}

// succeed makes the follower that came first the leader, once it has all that its leader has said. A worker goes on behind
// that, as it does when a worker was lost.
func (l *loop) succeed(fl *flight) {
	c := l.copier
	c.mu.Lock()
	heir := fl.first(func(*follower) bool { return true })
	c.mu.Unlock()
	switch {
	case l.draining:
	case heir == nil:
		l.finish(fl, fl.cause)
	default:
		fl.heir = heir
		c.reclaim(heir, true, func() { l.inherit(fl, heir) })
	}
}

// inherit lets the heir run, and the others follow it.
func (l *loop) inherit(fl *flight, heir *follower) {
	fl.heir = nil
	it := heir.it
	delete(l.flights.byWork, fl.work)
	fl.leader, fl.work, fl.until, fl.doubt, fl.landed = it.req.Identity, 0, it.deadline, time.Time{}, time.Time{}
	fl.names = append(fl.names, fl.leader)
	l.flights.add(fl)
	l.meters.replaced.Inc()
	c := l.copier
	c.mu.Lock()
	fl.led = it.req.Request
	fl.quit()
	c.mu.Unlock()
	l.detach(heir)
	if len(fl.followers) > 0 {
		c.begin(fl, nil)
	}
	if !l.draining {
		l.books.unhit(it)
		it.dispatch = heirDispatch
		l.log.Info("a follower takes the place of its leader", keyRequest, it.req.Request, keyTenant, it.req.Tenant)
		l.route(it)
	}
}

// stopCopies ends all copying, for another router to go on.
func (l *loop) stopCopies() {
	if l.copier != nil {
		l.answers.submit(func() func() {
			l.copier.close()
			return func() {}
		})
	}
}

func overdue() *schemas.Error {
	return schemas.Errorf(schemas.CodeDeadline, "the deadline passed before the answer of the equal request that this one shares a run with was whole; give it a later %s", schemas.HeaderDeadline)
}

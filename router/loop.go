package router

import (
	"context"
	"log/slog"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

const (
	// tick is the pace of everything that is not an event: renewals, deadlines, workers that fell silent.
	tick = 100 * time.Millisecond

	dispatchWidth = 16 // publishes in flight
	answerWidth   = 8  // answers and look-ups in flight
	checkWidth    = 2  // checks of unseen dispatches in flight
	hitWidth      = 32 // answers from the cache in flight
	lookupWidth   = 32 // look-ups in the second level of the cache and in chains in flight

	hintsBehind = 4096 // heartbeats, or cancels, that may wait for the loop

	catalogAge = 5 * time.Second
)

// broker is what the loop asks of a [bus.Bus].
type broker interface {
	Dispatch(ctx context.Context, w *schemas.Work) (sequence uint64, err error)
	WorkExists(ctx context.Context, sequence uint64) (bool, error)
	RouterBeat(*schemas.RouterBeat) error
	Event(kind string, data []byte)
	Adopt(ctx context.Context, partition int, pin string, held int) (unsettled int, err error)
}

// registrar writes answers and finds what is written; [clerk] outside tests.
type registrar interface {
	answer(it *item, reason *schemas.Error) (outcome bus.Outcome, written bool)
	answered(it *item) (answered bool, outcome bus.Outcome)
	body(it *item) ([]byte, error)
	cached(it *item) (data []byte, stored time.Time, err error)
	replay(it *item, e ending) (outcome bus.Outcome, written bool)
	rescue(ctx context.Context, lost lostWork) (back int, err error)
	cancelHeld(ctx context.Context, id schemas.Identity, reason *schemas.Error) (written bool, err error)
}

// loop is the state of the router.
type loop struct {
	cfg     Config
	log     *slog.Logger
	meters  *metrics
	bus     broker
	clerk   registrar
	caching *caching

	start    func(partition int) (stop func()) // starts a fetcher
	permits  chan int                          // to a fetcher: how many it may bring
	arrivals chan batch
	beats    chan *schemas.Heartbeat
	routers  chan *schemas.RouterBeat
	cancels  chan hint
	asked    chan question
	heirs    chan heirQuestion
	retries  chan *schemas.RetryEvent
	due      *due
	finished chan func()

	// Owned by the goroutine in run.
	held       *held
	queue      *queue
	expiries   expiries
	fleet      *fleet
	clock      streamClock
	configured *catalog
	peers      *peers
	partitions map[int]*served
	heldOf     [schemas.Partitions]int
	lease      time.Duration
	dispatches *lane
	answers    *lane
	checks     *lane
	hits       *lane
	lookups    *lane // a stream that is slow must not hold up what the memory has
	flights    flights
	bequests   map[schemas.Identity]*bequest // by the heir
	retracing  int                           // chains that are being looked at
	copier     *copier
	adoptions  *lane
	rescues    *lane
	suspects   map[string]time.Time // worker: when work was taken back from it
	holdoff    map[string]time.Time // model: no dispatch before, because the last one failed
	books      *books               // nil when no tenant has limits
	learnt     *corrections
	paces      map[string]*pace     // by model
	told       map[string]time.Time // model: when operators were last told of its queue
	full       bool
	draining   bool
	settled    bool      // has listened long enough to know the workers
	began      time.Time // listening
	ticked     time.Time // last
	turned     time.Time // the wheel of leases, last
	beaten     time.Time // our own heartbeat, last
	figured    time.Time // the figures in it, last
	soon       bool      // a heartbeat has news
	refreshed  time.Time // the configured models, last
}

func newLoop(cfg Config, lease time.Duration, broker broker, clerk registrar, caching *caching, meters *metrics) *loop {
	now := time.Now()
	finished := make(chan func(), dispatchWidth+answerWidth+checkWidth+adoptWidth+rescueWidth+hitWidth+lookupWidth+bookWidth+copyWidth)
	return &loop{
		cfg: cfg, log: cfg.Logger, meters: meters, bus: broker, clerk: clerk, caching: caching,
		permits: make(chan int), arrivals: make(chan batch), finished: finished,
		beats: make(chan *schemas.Heartbeat, hintsBehind), routers: make(chan *schemas.RouterBeat, hintsBehind), cancels: make(chan hint, hintsBehind),
		asked: make(chan question, hintsBehind), heirs: make(chan heirQuestion, hintsBehind), bequests: make(map[schemas.Identity]*bequest), retries: make(chan *schemas.RetryEvent, hintsBehind), due: newDue(), learnt: newCorrections(), paces: make(map[string]*pace), told: make(map[string]time.Time),
		held: newHeld(lease, tick), queue: newQueue(cfg.Weight), fleet: newFleet(now), clock: streamClock{base: now}, configured: newCatalog(cfg.Models),
		dispatches: &lane{width: dispatchWidth, finished: finished},
		answers:    &lane{width: answerWidth, finished: finished},
		checks:     &lane{width: checkWidth, finished: finished},
		hits:       &lane{width: hitWidth, finished: finished},
		lookups:    &lane{width: lookupWidth, finished: finished},
		adoptions:  &lane{width: adoptWidth, finished: finished},
		rescues:    &lane{width: rescueWidth, finished: finished},
		flights:    newFlights(),
		suspects:   make(map[string]time.Time),
		peers: newPeers(schemas.RouterBeat{
			V: schemas.Version, Router: cfg.Name, Started: now.UnixMilli(), Eligible: cfg.Partitions,
		}, cfg.Active),
		partitions: make(map[int]*served), lease: lease,
		holdoff: make(map[string]time.Time),
		began:   now, ticked: now, turned: now, refreshed: now,
	}
}

// run is the loop. It ends when ctx has ended, the fetchers are gone and no job is in flight.
func (l *loop) run(ctx, work context.Context) {
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	stop := ctx.Done()
	charges, woken := l.books.events()
	l.allot(time.Now())
	for !l.draining || len(l.partitions) > 0 || l.busy() {
		if l.soon {
			l.beatSelf(time.Now())
		}
		permits, most := l.permit()
		select {
		case permits <- most:
		case b := <-l.arrivals:
			l.arrive(b)
		case h := <-l.beats:
			l.beat(h)
		case b := <-l.routers:
			l.hear(b)
		case h := <-l.cancels:
			l.cancel(h)
		case q := <-l.asked:
			l.tellPlace(q)
		case q := <-l.heirs:
			l.tellHeir(q)
		case e := <-l.retries:
			l.giveUp(e)
		case then := <-l.finished:
			then()
		case c := <-charges:
			l.books.apply(c)
		case now := <-woken:
			l.books.wakeDue(now)
		case now := <-ticker.C:
			l.tick(work, now)
		case <-stop:
			stop = nil
			l.drain()
		}
	}
	l.giveBack()
}

// permit says whether and how much a fetcher may bring now. The bounds stop the fetching; what is under way, at most one
// batch for each partition, may pass them.
func (l *loop) permit() (permits chan int, most int) {
	free := min(l.cfg.MaxQueued-l.held.count, int((l.cfg.MaxQueuedBytes-l.held.bytes)/schemas.InlineBytes), fetchBatch)
	if full := free <= 0; full != l.full {
		l.full = full
		if full {
			l.log.Warn("the router is full; requests wait in the stream", keyCount, l.held.count)
		} else {
			l.log.Info("the router has room again", keyCount, l.held.count)
		}
	}
	if l.full || l.draining {
		return nil, 0
	}
	return l.permits, free
}

func (l *loop) beat(h *schemas.Heartbeat) {
	l.learnt.learn(h)
	if l.fleet.beat(h, time.Now()) {
		l.log.Info("worker joined", keyWorker, h.Worker)
		l.heardAgain(h.Worker)
	}
	for _, m := range h.Models {
		l.released(m.Released)
		l.pump(m.Model)
	}
}

func (l *loop) tick(work context.Context, now time.Time) {
	l.wake(now)
	l.ticked = now
	l.renew(now)
	for it := l.expiries.due(l.clock.at(now)); it != nil; it = l.expiries.due(l.clock.at(now)) {
		if it.follower != nil {
			l.retract(it, func() { l.answer(it, overdue()) })
			continue
		}
		l.unqueue(it)
		l.answer(it, expired())
	}
	for _, name := range l.peers.sweep(now) {
		l.log.Warn("router is gone: it missed its heartbeats", keyRouter, name)
	}
	l.allot(now)
	l.adopt(work, now)
	if l.peers.listening(now) {
		l.suspect(work, l.fleet.sweep(now), now)
	}
	l.checkUnseen(work, now)
	l.flights.sweep(now)
	l.doubt(now)
	l.watchHeirs(now)
	if now.Sub(l.refreshed) >= catalogAge {
		l.queue.age(now)
		l.flights.expire(l.clock.at(now), now)
		l.configured.refresh()
		l.forgive(now)
		l.refuseOut(now)
		l.refreshed = now
	}
	if !l.settled && now.Sub(l.began) >= workerGone {
		l.settled = true
		l.refuseUnknown(now)
	}
	if !l.draining {
		if l.books != nil {
			l.books.tick(now)
		}
		l.pumpAll()
	}
	l.watchQueue(now)
	l.beatSelf(now)
}

// renew extends the leases whose turn it is, all of them within a third of a lease.
func (l *loop) renew(now time.Time) {
	turns := min(int(now.Sub(l.turned)/tick), len(l.held.spokes))
	l.turned = l.turned.Add(now.Sub(l.turned).Truncate(tick))
	for range turns {
		for it := range l.held.turn() {
			it.delivery.Extend()
		}
	}
}

// refuseUnknown answers what was queued on trust while the workers were not yet heard.
func (l *loop) refuseUnknown(now time.Time) {
	for model := range l.queue.waiting() {
		if l.known(model, now) {
			continue
		}
		for it := l.queue.pop(model); it != nil; it = l.queue.pop(model) {
			l.expiries.remove(it)
			l.answer(it, l.unknown(model))
		}
	}
}

func (l *loop) busy() bool {
	return l.dispatches.running+l.answers.running+l.checks.running+l.adoptions.running+l.rescues.running+l.hits.running+l.lookups.running > 0 || l.books != nil && l.books.jobs.running > 0
}

// drain stops everything that has not begun. What is in flight is finished.
func (l *loop) drain() {
	l.draining, l.soon = true, true
	for _, lane := range []*lane{l.dispatches, l.answers, l.checks, l.adoptions, l.rescues, l.hits, l.lookups} {
		lane.clear()
	}
	l.stopCopies()
	if l.books != nil {
		l.books.drain()
	}
	for _, s := range l.partitions {
		s.leaving = true
		s.stop()
	}
}

// giveBack returns what is left to the stream, for another router.
func (l *loop) giveBack() {
	left := l.held.count
	for it := range l.held.all() {
		it.delivery.Settle(bus.Nak)
		it.end()
	}
	l.soon = true
	l.beatSelf(time.Now()) // a goodbye
	l.log.Info("router drained", keyCount, left)
}

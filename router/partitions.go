package router

import (
	"context"
	"slices"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

const (
	// adoptRetry is the pause after an adoption that failed.
	adoptRetry = 500 * time.Millisecond
	// adoptLate is when a partition is adopted whose router left in order: it may have died before it was done.
	adoptLate = drainTimeout + 2*time.Second
	// adoptSettle is how long it takes at most until what was taken over has come and been looked at.
	adoptSettle = 5 * time.Second
	// adoptWidth is how many adoptions run at once.
	adoptWidth = schemas.Partitions
)

// served is a partition of LLM_REQUESTS that this router fetches from.
type served struct {
	stop     func()    // ends the fetching; a last batch says when it has ended
	leaving  bool      // stop was called
	pin      string    // the server's proof that it serves this router, as far as the loop knows
	unpinned bool      // another router was served, and nothing has come here since
	since    time.Time // the pin, here; what was accepted before may have been another router's
	moved    time.Time // when requests last went back to the stream, or came here from another reign: more may be on their way
	adopt    time.Time // when to look for what another router left; zero when that is done
	whole    time.Time // when all that another left will be here; zero while that is not known
}

// move notes that what was accepted so far may be on its way from one router to another, or back to this one.
func (s *served) move() {
	now := time.Now()
	s.since, s.moved = now, now
}

// allot begins and ends the serving of partitions, as the routers that live now have it.
func (l *loop) allot(now time.Time) {
	if l.draining {
		return
	}
	mine := l.peers.mine(l.serving())
	for partition, s := range l.partitions {
		if !slices.Contains(mine, partition) && !s.leaving {
			s.leaving = true
			s.stop()
			l.log.Info("router leaves a partition to another", keyPartition, partition)
		}
	}
	for _, partition := range mine {
		if l.partitions[partition] == nil { // one that is being left comes back when that has ended
			l.serve(partition, now)
		}
	}
}

func (l *loop) serve(partition int, now time.Time) {
	s := &served{stop: l.start(partition)}
	switch {
	case l.peers.lost[partition]:
		s.adopt = now
	case now.Sub(l.began) < routerGone: // whoever serves it will have been heard by then
		s.adopt = l.began.Add(routerGone)
	default:
		s.adopt = now.Add(adoptLate)
	}
	delete(l.peers.lost, partition)
	l.partitions[partition] = s
	l.soon = true
}

// serving is the partitions that this router serves.
func (l *loop) serving() (all []int) {
	for partition, s := range l.partitions {
		if !s.leaving {
			all = append(all, partition)
		}
	}
	slices.Sort(all)
	return all
}

// note takes in what a fetcher has to say beside the requests.
func (l *loop) note(b batch) {
	s := l.partitions[b.partition]
	switch {
	case s == nil:
	case b.ended:
		delete(l.partitions, b.partition)
		l.disown(b.partition)
		l.soon = true
	case b.unpinned:
		s.pin, s.unpinned = "", true
		l.log.Info("another router is served the partition now", keyPartition, b.partition)
		l.disown(b.partition)
	default:
		switch {
		case s.since.IsZero():
			s.since = time.Now()
		case s.pin != b.pin:
			s.move()
		}
		s.pin, s.unpinned = b.pin, false
	}
}

// clockSlack is how far the idea of the stream's clock may be off.
const clockSlack = time.Second

// inherited reports whether another router may have had the request before, which the number of its deliveries does not tell
// after a take-over.
func (l *loop) inherited(it *item) bool {
	s := l.partitions[it.partition]
	return s == nil || it.accepted.Before(l.clock.at(s.since).Add(clockSlack))
}

// disown gives back what is held of a partition that another router has now. It comes at once to that one, which may have it
// already.
func (l *loop) disown(partition int) {
	if s := l.partitions[partition]; s != nil {
		s.move()
	}
	l.giveBackIf(func(it *item) bool { return it.partition == partition }, bus.Nak)
	if l.books != nil {
		l.books.leave(partition)
	}
}

// giveBackIf gives back the requests for which yes says so. A step that a job has in hand is finished first, since none does
// harm when it is done twice.
func (l *loop) giveBackIf(yes func(*item) bool, outcome bus.Outcome) {
	l.disinherit(yes, outcome)
	for it := range l.held.all() {
		if !yes(it) {
			continue
		}
		it.back = &outcome
		if it.follower != nil || l.unqueue(it) {
			l.retract(it, func() { l.settle(it, outcome) })
		}
	}
}

// adopt looks after partitions whose router may have left something.
func (l *loop) adopt(work context.Context, now time.Time) {
	if l.draining || !l.peers.listening(now) {
		return
	}
	for partition, s := range l.partitions {
		if s.leaving || s.adopt.IsZero() || now.Before(s.adopt) {
			continue
		}
		s.adopt = time.Time{}
		pin, held := s.pin, l.heldOf[partition]
		l.adoptions.submit(func() func() {
			back, err := l.bus.Adopt(work, partition, pin, held)
			return func() { l.adopted(partition, back, err) }
		})
	}
}

func (l *loop) adopted(partition, back int, err error) {
	if err != nil {
		l.log.Warn("taking over a partition failed; it is tried again", keyPartition, partition, keyError, err)
		if s := l.partitions[partition]; s != nil {
			s.adopt = time.Now().Add(adoptRetry)
		}
		return
	}
	if s := l.partitions[partition]; s != nil {
		if s.whole = time.Now(); back > 0 {
			s.whole = s.whole.Add(adoptSettle)
		}
	}
	if back > 0 {
		l.meters.takeovers.WithLabelValues(takeoverRouter).Add(float64(back))
		l.tell(schemas.Takeover{Of: takeoverRouter, Partition: &partition, Count: back})
		l.log.Info("router took over what another had left", keyPartition, partition, keyCount, back)
	}
}

// hear takes in a router's heartbeat.
func (l *loop) hear(b *schemas.RouterBeat) {
	now := time.Now()
	joined, deaf := l.peers.hear(b, now)
	if joined {
		l.log.Info("router joined", keyRouter, b.Router)
		l.soon = true // so that it knows at once whom it has met
	}
	if deaf {
		l.fleet.excuse(now)
	}
	l.allot(now)
}

// asleep reports whether the loop has not run for so long that others have what it holds.
func (l *loop) asleep(now time.Time) bool { return now.Sub(l.ticked) > l.lease }

// wake forgets what waits when the loop was asleep: it has come back to the stream, may be done, and its ids may have been
// forgotten by everything that would stop a second run.
func (l *loop) wake(now time.Time) {
	if !l.asleep(now) {
		return
	}
	l.log.Warn("the router was stopped for longer than a lease; what it held is left to others", keyCount, l.queue.len())
	for _, s := range l.partitions {
		s.move()
	}
	l.giveBackIf(func(*item) bool { return true }, bus.Silent)
	if l.books != nil {
		for partition := range l.books.partitions {
			l.books.leave(partition)
		}
	}
}

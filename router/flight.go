package router

import (
	"context"
	"time"

	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/schemas"
)

const (
	// flightWindow bounds the events of a flight in memory, in bytes, beside those of one frame. A leader that is so far ahead of
	// its slowest follower is read no further until that one has caught up, and from then on nobody joins.
	flightWindow = 4 << 20
	// flightLinger is how long a flight that has ended takes those who asked before its end.
	flightLinger = 10 * time.Second
)

// flight is one run that equal requests of a tenant share: that of the leader, of which the followers get the events as
// they come, each at its own index. A flight whose leader is lost goes on with one of its followers as the leader, behind the
// same events, so that the index of an event is the same in every chain of the flight.
type flight struct {
	op schemas.Op // of all of them

	// Owned by the loop.
	key      string // under which it is found; requests of another key never meet it
	leader   schemas.Identity
	names    []schemas.Identity // every leader that it had
	heir     *follower          // who leads next, as soon as it has all events
	cause    *schemas.Frame     // that ended the leader before
	replaced bool               // a leader failed and had a successor
	asking   bool               // how the leader stands
	work     uint64             // LLM_WORK sequence of the leader; 0 = it was not dispatched here
	doubt    time.Time          // when a leader of whom there is no trace is given up
	until    time.Time          // the leader's deadline, by the stream's clock
	born     time.Time          // here, by a request that no other router had; zero otherwise
	handing  *follower          // who is about to inherit it
	named    bool               // whether the end of the leader says so
	question heirQuestion       // of the worker that waits for that
	patience time.Time          // until when its worker may ask who inherits the run of a leader that has ended
	landed   time.Time          // when it ended; zero while it goes on

	// Guarded by the copier's mu.
	followers map[*follower]struct{}
	open      bool               // copies may be written
	led       string             // the leader's request
	stop      context.CancelFunc // ends the reading; nil while nobody reads
	reading   int                // which reading it is: what an earlier one brings is void
	room      chan struct{}      // tells the reading that there is room again
	base      uint64             // index of the first event in memory
	events    []cache.Template
	size      int // of them, in bytes
	ended     *schemas.Frame
}

func newFlight(key string, leader *schemas.Request) *flight {
	return &flight{
		op: leader.Op, key: key, leader: leader.Identity, names: []schemas.Identity{leader.Identity}, led: leader.Request,
		followers: make(map[*follower]struct{}), room: make(chan struct{}, 1),
	}
}

// next is the index of the event to come. The copier's mu is held, as for all below.
func (fl *flight) next() uint64 { return fl.base + uint64(len(fl.events)) }

// reset forgets the events, when nobody follows any more. A later follower has them read again.
func (fl *flight) reset() {
	fl.quit()
	fl.open, fl.base, fl.events, fl.size, fl.ended = false, 0, nil, 0, nil
}

// quit ends the reading.
func (fl *flight) quit() {
	fl.reading++
	if fl.stop != nil {
		fl.stop()
		fl.stop = nil
	}
}

// trim forgets the events that every follower has, once they are too many.
func (fl *flight) trim() {
	if fl.size <= flightWindow {
		return
	}
	least := fl.next()
	for f := range fl.followers {
		least = min(least, f.next)
	}
	for fl.base < least {
		fl.size -= fl.events[0].Size()
		fl.events = fl.events[1:]
		fl.base++
	}
	if fl.size <= flightWindow {
		select {
		case fl.room <- struct{}{}:
		default:
		}
	}
}

// first is the follower that came first of those that are fit.
func (fl *flight) first(fit func(*follower) bool) (first *follower) {
	for f := range fl.followers {
		if !fit(f) {
			continue
		}
		if first == nil || f.it.sequence < first.it.sequence {
			first = f
		}
	}
	return first
}

// flights are those of the loop, which owns them.
type flights struct {
	byKey    map[string]*flight
	byLeader map[schemas.Identity]*flight // by every leader that a flight had
	byWork   map[uint64]*flight           // those whose leader was dispatched
	landed   []*flight                    // in the order of their ends
	doubtful []*flight
	bereaved []*flight // whose leader has ended, and whose worker may yet ask for the heir
}

func newFlights() flights {
	return flights{
		byKey: make(map[string]*flight), byLeader: make(map[schemas.Identity]*flight), byWork: make(map[uint64]*flight),
	}
}

// add lets a flight be found. One that is found under its key already keeps it.
func (s *flights) add(fl *flight) {
	if fl.key != "" && s.byKey[fl.key] == nil {
		s.byKey[fl.key] = fl
	}
	s.byLeader[fl.leader] = fl
}

// close lets nobody else join a flight.
func (s *flights) close(fl *flight) {
	if s.byKey[fl.key] == fl {
		delete(s.byKey, fl.key)
	}
}

func (s *flights) remove(fl *flight) {
	s.close(fl)
	for _, name := range fl.names {
		if s.byLeader[name] == fl {
			delete(s.byLeader, name)
		}
	}
	if s.byWork[fl.work] == fl {
		delete(s.byWork, fl.work)
	}
}

// linger forgets a flight that has ended, in a while.
func (s *flights) linger(fl *flight, now time.Time) {
	if fl.landed.IsZero() {
		fl.landed = now
		s.landed = append(s.landed, fl)
	}
}

// sweep forgets the flights that ended a while ago.
func (s *flights) sweep(now time.Time) {
	for len(s.landed) > 0 && now.Sub(s.landed[0].landed) >= flightLinger {
		if !s.landed[0].landed.IsZero() { // it has no new leader
			s.remove(s.landed[0])
		}
		s.landed[0] = nil
		s.landed = s.landed[1:]
	}
}

// expire forgets the flights whose leader must have ended, although no worker's heartbeat told. at is by the stream's clock.
func (s *flights) expire(at, now time.Time) {
	for _, fl := range s.byWork {
		if len(fl.followers) == 0 && at.After(fl.until) {
			s.linger(fl, now)
		}
	}
}

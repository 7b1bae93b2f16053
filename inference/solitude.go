package inference

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// aloneWait is how long a worker takes nothing new for the sake of a request that must run alone, while others still run.
const aloneWait = time.Minute

// errDraining ends the wait for solitude of a worker that stops.
var errDraining = errors.New("the worker drains")

// solitude lets one run at a time have the worker to itself. While a run wants that, the worker takes nothing new and what
// runs is left to its end. It is safe for concurrent use.
type solitude struct {
	notify func() // is told when the worker stops or begins to take work

	mu       sync.Mutex
	running  int             // runs that are neither alone nor wait for it
	wanted   int             // runs that are alone or wait for it
	taken    bool            // one is alone
	draining bool            // nobody need wait any more
	changed  chan struct{}   // closed at every change while somebody wants to be alone
	open     context.Context // ends when somebody wants to be alone; made anew when nobody does any more
	shut     context.CancelFunc
}

func newSolitude(notify func()) *solitude {
	s := &solitude{notify: notify, changed: make(chan struct{})}
	s.open, s.shut = context.WithCancel(context.Background())
	return s
}

// enter counts a run that begins, unless the worker takes nothing at the moment.
func (s *solitude) enter() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.wanted > 0 {
		return false
	}
	s.running++
	return true
}

// leave ends what enter began.
func (s *solitude) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	s.change()
}

// wantedNow reports whether the worker takes nothing at the moment.
func (s *solitude) wantedNow() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.wanted > 0
}

// taking blocks while the worker takes nothing, and returns a context in which it does; stop is to be called.
func (s *solitude) taking(ctx context.Context) (taking context.Context, stop func(), err error) {
	s.mu.Lock()
	for s.wanted > 0 {
		if err := s.wait(ctx); err != nil {
			s.mu.Unlock()
			return nil, nil, err
		}
	}
	open := s.open
	s.mu.Unlock()
	taking, cancel := context.WithCancel(ctx)
	unhook := context.AfterFunc(open, cancel)
	return taking, func() { unhook(); cancel() }, nil
}

// alone blocks until the calling run, which has entered, is the only one, or ctx ends, or the worker drains. Without an
// error, release makes it one of many again.
func (s *solitude) alone(ctx context.Context) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	if s.wanted++; s.wanted == 1 {
		s.shut()
		s.notify()
	}
	s.change()
	for err == nil && (s.running > 0 || s.taken) {
		if s.draining {
			err = errDraining
			break
		}
		err = s.wait(ctx)
	}
	if err != nil {
		s.rejoin()
		return nil, err
	}
	s.taken = true
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.taken = false
		s.rejoin()
	}, nil
}

// rejoin makes a run that wanted to be alone one of many. The caller holds mu.
func (s *solitude) rejoin() {
	s.running++
	if s.wanted--; s.wanted == 0 {
		s.open, s.shut = context.WithCancel(context.Background())
		s.notify()
	}
	close(s.changed)
	s.changed = make(chan struct{})
}

// change tells those who wait. The caller holds mu.
func (s *solitude) change() {
	if s.wanted > 0 {
		close(s.changed)
		s.changed = make(chan struct{})
	}
}

// wait blocks until something has changed. The caller holds mu, and holds it again afterwards.
func (s *solitude) wait(ctx context.Context) error {
	changed := s.changed
	s.mu.Unlock()
	defer s.mu.Lock()
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-changed:
		return nil
	}
}

// drain ends every wait for solitude.
func (s *solitude) drain() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.draining = true
	s.change()
}

// suspect reports whether the next worker that is lost with the request is the last.
func (r *run) suspect() bool { return vanished(r.chain.whole()) == maxAttempts-1 }

// isolate waits until the run is the only one of the worker, so that it takes nobody with it if it kills this worker too.
// When it may not run now, the outcome says what becomes of the item.
func (r *run) isolate(ctx context.Context) (release func(), outcome bus.Outcome) {
	waiting, stop := r.ownContext(ctx) // nothing runs yet that an heir could be given
	defer stop()
	patient, enough := context.WithTimeout(waiting, aloneWait)
	defer enough()
	r.log().Warn("two workers were lost with this request; it runs when nothing else does, and nothing new is taken until then")
	release, err := r.w.solitude.alone(patient)
	switch {
	case err == nil:
		r.w.meters.isolated.Inc()
		return release, bus.Silent
	case errors.Is(err, errDraining):
		return nil, bus.Nak
	case waiting.Err() == nil: // others run on for long: after the lease it may find an idle worker
		r.log().Warn("the worker was not idle in time for a request that must run alone; it is tried again after the lease")
		return nil, bus.Silent
	}
	r.open()
	failed := ContextError(waiting)
	if schemas.AsError(failed).Code == schemas.CodeShutdown {
		return nil, bus.Nak
	}
	return nil, r.finish(ctx, nil, failed)
}

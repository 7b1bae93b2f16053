package router

import (
	"context"
	"errors"
	"slices"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

const (
	rescueWidth   = 4 // rescues in flight
	rescueTimeout = 10 * time.Second
	// suspectFor is how long a worker that was taken for dead is remembered, to count the false alarm if it was not.
	suspectFor = 10 * time.Minute
	// suspects bounds how many are.
	suspects = 1024
)

// lostWork is what a worker that fell silent ran of a model.
type lostWork struct {
	worker, model string
	held          []uint64 // LLM_WORK sequences
	repeatable    []uint64 // those of them that another can go on with, whatever is visible
}

// suspect takes note of the workers that fell silent. Of all routers the first one takes their work back, so that nothing is
// taken back twice; the others leave it to that one.
func (l *loop) suspect(work context.Context, lost []lostWork, now time.Time) {
	for _, lost := range lost {
		l.learnt.forget(lost.worker)
		l.log.Warn("worker is gone: it missed its heartbeats", keyWorker, lost.worker, keyModel, lost.model, keyCount, len(lost.held))
		if len(lost.held) == 0 || l.draining || !l.peers.first() {
			continue
		}
		l.rescues.submit(func() func() {
			back, err := l.clerk.rescue(work, lost)
			return func() { l.rescued(lost, back, err) }
		})
	}
}

// rescued notes what was taken back.
func (l *loop) rescued(lost lostWork, back int, err error) {
	if err != nil {
		l.log.Warn("taking the work of a lost worker back failed; the rest waits for its lease", keyWorker, lost.worker, keyModel, lost.model, keyError, err)
	}
	if back == 0 {
		return
	}
	l.meters.takeovers.WithLabelValues(takeoverWorker).Add(float64(back))
	l.log.Info("the work of a lost worker was taken back", keyWorker, lost.worker, keyModel, lost.model, keyCount, back)
	l.tell(schemas.Takeover{Of: takeoverWorker, Name: lost.worker, Model: lost.model, Count: back})
	if len(l.suspects) < suspects {
		l.suspects[lost.worker] = time.Now()
	}
}

// heardAgain counts a false alarm when a worker beats that was taken for dead.
func (l *loop) heardAgain(worker string) {
	if _, suspected := l.suspects[worker]; !suspected {
		return
	}
	delete(l.suspects, worker)
	l.meters.falseAlarms.Inc()
	l.log.Warn("a worker that was taken for dead is there again; what it ran then is with others", keyWorker, worker)
	l.tell(schemas.Takeover{Of: takeoverWorker, Name: worker, FalseAlarm: true})
}

// forgive forgets the suspects of long ago.
func (l *loop) forgive(now time.Time) {
	for worker, since := range l.suspects {
		if now.Sub(since) > suspectFor {
			delete(l.suspects, worker)
		}
	}
}

// What a take-over is of, as metrics and events call it.
const (
	takeoverRouter = "router"
	takeoverWorker = "worker"
)

// tell publishes a take-over for operators.
func (l *loop) tell(t schemas.Takeover) {
	t.V, t.By, t.Time = schemas.Version, l.cfg.Name, time.Now().UTC()
	l.bus.Event(schemas.EventTakeover, t.Encode())
}

// rescue hands back what others can go on with, and returns how many items that is. What cannot be looked at waits for its
// lease.
func (c *clerk) rescue(ctx context.Context, lost lostWork) (back int, err error) {
	ctx, cancel := context.WithTimeout(ctx, rescueTimeout)
	defer cancel()
	var safe []uint64
	var failed []error
	for _, sequence := range lost.held {
		ok, err := c.rescuable(ctx, lost, sequence)
		if ok {
			safe = append(safe, sequence)
		}
		failed = append(failed, err)
	}
	if len(safe) > 0 {
		if err := c.bus.HandBack(ctx, lost.model, safe...); err != nil {
			return 0, errors.Join(append(failed, err)...)
		}
	}
	return len(safe), errors.Join(failed...)
}

// rescuable reports whether an item that a worker is lost with may go to another at once: no other has claimed its chain
// since, and who goes on need not end the answer with an error.
func (c *clerk) rescuable(ctx context.Context, lost lostWork, sequence uint64) (bool, error) {
	id, err := c.bus.WorkIdentity(ctx, sequence)
	if errors.Is(err, bus.ErrNotFound) {
		return false, nil // it was done
	}
	if err != nil {
		return false, err
	}
	chain, err := c.bus.Chain(ctx, id)
	if err != nil {
		return false, err
	}
	start := chain.Start()
	switch {
	case chain.Terminal() != nil, start == nil:
		return true, nil
	case start.Start.Worker != lost.worker || start.Start.Work != sequence:
		return false, nil
	}
	return !chain.Visible() || slices.Contains(lost.repeatable, sequence), nil
}

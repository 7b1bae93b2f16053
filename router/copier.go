package router

import (
	"context"
	"errors"
	"iter"
	"log/slog"
	"sync"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/record"
	"github.com/weir-llm/weir/schemas"
)

const (
	copyWidth = 64 // followers being written to at once
	// maxPassed is how often another router may have written to a follower's chain before this one leaves it to that.
	maxPassed = 5
)

// copyLog is what the copier asks of a [bus.Bus].
type copyLog interface {
	Append(ctx context.Context, id schemas.Identity, expect uint64, f *schemas.Frame) (uint64, error)
	Chain(ctx context.Context, id schemas.Identity) (*bus.Chain, error)
	LastFrame(ctx context.Context, id schemas.Identity) (*schemas.Frame, error)
	Read(ctx context.Context, id schemas.Identity, opt bus.ReadOptions) iter.Seq2[*schemas.Frame, error]
	Result(ctx context.Context, id schemas.Identity) (*schemas.Result, error)
	PutResult(ctx context.Context, r *schemas.Result) error
	Body(ctx context.Context, r *schemas.Request) ([]byte, error)
}

// copier writes the events of leaders to the chains of their followers. One goroutine for each flight reads the leader; a
// bounded number writes, each to one follower at a time, which gets in one frame whatever has come since its last. It
// starts its goroutines when there is something to do, and reports to the loop.
type copier struct {
	bus      copyLog
	log      *slog.Logger
	loop     *loop
	ctx      context.Context // of the readings
	stop     context.CancelFunc
	owned    sync.WaitGroup
	finished chan<- func() // to the loop

	mu     sync.Mutex
	ready  []*follower
	active int
	closed bool
}

// wake has a follower written to if there is something to write. mu is held.
func (c *copier) wake(f *follower) {
	if f.state != followerIdle || c.closed {
		return
	}
	f.state = followerReady
	c.ready = append(c.ready, f)
	if c.active < copyWidth {
		c.active++
		c.owned.Go(c.write)
	}
}

// wakeAll wakes the followers of a flight. mu is held.
func (c *copier) wakeAll(fl *flight) {
	for f := range fl.followers {
		c.wake(f)
	}
}

// write serves followers, in turn, while there are any.
func (c *copier) write() {
	for f, t := c.take(); f != nil; f, t = c.take() {
		if t.leave != nil {
			c.finished <- t.leave
			continue
		}
		c.carryOut(f, t)
	}
}

// take gives the next follower with a task.
func (c *copier) take() (*follower, task) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.ready) > 0 && !c.closed {
		f := c.ready[0]
		c.ready[0] = nil
		c.ready = c.ready[1:]
		if f.state != followerReady {
			continue
		}
		t := f.task()
		switch {
		case t.leave != nil:
			f.state = followerGone
		case t.kind != "":
			f.state = followerWriting
		default:
			f.state = followerIdle
			continue
		}
		return f, t
	}
	c.active--
	return nil, task{}
}

func (c *copier) carryOut(f *follower, t task) {
	frame := f.frame(t)
	sequence, err := c.bus.Append(f.it.ctx, f.it.req.Identity, f.sequence, frame)
	switch {
	case err == nil && frame.Kind.Terminal():
		f.wrote(frame, sequence, time.Now())
		c.conclude(f)
	case err == nil:
		c.again(f, func() { f.wrote(frame, sequence, time.Now()) })
	case errors.Is(err, bus.ErrFenced):
		c.fenced(f)
	default:
		c.log.Warn("copying an answer failed; it goes on after the lease", keyRequest, f.it.req.Request, keyTenant, f.it.req.Tenant, keyError, err)
		c.report(f, bus.Silent)
	}
}

// again puts a follower at the end of those that wait, after note.
func (c *copier) again(f *follower, note func()) {
	c.mu.Lock()
	defer c.mu.Unlock()
	note()
	f.flight.trim()
	f.state = followerIdle
	c.wake(f)
}

// conclude keeps the result of a follower whose chain has ended.
func (c *copier) conclude(f *follower) {
	c.mu.Lock()
	known, events := !f.partial && f.flight.base == 0, f.flight.events
	c.mu.Unlock()
	var chain *bus.Chain
	var err error
	if known {
		chain = f.chain(events)
	} else {
		chain, err = c.bus.Chain(f.it.ctx, f.it.req.Identity)
	}
	if err == nil {
		err = c.keep(f.it, chain)
	}
	if err != nil {
		c.log.Warn("the result of a copy was not stored; it is tried again after the lease", keyRequest, f.it.req.Request,
			keyTenant, f.it.req.Tenant, keyError, err)
		c.report(f, bus.Silent)
		return
	}
	c.report(f, bus.Ack)
}

// keep makes sure of the result of a finished chain.
func (c *copier) keep(it *item, chain *bus.Chain) error {
	body, err := c.bus.Body(it.ctx, it.req)
	if err != nil {
		c.log.Warn("result without its request body", keyRequest, it.req.Request, keyTenant, it.req.Tenant, keyError, err)
	}
	return c.bus.PutResult(it.ctx, record.Build(it.asWork(), body, chain, nil))
}

// fenced finds out why a write was refused. A chain that another has ended needs its result; one that holds no more than
// the door's frame is gone on with; what becomes of any other is the loop's to say, or that of whoever writes it.
func (c *copier) fenced(f *follower) {
	chain, err := c.bus.Chain(f.it.ctx, f.it.req.Identity)
	switch {
	case err != nil:
		c.report(f, bus.Silent)
	case chain.Terminal() != nil:
		outcome := bus.Ack
		if c.keep(f.it, chain) != nil {
			outcome = bus.Silent
		}
		c.report(f, outcome)
	case f.led == "" && chain.Start() == nil && chain.Sequence() != f.sequence:
		c.again(f, func() { f.sequence, f.frames = chain.Sequence(), chain.Frames })
	case f.led == "" && chain.Start() != nil, c.strays(f, chain):
		f.it.passed++
		c.gone(f)
		c.finished <- func() { c.loop.astray(f) }
	case chain.Leader() != "" && f.it.passed < maxPassed: // the last that the router before had on its way
		c.again(f, func() {
			f.it.passed++
			f.goOn(chain)
		})
	default:
		c.report(f, bus.Silent)
	}
}

// strays reports whether another router has given a follower events of another leader than that of its flight: only that leader's
// fit behind them.
func (c *copier) strays(f *follower, chain *bus.Chain) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return chain.Visible() && chain.Leader() != "" && chain.Leader() != f.flight.led && f.it.passed < maxPassed
}

func (c *copier) gone(f *follower) {
	c.mu.Lock()
	defer c.mu.Unlock()
	f.state = followerGone
}

func (c *copier) report(f *follower, outcome bus.Outcome) {
	c.gone(f)
	c.finished <- func() { c.loop.copied(f, outcome) }
}

// reclaim has then run in the loop as soon as nothing is being written to the follower and, with whole, it has all events of
// its flight. The loop calls it.
func (c *copier) reclaim(f *follower, whole bool, then func()) {
	c.mu.Lock()
	if f.state == followerGone { // its outcome is on its way
		c.mu.Unlock()
		return
	}
	f.leave, f.whole = then, whole
	if f.state == followerWriting || c.closed {
		c.mu.Unlock()
		return
	}
	f.state = followerIdle
	now := f.task().leave != nil
	if now {
		f.state = followerGone
	} else {
		c.wake(f)
	}
	c.mu.Unlock()
	if now {
		then()
	}
}

// begin has the leader of a flight read, behind the events that are known, or its result, and the followers written to.
func (c *copier) begin(fl *flight, known *schemas.Result) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return
	}
	ctx, stop := context.WithCancel(c.ctx)
	fl.quit()
	fl.open, fl.stop = true, stop
	r := &reading{c: c, fl: fl, number: fl.reading, leader: fl.leader}
	from := fl.next()
	c.owned.Go(func() {
		defer stop()
		if known != nil {
			r.retell(ctx, known)
		} else {
			r.read(ctx, from)
		}
	})
	c.wakeAll(fl)
}

// end lets the followers of a flight end as frame says, after their events. mu is not held.
func (c *copier) end(fl *flight, frame *schemas.Frame) {
	c.mu.Lock()
	defer c.mu.Unlock()
	fl.ended, fl.open = frame, true
	c.wakeAll(fl)
}

// close ends all that is being done; what is being written is finished. The followers stay as they are.
func (c *copier) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.stop()
	c.owned.Wait()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// moment is when the kill comes, as the first call of a cell lives it.
type moment struct {
	name               string
	model              string
	tokens, intervalMS int
	reached            func(events int64, since time.Duration) bool
}

const midStream = "mid-stream"

func moments(short bool) []moment {
	after := func(d time.Duration) func(int64, time.Duration) bool {
		return func(_ int64, since time.Duration) bool { return since > d }
	}
	seen := func(n int64) func(int64, time.Duration) bool {
		return func(events int64, _ time.Duration) bool { return events >= n }
	}
	all := []moment{
		{"queued", "tight", 12, 40, after(100 * time.Millisecond)},
		{midStream, "echo", 40, 40, seen(10)},
		{"before the first token", "echo", 3, 600, after(300 * time.Millisecond)},
		{"before the end", "echo", 30, 30, seen(29)},
	}
	if short {
		return all[:2]
	}
	return all
}

// calls of one cell: half deterministic, half not, two of a model that cannot go on with what it said, and a unary one.
const callsPerKind = 3

// downtime is how long the victim stays away.
const downtime = 300 * time.Millisecond

// cellTimeout is by when every request of a cell must have ended.
const cellTimeout = 2 * time.Minute

func runLayout(ctx context.Context, dir string, l layout, moments []moment, report *report) (err error) {
	c, err := newCluster(dir, l)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.stopAll()) }()
	if err := c.startAll(ctx); err != nil {
		return err
	}
	var done []*call
	for _, victim := range l.victims() {
		for _, moment := range moments {
			calls, err := runCell(ctx, c, victim, moment, report)
			if err != nil {
				return err
			}
			done = append(done, calls...)
		}
	}
	for _, run := range l.specials() {
		calls, err := run(ctx, c, report)
		if err != nil {
			return err
		}
		done = append(done, calls...)
	}
	return checkStore(ctx, c, done, report)
}

// special is a cell of its own kind.
type special func(context.Context, *cluster, *report) ([]*call, error)

func (l layout) specials() []special {
	switch l {
	case separate:
		return []special{runZombie, runStandby}
	case pieces:
		return []special{runPieces}
	case patient:
		return []special{runLostWorker}
	case drowsy, drowsyCluster:
		return []special{runSleepers}
	}
	return nil
}

// runCell sends the requests of a cell, kills the victim at the moment, brings it back, and checks every ending.
func runCell(ctx context.Context, c *cluster, victim string, m moment, report *report) ([]*call, error) {
	serial := c.nextCell()
	// The moment is that of the first, which is never queued and which a death in the middle must end.
	calls := []*call{
		newCall(fmt.Sprintf("c%d-final-vary", serial), finalModel, false, true, m.tokens, m.intervalMS),
		newCall(fmt.Sprintf("c%d-final-same", serial), finalModel, true, true, m.tokens, m.intervalMS),
	}
	for i := range callsPerKind {
		id := fmt.Sprintf("c%d-%d", serial, i)
		calls = append(calls, newCall(id+"-same", m.model, true, true, m.tokens, m.intervalMS),
			newCall(id+"-vary", m.model, false, true, m.tokens, m.intervalMS))
	}
	calls = append(calls, newCall(fmt.Sprintf("c%d-unary", serial), m.model, true, false, m.tokens, m.intervalMS))
	if err := undisturbed(ctx, c, calls, serial, m.model, m.tokens); err != nil {
		return nil, err
	}
	err := runCalls(ctx, c, calls, func(ctx context.Context) error {
		if err := wait(ctx, func(since time.Duration) bool { return m.reached(calls[0].seen.Load(), since) }); err != nil {
			return err
		}
		gone, err := c.strike(ctx, victim)
		if err != nil {
			return err
		}
		pause(ctx, downtime)
		return c.start(gone)
	})
	if err != nil {
		return nil, fmt.Errorf("%s, kill -9 of %s, %s: %w", c.layout, victim, m.name, err)
	}
	tally, err := checkCalls(ctx, c, calls)
	report.add(string(c.layout), victim, m.name, tally)
	if err != nil {
		return nil, fmt.Errorf("%s, kill -9 of %s, %s: %w", c.layout, victim, m.name, err)
	}
	if victim == "serve" && m.name == midStream && tally.failed == 0 {
		return nil, errors.New("no answer was cut for good: that ending was never put to the test")
	}
	return calls, c.allReady(ctx)
}

// allReady waits for whoever was struck.
func (c *cluster) allReady(ctx context.Context) error {
	for _, name := range c.names() {
		if err := c.waitReady(ctx, name); err != nil {
			return err
		}
	}
	return nil
}

// strike kills the victim, and returns which process that was.
func (c *cluster) strike(ctx context.Context, victim string) (name string, err error) {
	switch victim {
	case leaderAndDisk:
		return c.loseLeader(ctx)
	case activeRouter:
		victim = c.activeRouter()
	}
	return victim, c.kill(victim)
}

// runZombie stops a worker past its lease, lets the other take over, and wakes it again: nothing it then writes may show.
func runZombie(ctx context.Context, c *cluster, report *report) ([]*call, error) {
	serial := c.nextCell()
	var calls []*call
	for i := range 2 * callsPerKind {
		calls = append(calls, newCall(fmt.Sprintf("z%d-%d", serial, i), "echo", true, true, 60, 50))
	}
	if err := undisturbed(ctx, c, calls, serial, "echo", 60); err != nil {
		return nil, err
	}
	err := runCalls(ctx, c, calls, func(ctx context.Context) error {
		if err := wait(ctx, func(time.Duration) bool { return calls[0].seen.Load() >= 10 }); err != nil {
			return err
		}
		if err := c.signal("worker-1", syscall.SIGSTOP); err != nil {
			return err
		}
		pause(ctx, lease+lease/2)
		return c.signal("worker-1", syscall.SIGCONT)
	})
	if err != nil {
		return nil, fmt.Errorf("SIGSTOP of worker-1: %w", err)
	}
	tally, err := checkCalls(ctx, c, calls)
	report.add(string(c.layout), "worker-1", "SIGSTOP past its lease, SIGCONT", tally)
	if err == nil && tally.takenOver == 0 {
		err = errors.New("no request was taken over: the zombie was never put to the test")
	}
	return calls, err
}

// undisturbed learns the answer that the deterministic calls must get, from a request without a fault.
func undisturbed(ctx context.Context, c *cluster, calls []*call, serial int, model string, tokens int) error {
	reference := newCall(fmt.Sprintf("ref-%d", serial), model, true, true, tokens, 0)
	ctx, cancel := context.WithTimeout(ctx, cellTimeout)
	defer cancel()
	if err := reference.run(ctx, c.http); err != nil {
		return err
	}
	if reference.finish == "" {
		return fmt.Errorf("a request without a fault ended in %q", reference.code)
	}
	for _, call := range calls {
		call.want = reference.text.String()
	}
	return nil
}

// runCalls lives all calls to their end while the fault happens.
func runCalls(ctx context.Context, c *cluster, calls []*call, fault func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, cellTimeout)
	defer cancel()
	errs := make([]error, len(calls)+1)
	var running sync.WaitGroup
	for i, call := range calls {
		running.Go(func() { errs[i] = call.run(ctx, c.http) })
	}
	running.Go(func() { errs[len(calls)] = fault(ctx) })
	running.Wait()
	return errors.Join(errs...)
}

func wait(ctx context.Context, reached func(time.Duration) bool) error {
	for began := time.Now(); !reached(time.Since(began)); {
		select {
		case <-ctx.Done():
			return fmt.Errorf("the moment of the fault never came: %w", ctx.Err())
		case <-time.After(2 * time.Millisecond):
		}
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// identity of a call in the open layout, whose callers are all the tenant default.
func (c *call) identity() schemas.Identity {
	return schemas.Identity{Tenant: "default", Request: c.id}
}

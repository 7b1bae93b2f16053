package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
)

const (
	// sleepersEvery is the pace of the requests while processes fall asleep, and sleepersFor how long they do.
	sleepersEvery = 100 * time.Millisecond
	sleepersFor   = 20 * time.Second
	// longestNap is past the lease of any delivery, and longestWaking how long a process is awake between two.
	longestNap, longestWaking = lease + lease/2, 4 * time.Second
	// The answers of these requests.
	sleepersTokens, sleepersIntervalMS = 20, 20
)

// runSleepers stops and wakes every process by itself, at random: what a machine does that swaps, migrates or has too many
// guests. Any of them may be stopped at any instruction, several at once, for longer than a lease, and go on as if nothing
// had happened.
func runSleepers(ctx context.Context, c *cluster, report *report) ([]*call, error) {
	serial := c.nextCell()
	reference := newCall("", "echo", true, true, sleepersTokens, 0)
	if err := undisturbed(ctx, c, []*call{reference}, serial, "echo", sleepersTokens); err != nil {
		return nil, err
	}
	var naps atomic.Int64
	calls, err := c.sendWhile(ctx, sleepersEvery, func(ctx context.Context) error {
		return c.putToSleep(ctx, &naps)
	}, func(i int) *call {
		call := sleeperCall(fmt.Sprintf("n%d-%d", serial, i), i)
		call.want = reference.want
		return call
	}, func() {})
	failed := func(err error) error { return fmt.Errorf("%s, SIGSTOP of everything at random: %w", c.layout, err) }
	if err := errors.Join(err, c.allReady(ctx)); err != nil { // who is dead tells more than the request that misses it
		return calls, failed(err)
	}
	tally, err := checkCalls(ctx, c, calls)
	report.add(string(c.layout), "everything", fmt.Sprintf("SIGSTOP and SIGCONT at random, %d times", naps.Load()), tally)
	if err != nil {
		return calls, failed(err)
	}
	return calls, nil
}

// sleeperCall is one of each kind in turn.
func sleeperCall(id string, i int) *call {
	kinds := [...]struct {
		model        string
		same, stream bool
	}{{"echo", true, true}, {"echo", false, true}, {"echo", true, false}, {finalModel, false, true}, {finalModel, true, true}}
	kind := kinds[i%len(kinds)]
	return newCall(id, kind.model, kind.same, kind.stream, sleepersTokens, sleepersIntervalMS)
}

// putToSleep stops and wakes every process, each in its own time, and leaves all awake.
func (c *cluster) putToSleep(ctx context.Context, naps *atomic.Int64) error {
	ctx, cancel := context.WithTimeout(ctx, sleepersFor)
	defer cancel()
	var sleeping sync.WaitGroup
	errs := make([]error, len(c.names()))
	for i, name := range c.names() {
		sleeping.Go(func() {
			for errs[i] == nil && ctx.Err() == nil {
				pause(ctx, rand.N(longestWaking))
				errs[i] = c.nap(ctx, name)
				naps.Add(1)
			}
		})
	}
	sleeping.Wait()
	return errors.Join(errs...)
}

// nap stops a process for a while.
func (c *cluster) nap(ctx context.Context, name string) error {
	if err := c.signal(name, syscall.SIGSTOP); err != nil {
		return fmt.Errorf("stop %s: %w", name, err)
	}
	pause(ctx, rand.N(longestNap))
	if err := c.signal(name, syscall.SIGCONT); err != nil {
		return fmt.Errorf("wake %s: %w", name, err)
	}
	return nil
}

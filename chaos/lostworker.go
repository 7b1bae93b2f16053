package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/weir-llm/weir/internal/bus"
)

// lostWorkers is how often a worker is killed to measure how soon its requests run elsewhere.
const lostWorkers = 5

// runLostWorker kills a worker in the middle of answers that another can go on with, and reports how long it took until they
// ran there. The lease is longer than the cell, so that a request that waited for it fails.
func runLostWorker(ctx context.Context, c *cluster, report *report) (all []*call, err error) {
	var total tally
	var took []time.Duration
	for range lostWorkers {
		serial := c.nextCell()
		var calls []*call
		for i := range 4 {
			calls = append(calls, newCall(fmt.Sprintf("l%d-%d", serial, i), "echo", true, true, 60, 50))
		}
		if err := undisturbed(ctx, c, calls, serial, "echo", 60); err != nil {
			return all, err
		}
		var killed time.Time
		err := runCalls(ctx, c, calls, func(ctx context.Context) error {
			if err := wait(ctx, func(time.Duration) bool { return calls[0].seen.Load() >= 5 }); err != nil {
				return err
			}
			killed = time.Now()
			if err := c.kill("worker-1"); err != nil {
				return err
			}
			pause(ctx, 4*time.Second)
			return errors.Join(c.start("worker-1"), c.waitReady(ctx, "worker-1"))
		})
		if err != nil {
			return all, fmt.Errorf("kill -9 of worker-1: %w", err)
		}
		tally, err := checkCalls(ctx, c, calls)
		if err != nil {
			return all, fmt.Errorf("kill -9 of worker-1: %w", err)
		}
		elsewhere, err := c.runningElsewhere(ctx, calls, killed)
		if err != nil {
			return all, err
		}
		took, all = append(took, elsewhere...), append(all, calls...)
		total.requests, total.whole = total.requests+tally.requests, total.whole+tally.whole
		total.failed, total.resumes, total.takenOver = total.failed+tally.failed, total.resumes+tally.resumes, total.takenOver+tally.takenOver
	}
	if len(took) == 0 {
		return all, errors.New("no request was taken over: no worker was killed with one")
	}
	slices.Sort(took)
	report.add(string(c.layout), "worker-1", fmt.Sprintf("mid-stream; elsewhere after %s at the median, %s at most",
		took[len(took)/2].Round(10*time.Millisecond), took[len(took)-1].Round(10*time.Millisecond)), total)
	return all, nil
}

// runningElsewhere is, for each request that was taken over, the time from the kill to the claim of its second attempt.
func (c *cluster) runningElsewhere(ctx context.Context, calls []*call, killed time.Time) (took []time.Duration, err error) {
	b, err := bus.Connect(ctx, bus.Config{URL: c.url(), Name: "chaos"})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	for _, call := range calls {
		chain, err := b.Chain(ctx, call.identity())
		if err != nil {
			return nil, err
		}
		for _, f := range chain.Frames {
			if f.Start != nil && f.Attempt == 2 {
				took = append(took, f.Time.Sub(killed))
			}
		}
	}
	return took, nil
}

package main

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"time"
)

// activeRouter is a victim: of two routers the one that serves, which is the elder.
const activeRouter = "active router"

func (c *cluster) activeRouter() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.started["router-2"].Before(c.started["router-1"]) {
		return "router-2"
	}
	return "router-1"
}

const (
	// steadyEvery is the pace of the requests while a router is struck.
	steadyEvery = 20 * time.Millisecond
	// gapWithin is the longest time without an answer that is no failure. The promise is 2 s, which the figure in the report
	// is held against; a machine under load gets more before the matrix fails.
	gapWithin = 5 * time.Second
)

// runStandby sends a steady stream of short requests while the active router is killed, and stopped and woken, and reports
// for how long no answer ended.
func runStandby(ctx context.Context, c *cluster, report *report) (all []*call, err error) {
	for _, fault := range []struct {
		name   string
		strike func(context.Context, string) error
	}{
		{"kill -9", func(ctx context.Context, router string) error {
			if err := c.kill(router); err != nil {
				return err
			}
			pause(ctx, 3*time.Second)
			return errors.Join(c.start(router), c.waitReady(ctx, router))
		}},
		{"SIGSTOP, SIGCONT after 3 s", func(ctx context.Context, router string) error {
			if err := c.signal(router, syscall.SIGSTOP); err != nil {
				return err
			}
			pause(ctx, 3*time.Second)
			return c.signal(router, syscall.SIGCONT)
		}},
	} {
		calls, gap, err := c.steady(ctx, fault.strike)
		if err == nil && gap > gapWithin {
			err = fmt.Errorf("no answer ended for %s", gap)
		}
		if err != nil {
			return all, fmt.Errorf("%s of the active router under load: %w", fault.name, err)
		}
		tally, err := checkCalls(ctx, c, calls)
		report.add(string(c.layout), activeRouter, fmt.Sprintf("%s, longest gap %s", fault.name, gap.Round(time.Millisecond)), tally)
		if err != nil {
			return all, fmt.Errorf("%s of the active router under load: %w", fault.name, err)
		}
		all = append(all, calls...)
	}
	return all, nil
}

// steady sends requests at a pace while the active router is struck, and for a second after, and returns the longest time
// in which none of them ended.
func (c *cluster) steady(ctx context.Context, strike func(context.Context, string) error) (calls []*call, gap time.Duration, err error) {
	ctx, cancel := context.WithTimeout(ctx, cellTimeout)
	defer cancel()
	serial := c.nextCell()
	var running sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	last := time.Now()
	struck := make(chan struct{})
	running.Go(func() {
		defer close(struck)
		pause(ctx, 500*time.Millisecond)
		err := strike(ctx, c.activeRouter())
		pause(ctx, time.Second)
		mu.Lock()
		defer mu.Unlock()
		failed = append(failed, err)
	})
	ticker := time.NewTicker(steadyEvery)
	defer ticker.Stop()
	for sending := true; sending; {
		select {
		case <-struck:
			sending = false
		case <-ticker.C:
			call := newCall(fmt.Sprintf("s%d-%d", serial, len(calls)), "echo", false, false, 1, 0)
			calls = append(calls, call)
			running.Go(func() {
				err := call.run(ctx, c.http)
				mu.Lock()
				defer mu.Unlock()
				now := time.Now()
				gap, last = max(gap, now.Sub(last)), now
				failed = append(failed, err)
			})
		}
	}
	running.Wait()
	return calls, gap, errors.Join(failed...)
}

package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	// routerKills is how often the active router is killed. The median of the gaps must keep to the promise: one of them
	// may have fallen on a moment in which the machine was busy.
	routerKills = 3
	gapPromised = 2 * time.Second
	// gapWithin is the longest gap that none may exceed, whatever the machine does besides.
	gapWithin = 15 * time.Second
	// routerAway is how long a router stays away, so that nobody can have waited for it.
	routerAway = 3 * time.Second
)

// routerFault is what happens to the active router, how often, and how long no answer may end at the median.
type routerFault struct {
	name   string
	times  int
	gap    time.Duration
	strike func(ctx context.Context, router string) error
}

func (c *cluster) routerFaults() []routerFault {
	return []routerFault{
		{"kill -9", routerKills, gapPromised, func(ctx context.Context, router string) error {
			if err := c.kill(router); err != nil {
				return err
			}
			pause(ctx, routerAway)
			return errors.Join(c.start(router), c.waitReady(ctx, router))
		}},
		{"SIGSTOP, and SIGCONT later", 1, gapWithin, func(ctx context.Context, router string) error {
			if err := c.signal(router, syscall.SIGSTOP); err != nil {
				return err
			}
			pause(ctx, routerAway)
			return c.signal(router, syscall.SIGCONT)
		}},
	}
}

// runStandby sends a steady stream of short requests while the active router is killed, again and again, and stopped and
// woken, and holds the times in which no answer ended against what is promised.
func runStandby(ctx context.Context, c *cluster, report *report) (all []*call, err error) {
	for _, fault := range c.routerFaults() {
		calls, err := c.strikeRouter(ctx, fault, report)
		all = append(all, calls...)
		if err != nil {
			return all, fmt.Errorf("%s of the active router under load: %w", fault.name, err)
		}
	}
	return all, nil
}

func (c *cluster) strikeRouter(ctx context.Context, fault routerFault, report *report) (all []*call, err error) {
	var gaps []time.Duration
	for range fault.times {
		calls, gap, err := c.steady(ctx, fault.strike)
		if err != nil {
			return all, err
		}
		all, gaps = append(all, calls...), append(gaps, gap)
	}
	tally, err := checkCalls(ctx, c, all)
	slices.Sort(gaps)
	median, worst := gaps[len(gaps)/2], gaps[len(gaps)-1]
	said := fmt.Sprintf("no answer for %s at the median and %s at most", median.Round(time.Millisecond), worst.Round(time.Millisecond))
	report.add(string(c.layout), activeRouter, fmt.Sprintf("%s, times %d: %s", fault.name, fault.times, said), tally)
	if err == nil && (median > fault.gap || worst > gapWithin) {
		err = fmt.Errorf("%s: more than %s and %s", said, fault.gap, gapWithin)
	}
	return all, err
}

// steady sends requests at a pace while the active router is struck, and for a second after, and returns the longest time
// in which none of them ended.
func (c *cluster) steady(ctx context.Context, strike func(context.Context, string) error) (calls []*call, gap time.Duration, err error) {
	serial := c.nextCell()
	var mu sync.Mutex
	last := time.Now()
	calls, err = c.sendWhile(ctx, steadyEvery, func(ctx context.Context) error {
		pause(ctx, 500*time.Millisecond)
		err := strike(ctx, c.activeRouter())
		pause(ctx, time.Second)
		return err
	}, func(i int) *call {
		return newCall(fmt.Sprintf("s%d-%d", serial, i), "echo", false, false, 1, 0)
	}, func() {
		mu.Lock()
		defer mu.Unlock()
		now := time.Now()
		gap, last = max(gap, now.Sub(last)), now
	})
	return calls, gap, err
}

// sendWhile sends a call every so often while the fault lasts, and returns all of them when they have ended, of which each is
// told as it does.
func (c *cluster) sendWhile(ctx context.Context, every time.Duration, fault func(context.Context) error, next func(i int) *call, ended func()) ([]*call, error) {
	ctx, cancel := context.WithTimeout(ctx, cellTimeout)
	defer cancel()
	var running sync.WaitGroup
	var mu sync.Mutex
	var failed []error
	note := func(err error) {
		mu.Lock()
		defer mu.Unlock()
		failed = append(failed, err)
	}
	over := make(chan struct{})
	running.Go(func() {
		defer close(over)
		note(fault(ctx))
	})
	ticker := time.NewTicker(every)
	defer ticker.Stop()
	var calls []*call
	for sending := true; sending; {
		select {
		case <-over:
			sending = false
		case <-ticker.C:
			call := next(len(calls))
			calls = append(calls, call)
			running.Go(func() {
				note(call.run(ctx, c.http))
				ended()
			})
		}
	}
	running.Wait()
	return calls, errors.Join(failed...)
}

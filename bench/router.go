package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

const (
	routerBody     = 2 << 10 // bytes of a request's body
	routerClients  = 16
	routerCPULimit = 60.0 // µs for each request
	queuedLimitMB  = 64.0
	queuedTenants  = 1000
	passingTenants = 32 // so that none fills its subject while the router is behind
	waitLimit      = 2 * time.Minute
)

// routerCommand measures a router that is a process of its own: this program is its callers and its workers.
func routerCommand(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := newFlags("router", stderr)
	weir := weirFlag(flags)
	n := flags.Int("n", 10_000, "requests that pass, and that wait")
	rounds := flags.Int("rounds", 5, "rounds of requests that pass, of which the median counts")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *n < 1 || *rounds < 1 {
		return errors.New("use at least one request and one round")
	}
	dir, program, remove, err := workplace(ctx, "", *weir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	h, err := startHub(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	router, err := h.stage(ctx, program, "router", "models:\n  bench:\n    backends:\n      - {name: echo, protocol: echo}\n")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, router.process.Close()) }()
	var spent []float64
	for round := range *rounds {
		cpu, err := h.pass(ctx, router, *n)
		if err != nil {
			return fmt.Errorf("%w\n%s", err, &router.process.output)
		}
		fmt.Fprintf(stderr, "round %d: %.1f us\n", round+1, cpu)
		spent = append(spent, cpu)
	}
	before, after, err := h.wait(ctx, router, *n)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, &router.process.output)
	}
	fmt.Fprintf(stdout, "A request of %d bytes that passes costs the router %.1f us of CPU. %d that wait, of %d tenants, take %.1f MB of what it holds (heap and stacks %.1f MB, before %.1f MB) and %.1f MB are resident.\n\n",
		routerBody, median(spent), *n, queuedTenants, (after.held()-before.held())/1000, after.held()/1000, before.held()/1000, after.resident/1000)
	return writeVerdict(stdout, []limit{
		{"router CPU for a request that passes, us", "at most 60", median(spent), "%.1f", median(spent) <= routerCPULimit},
		{fmt.Sprintf("router with %d requests queued, MB that it holds", *n), "at most 64", after.held() / 1000, "%.1f", after.held()/1000 <= queuedLimitMB},
	}, false)
}

// pass has the router dispatch requests as fast as they come and returns the CPU it took for each, in microseconds.
func (h *hub) pass(ctx context.Context, router *apart, n int) (float64, error) {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	working, stop := context.WithCancel(ctx)
	defer stop()
	var taken atomic.Int64
	var workers sync.WaitGroup
	workers.Go(func() { h.work(working, n, &taken) })
	defer workers.Wait()
	if !waitUntil(ctx, time.Now().Add(time.Second)) { // until the router knows the worker
		return 0, ctx.Err()
	}
	before, err := cpuTime(router.process.pid())
	if err != nil {
		return 0, err
	}
	if err := h.publish(ctx, n, passingTenants); err != nil {
		return 0, err
	}
	for taken.Load() < int64(n) {
		if !waitUntil(ctx, time.Now().Add(20*time.Millisecond)) {
			return 0, fmt.Errorf("%d of %d requests were dispatched", taken.Load(), n)
		}
	}
	if _, err := settle(ctx, router.process.pid(), 5*time.Second); err != nil {
		return 0, err
	}
	after, err := cpuTime(router.process.pid())
	stop()
	return float64((after - before).Microseconds()) / float64(n), err
}

// work takes everything, and tells the router that there is room for all of it.
func (h *hub) work(ctx context.Context, n int, taken *atomic.Int64) {
	if err := h.bus.EnsureWorkConsumer(ctx, benchModel); err != nil {
		return
	}
	puller := h.bus.Work(benchModel)
	defer puller.Close()
	var mu sync.Mutex
	var released []uint64
	var beating sync.WaitGroup
	defer beating.Wait()
	beating.Go(func() {
		for waitUntil(ctx, time.Now().Add(100*time.Millisecond)) {
			mu.Lock()
			beat := &schemas.Heartbeat{V: schemas.Version, Worker: "bench", Models: []schemas.ModelBeat{{Model: benchModel, Slots: n, Released: released}}}
			released = nil
			mu.Unlock()
			_ = h.bus.Beat(beat) // a hint
		}
	})
	for {
		batch, err := puller.Fetch(ctx, 512)
		if err != nil {
			return
		}
		mu.Lock()
		for _, d := range batch {
			d.Settle(bus.Ack)
			released = append(released, d.Sequence)
		}
		mu.Unlock()
		taken.Add(int64(len(batch)))
	}
}

// publish hands over n requests of so many tenants.
func (h *hub) publish(ctx context.Context, n, tenants int) error {
	body := fmt.Appendf(nil, `{"model":%q,"messages":[{"role":"user","content":%q}],"stream":true}`, benchModel, strings.Repeat("word ", routerBody/5))
	var next atomic.Int64
	errs := make([]error, routerClients)
	var clients sync.WaitGroup
	for c := range errs {
		clients.Go(func() {
			for i := next.Add(1); i <= int64(n) && errs[c] == nil; i = next.Add(1) {
				_, errs[c] = h.bus.Accept(ctx, &schemas.Request{
					Identity:   schemas.Identity{Tenant: fmt.Sprint("tenant-", i%int64(tenants)), Request: "req_" + ulid.Make().String()},
					ModelToken: benchModel, Op: schemas.OpChat, Body: body,
				})
			}
		})
	}
	clients.Wait()
	return errors.Join(errs...)
}

// wait fills the router's queue and returns what it holds without and with it.
func (h *hub) wait(ctx context.Context, router *apart, n int) (before, after footprint, err error) {
	ctx, cancel := context.WithTimeout(ctx, waitLimit)
	defer cancel()
	var queued atomic.Int64
	stop, err := h.bus.OnRouterBeat(func(b *schemas.RouterBeat) {
		if b.Figures != nil {
			queued.Store(int64(b.Figures.Queued))
		}
	})
	if err != nil {
		return before, after, err
	}
	defer stop()
	if _, err := settle(ctx, router.process.pid(), 5*time.Second); err != nil {
		return before, after, err
	}
	if before, err = router.footprint(ctx); err != nil {
		return before, after, err
	}
	full, unfill := context.WithCancel(ctx)
	defer unfill()
	var worker sync.WaitGroup
	defer worker.Wait()
	worker.Go(func() {
		for next := time.Now(); waitUntil(full, next); next = next.Add(200 * time.Millisecond) {
			_ = h.bus.Beat(&schemas.Heartbeat{V: schemas.Version, Worker: "bench", Models: []schemas.ModelBeat{{Model: benchModel}}}) // a hint
		}
	})
	if !waitUntil(ctx, time.Now().Add(time.Second)) { // until the router knows that there is no room any more
		return before, after, ctx.Err()
	}
	if err := h.publish(ctx, n, queuedTenants); err != nil {
		return before, after, err
	}
	for queued.Load() < int64(n) {
		if !waitUntil(ctx, time.Now().Add(50*time.Millisecond)) {
			return before, after, fmt.Errorf("%d of %d requests wait in the router", queued.Load(), n)
		}
	}
	after, err = router.highest(ctx)
	unfill()
	return before, after, err
}

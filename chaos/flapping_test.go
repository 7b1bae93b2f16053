package main

import (
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/echo"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/schemas"
)

const (
	flapRounds  = 2
	flapTenants = 8
	flapFor     = 1500 * time.Millisecond // in each round
	flapPause   = 120                     // ms between two blows, at most
	settleFor   = time.Minute             // patience: a request that is lost never ends
)

// flapping is two routers that know nothing of each other, so that each takes every partition that it is given, over one
// server, with workers and tenants of few places.
type flapping struct {
	t       *testing.T
	ctx     context.Context
	bus     *bus.Bus
	proxies [2]*bustest.Proxy // of the routers

	mu        sync.Mutex
	sent      []schemas.Identity
	cancelled map[schemas.Identity]bool
	figures   []string // that the routers told last
}

func newFlapping(t *testing.T) *flapping {
	server := bustest.Server(t)
	f := &flapping{t: t, bus: bustest.Connect(t, server, bus.Config{Lease: time.Second}), cancelled: make(map[schemas.Identity]bool)}
	var connected [2]*bus.Bus
	for i := range f.proxies {
		f.proxies[i] = bustest.NewProxy(t, server.ClientURL())
		connected[i] = bustest.Connect(t, server, bus.Config{Lease: time.Second, URL: f.proxies[i].URL()})
	}
	if _, err := f.bus.OnRouterBeat(f.hear); err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	ctx, stop := context.WithCancel(t.Context())
	f.ctx = ctx
	t.Cleanup(func() { stop(); running.Wait() })
	for i, b := range connected {
		run := f.router(b, fmt.Sprint("router ", i))
		running.Go(func() { _ = run(ctx) })
	}
	for i := range 2 {
		run := f.worker(fmt.Sprint("w", i))
		running.Go(func() { _ = run(ctx) })
	}
	return f
}

func (f *flapping) log(name string) *slog.Logger {
	return slog.New(slog.NewTextHandler(f.t.Output(), nil)).With("at", name)
}

// router is one of two of the same name, which take the heartbeats of each other for their own.
func (f *flapping) router(b *bus.Bus, name string) func(context.Context) error {
	limits := &router.Limits{Limits: ledger.Limits{MaxInFlight: 2, RequestsPerMinute: 100_000}, MaxQueueWait: settleFor}
	r, err := router.New(router.Config{
		Bus: b, Name: "twin", Models: func() []string { return []string{"echo"} }, Logger: f.log(name),
		Limits: func(string) *router.Limits { return limits },
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return r.Run
}

func (f *flapping) worker(name string) func(context.Context) error {
	backend, err := echo.New(echo.Config{Name: "echo", Continue: inference.ContinueText})
	if err != nil {
		f.t.Fatal(err)
	}
	model := inference.Model{Backends: []inference.Slot{{Backend: backend, MaxInFlight: 6}}}
	w, err := inference.New(inference.Config{
		Bus: f.bus, Name: name, Models: map[string]inference.Model{"echo": model}, DrainTimeout: time.Second, Logger: f.log(name),
	})
	if err != nil {
		f.t.Fatal(err)
	}
	return w.Run
}

// hear keeps what the routers say that they hold.
func (f *flapping) hear(b *schemas.RouterBeat) {
	if b.Figures == nil {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.figures = append(f.figures[max(0, len(f.figures)-3):], string(b.Encode()))
}

// send sends requests of all tenants: some that can share a run, and some that cannot. It cancels one of each tenant.
func (f *flapping) send(round int, random *rand.Rand) {
	var sending sync.WaitGroup
	for tenant := range flapTenants {
		own := rand.New(rand.NewPCG(random.Uint64(), uint64(tenant)))
		sending.Go(func() {
			var ids []schemas.Identity
			for i := range 6 {
				id := schemas.Identity{Tenant: fmt.Sprint("t", tenant), Request: fmt.Sprintf("r%d-%d", round, i)}
				f.accept(id, 12+round, i%2 == 0)
				ids = append(ids, id)
				pause(f.ctx, time.Duration(own.IntN(flapPause))*time.Millisecond)
			}
			f.cancel(ids[own.IntN(len(ids))])
		})
	}
	sending.Wait()
}

func (f *flapping) accept(id schemas.Identity, tokens int, shared bool) {
	call := newCall(id.Request, "echo", shared, true, tokens, pieceInterval)
	request := &schemas.Request{Identity: id, ModelToken: "echo", Body: call.body}
	if shared {
		request.Header = schemas.Header{schemas.HeaderCache: {string(schemas.CacheOn)}}
	}
	if _, err := f.bus.Accept(f.ctx, request); err != nil {
		f.t.Errorf("accept %s: %v", id, err)
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sent = append(f.sent, id)
}

func (f *flapping) cancel(id schemas.Identity) {
	f.mu.Lock()
	f.cancelled[id] = true
	f.mu.Unlock()
	if err := f.bus.CancelRequest(f.ctx, id, schemas.Cancelled(schemas.CancelledByCaller)); err != nil {
		f.t.Errorf("cancel %s: %v", id, err)
	}
}

// flap does to the routers for a while what a cluster does that fails: it ends pins, delivers everything again, and holds up what
// a router hears or says.
func (f *flapping) flap(random *rand.Rand) {
	for end := time.Now().Add(flapFor); time.Now().Before(end); pause(f.ctx, time.Duration(random.IntN(flapPause))*time.Millisecond) {
		partition, proxy, direction := random.IntN(schemas.Partitions), f.proxies[random.IntN(2)], bustest.Direction(random.IntN(2))
		switch random.IntN(5) {
		case 0:
			proxy.Set(direction, bustest.Hold)
		case 1:
			f.heal()
		case 2:
			f.adopt(partition, 1<<30) // its router holds whatever was delivered
		default:
			f.adopt(partition, -1)
		}
	}
	f.heal()
}

func (f *flapping) heal() {
	for _, p := range f.proxies {
		p.Set(bustest.ToServer, bustest.Pass)
		p.Set(bustest.ToClient, bustest.Pass)
	}
}

// adopt takes a partition from the router that has it, and gives it to nobody.
func (f *flapping) adopt(partition, held int) {
	if _, err := f.bus.Adopt(f.ctx, partition, "", held); err != nil {
		f.t.Logf("adopt %d: %v", partition, err) // its pin may have ended meanwhile
	}
}

// wantWhole waits for the end of a request and for its result.
func (f *flapping) wantWhole(ctx context.Context, id schemas.Identity) {
	f.t.Helper()
	for {
		result, err := f.bus.Result(ctx, id)
		if err == nil {
			f.wantEnd(id, result)
			return
		}
		if ctx.Err() != nil {
			f.t.Fatalf("%s has no result: %v\nthe routers tell %q\n%s", id, err, f.figures, f.unfinished())
		}
		pause(ctx, 20*time.Millisecond)
	}
}

func (f *flapping) wantEnd(id schemas.Identity, result *schemas.Result) {
	f.t.Helper()
	chain, err := f.bus.Chain(f.ctx, id)
	if err == nil {
		err = checkChain(chain)
	}
	if err != nil || chain.Terminal() == nil {
		f.t.Errorf("%s: %v\n%s", id, err, describe(chain))
	} else if result.Status != schemas.StatusCompleted && !(f.cancelled[id] && result.Status == schemas.StatusCancelled) {
		f.t.Errorf("%s is %s: %s\n%s", id, result.Status, result.Error, describe(chain))
	}
}

// unfinished is the chains of the requests that have no result.
func (f *flapping) unfinished() (all string) {
	for _, id := range f.sent {
		if _, err := f.bus.Result(f.ctx, id); err == nil {
			continue
		}
		chain, err := f.bus.Chain(f.ctx, id)
		if err != nil {
			all += fmt.Sprintf("%s: %v\n", id, err)
			continue
		}
		all += fmt.Sprintf("%s\n%s", id, describe(chain))
	}
	return all
}

// TestFlappingPartitions has partitions change hands all the time while requests come, and wants each of them to end once.
func TestFlappingPartitions(t *testing.T) {
	t.Parallel()
	seed := rand.Uint64()
	t.Logf("the seed is %d", seed)
	random := rand.New(rand.NewPCG(seed, seed))
	f := newFlapping(t)
	for round := range flapRounds {
		var sending sync.WaitGroup
		requests, blows := rand.New(rand.NewPCG(random.Uint64(), 0)), rand.New(rand.NewPCG(random.Uint64(), 1))
		sending.Go(func() { f.send(round, requests) })
		f.flap(blows)
		sending.Wait()
		began := time.Now()
		ctx, stop := context.WithTimeout(f.ctx, settleFor)
		for _, id := range f.sent {
			f.wantWhole(ctx, id)
		}
		stop()
		t.Logf("round %d settled %s after its last blow", round, time.Since(began).Round(time.Millisecond))
	}
	last, err := f.bus.LastResult(f.ctx)
	if err != nil || last != uint64(len(f.sent)) {
		t.Errorf("%d results of %d requests: %v", last, len(f.sent), err)
	}
}

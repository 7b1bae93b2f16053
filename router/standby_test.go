package router_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/schemas"
)

// pair is a router behind a proxy, another that has its own way to the server, and a steady load of several tenants. The
// lease is too long to wait for.
type pair struct {
	*pipeline
	server *natsd.Server
	proxy  *bustest.Proxy

	stopLoad func() (sent int)
}

const nowhere = "nats://127.0.0.1:1"

func setupPair(t *testing.T, active int) *pair {
	t.Helper()
	t.Parallel()
	server := bustest.Server(t)
	p := &pair{pipeline: setupOn(t, server, bus.Config{Lease: time.Minute}), server: server, proxy: bustest.NewProxy(t, server.ClientURL())}
	far := bustest.Connect(t, server, bus.Config{Lease: time.Minute, URL: p.proxy.URL()})
	p.routeOn(router.Config{Bus: far, Name: "victim", Active: active})
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 4000})
	p.publish("m", body, withID("first"))
	p.work(1)
	p.routeOn(router.Config{Bus: p.bus, Name: "standby", Active: active})
	p.load()
	return p
}

// load sends 100 requests a second until it is stopped, which must be before there are as many as LLM_WORK takes.
func (p *pair) load() {
	stop := make(chan struct{})
	var sending sync.WaitGroup
	sent := 0
	sending.Go(func() {
		ticker := time.NewTicker(10 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-stop:
				return
			case <-ticker.C:
			}
			msg := &nats.Msg{Subject: fmt.Sprintf("llm.requests.t%d.m", sent%16), Data: []byte(body), Header: withID(fmt.Sprintf("req-%d", sent))}
			if _, err := p.js.PublishMsg(p.ctx, msg); err != nil {
				p.t.Errorf("publish: %v", err)
				return
			}
			sent++
		}
	})
	p.stopLoad = sync.OnceValue(func() int { close(stop); sending.Wait(); return sent })
	p.t.Cleanup(func() { p.stopLoad() })
}

// dispatched waits until at least n requests have been dispatched.
func (p *pair) dispatched(n uint64) {
	p.t.Helper()
	p.poll(fmt.Sprintf("%d work items", n), func() bool { return p.messages(schemas.StreamWork) >= n })
}

// wantEachOnce ends the load and checks that each of its requests became one work item, and returns the longest time
// without a dispatch.
func (p *pair) wantEachOnce() (gap time.Duration) {
	p.t.Helper()
	sent := p.stopLoad()
	p.dispatched(uint64(sent) + 1)
	p.wantAllSettled()
	if err := p.bus.EnsureWorkConsumer(p.ctx, "m"); err != nil {
		p.t.Fatal(err)
	}
	puller := p.bus.Work("m")
	defer puller.Close()
	seen, last := map[string]int{}, time.Time{}
	for len(seen) < sent+1 {
		batch, err := puller.Fetch(p.ctx, 500)
		if err != nil {
			p.t.Fatalf("%d of %d work items: %v", len(seen), sent+1, err)
		}
		for _, d := range batch {
			seen[d.Header[schemas.HeaderTenant][0]+"/"+d.Header[schemas.HeaderRequestID][0]]++
			if d.Delivered > 1 {
				continue
			}
			if !last.IsZero() {
				gap = max(gap, d.Time.Sub(last))
			}
			last = d.Time
		}
	}
	for id, n := range seen {
		if n != 1 {
			p.t.Errorf("%s was dispatched %d times", id, n)
		}
	}
	if n := p.messages(schemas.StreamWork); n != uint64(sent)+1 {
		p.t.Errorf("%d work items for %d requests", n, sent+1)
	}
	if n := p.messages(schemas.StreamResults); n != 0 {
		p.t.Errorf("%d requests were answered without a worker", n)
	}
	return gap
}

// gapWithin is how long nothing may be dispatched after a death: far less than the lease. The 2 s of the requirement are
// measured by chaos, on a machine that does nothing else.
const gapWithin = 20 * time.Second

// A router whose machine is cut off, as one that is killed, is followed by the standby.
func TestStandbyFollowsADeadRouter(t *testing.T) {
	p := setupPair(t, 1)
	p.dispatched(100)
	p.proxy.Lead(nowhere)
	p.proxy.Cut()
	at := p.messages(schemas.StreamWork)
	p.dispatched(at + 200)
	if gap := p.wantEachOnce(); gap > gapWithin {
		t.Errorf("nothing was dispatched for %v", gap)
	} else {
		t.Logf("nothing was dispatched for %v", gap)
	}
	p.proxy.Lead(p.server.ClientURL())
}

// A router that is stopped for a while, and wakes when another serves its partitions, does no harm.
func TestAPausedRouterWakesUp(t *testing.T) {
	p := setupPair(t, 1)
	p.dispatched(100)
	p.proxy.Set(bustest.ToServer, bustest.Hold)
	p.proxy.Set(bustest.ToClient, bustest.Hold)
	at := p.messages(schemas.StreamWork)
	p.dispatched(at + 200)
	p.proxy.Set(bustest.ToServer, bustest.Pass)
	p.proxy.Set(bustest.ToClient, bustest.Pass)
	at = p.messages(schemas.StreamWork)
	p.dispatched(at + 400)
	t.Logf("nothing was dispatched for %v", p.wantEachOnce())
}

// What waits in the queue of a router that dies is dispatched by the standby, long before a lease ends.
func TestAQueueSurvivesItsRouter(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	p := setupOn(t, server, bus.Config{Lease: time.Minute})
	proxy := bustest.NewProxy(t, server.ClientURL())
	far := bustest.Connect(t, server, bus.Config{Lease: time.Minute, URL: proxy.URL()})
	p.routeOn(router.Config{Bus: far, Name: "victim"})
	for n := range 50 {
		p.publish("m", body, withID(fmt.Sprint("order-", n)))
	}
	p.poll("all to be held", func() bool { return p.ackPending() == 50 })
	p.routeOn(router.Config{Bus: p.bus, Name: "standby"})
	proxy.Lead(nowhere)
	proxy.Cut()
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 100})
	p.poll("all to be dispatched", func() bool { return p.messages(schemas.StreamWork) == 50 })
	p.wantAllSettled()
	proxy.Lead(server.ClientURL())
}

// Routers that serve at once share the partitions; the death of one is taken over by the others.
func TestRoutersServeAtOnce(t *testing.T) {
	p := setupPair(t, 2)
	pins := func() map[string]bool {
		all := map[string]bool{}
		for partition := range schemas.Partitions {
			c, err := p.js.Consumer(p.ctx, schemas.StreamRequests, schemas.RouterConsumer(partition))
			if err != nil {
				t.Fatal(err)
			}
			for _, g := range c.CachedInfo().PriorityGroups {
				all[g.PinnedClientID] = g.PinnedClientID != ""
			}
		}
		return all
	}
	serves := map[string]int{}
	var mu sync.Mutex
	stop, err := p.bus.OnRouterBeat(func(b *schemas.RouterBeat) {
		mu.Lock()
		defer mu.Unlock()
		serves[b.Router] = len(b.Partitions)
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	serving := func(router string, partitions int) bool {
		mu.Lock()
		defer mu.Unlock()
		return serves[router] == partitions
	}
	halves := func() bool { return serving("victim", 2) && serving("standby", 2) }
	p.poll("each to serve half", halves)
	p.poll("every partition to be served", func() bool { return len(pins()) == schemas.Partitions && !pins()[""] })
	p.dispatched(200)
	p.proxy.Lead(nowhere)
	p.proxy.Cut()
	p.poll("the standby to serve all", func() bool { return serving("standby", 4) })
	at := p.messages(schemas.StreamWork)
	p.dispatched(at + 200)
	p.proxy.Lead(p.server.ClientURL()) // the dead comes back
	p.poll("each to serve half again", halves)
	at = p.messages(schemas.StreamWork)
	p.dispatched(at + 200)
	p.wantEachOnce()
}

// A router that is told to stop hands over at once.
func TestADrainedRouterHandsOver(t *testing.T) {
	t.Parallel()
	p := setupOn(t, bustest.Server(t), bus.Config{Lease: time.Minute})
	stop := p.routeOn(router.Config{Bus: p.bus, Name: "old"})
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 4000})
	p.publish("m", body, withID("first"))
	p.work(1)
	p.routeOn(router.Config{Bus: p.bus, Name: "new"})
	pair := &pair{pipeline: p}
	pair.load()
	pair.dispatched(100)
	stop()
	at := p.messages(schemas.StreamWork)
	pair.dispatched(at + 100)
	if gap := pair.wantEachOnce(); gap > gapWithin {
		t.Errorf("nothing was dispatched for %v", gap)
	} else {
		t.Logf("nothing was dispatched for %v", gap)
	}
}

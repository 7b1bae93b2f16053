package router_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/schemas"
)

// effective is within what time a purge has reached every router here. A second is promised, of a machine that does nothing
// else.
const effective = 5 * time.Second

// TestAPurgeReachesEveryRouterInUse has two tenants of each partition ask for the same all the time, which two routers answer from
// their memory, and purges one of each two. What is asked a while after the purge is answered anew; the others notice
// nothing, even where there is no second level that would make up for what their router had forgotten.
func TestAPurgeReachesEveryRouterInUse(t *testing.T) {
	for name, cfg := range map[string]router.CacheConfig{"both": {}, "memory": {NoStream: true}} {
		t.Run(name, func(t *testing.T) { purgeInUse(t, setupCached(t, cfg, cfg)) })
	}
}

func purgeInUse(t *testing.T, p *cachedPipeline) {
	purged, left := tenantsOfEachPartition()
	p.poll("both routers to have all entries in memory", func() bool { // as soon as they listen
		for _, tenant := range append(purged[:], left[:]...) {
			e := kept(keyOf(t, tenant, cacheable), "of "+tenant)
			e.Tenant, e.TTL = tenant, 600 // for longer than the test lasts
			p.keep(e)
		}
		const all = 2 * schemas.Partitions
		return p.metric(0, "weir_router_cache_entries", "") == all && p.metric(1, "weir_router_cache_entries", "") == all
	})
	var goers, stayers askers
	ctx, stop := context.WithCancel(p.ctx)
	var asking sync.WaitGroup
	defer asking.Wait()
	defer stop()
	for i := range schemas.Partitions {
		asking.Go(func() { goers.run(ctx, p, purged[i]) })
		asking.Go(func() { stayers.run(ctx, p, left[i]) })
	}
	begun := time.Now()
	p.poll("both routers to be in use", func() bool {
		return p.metric(0, "weir_router_cache_hits_total", "memory") > 10 && p.metric(1, "weir_router_cache_hits_total", "memory") > 10 &&
			goers.all(begun, true, purged) && stayers.all(begun, true, left)
	})

	for _, tenant := range purged {
		if removed, err := p.bus.PurgeCache(p.ctx, tenant, ""); err != nil || removed != 1 {
			t.Fatalf("a purge removed %d entries, %v", removed, err)
		}
	}
	since := time.Now().Add(effective)
	p.poll("requests of after the purge", func() bool { return goers.all(since, false, purged) && stayers.all(since, true, left) })
	stop()
	asking.Wait()
	if n := goers.count(since, true); n != 0 {
		t.Errorf("%d requests that came %s after a purge were answered with what was purged", n, effective)
	}
	if n := stayers.count(begun, false); n != 0 {
		t.Errorf("%d requests of tenants that were not purged found nothing", n)
	}
}

// tenantsOfEachPartition are two tenants of each partition.
func tenantsOfEachPartition() (first, second [schemas.Partitions]string) {
	for i, found := 0, 0; found < 2*schemas.Partitions; i++ {
		tenant := fmt.Sprint("tenant-", i)
		switch at := schemas.PartitionOf(tenant); {
		case first[at] == "":
			first[at] = tenant
			found++
		case second[at] == "":
			second[at] = tenant
			found++
		}
	}
	return first, second
}

// asked is a request and whether it was answered from the cache.
type asked struct {
	tenant string
	at     time.Time
	hit    bool
}

// askers remember what became of the requests of some tenants.
type askers struct {
	mu   sync.Mutex
	done []asked
}

// run asks for a tenant, one request after the other, until ctx ends. No request runs: without an entry it is answered so.
func (a *askers) run(ctx context.Context, p *cachedPipeline, tenant string) {
	for i := 0; ctx.Err() == nil; i++ {
		id := schemas.Identity{Tenant: tenant, Request: fmt.Sprint("order-", i)}
		one := asked{tenant: tenant, at: time.Now()}
		header := withID(id.Request)
		header[schemas.HeaderCache] = []string{"on, only-if-cached"}
		_, err := p.js.PublishMsg(ctx, &nats.Msg{Subject: "llm.requests." + tenant + ".m", Data: []byte(cacheable), Header: header})
		var result *schemas.Result
		if err == nil {
			result, err = awaitResult(ctx, p.bus, id)
		}
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			p.t.Errorf("%s: %v", id, err)
			return
		}
		one.hit = result.Cache == schemas.CacheHit
		a.mu.Lock()
		a.done = append(a.done, one)
		a.mu.Unlock()
	}
}

func awaitResult(ctx context.Context, b *bus.Bus, id schemas.Identity) (*schemas.Result, error) {
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for {
		if result, err := b.Result(ctx, id); err == nil {
			return result, nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil, context.Cause(ctx)
		}
	}
}

// all reports whether each tenant has had such an answer to three requests since a time.
func (a *askers) all(since time.Time, hit bool, tenants [schemas.Partitions]string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	of := make(map[string]int)
	for _, one := range a.done {
		if one.hit == hit && !one.at.Before(since) {
			of[one.tenant]++
		}
	}
	for _, tenant := range tenants {
		if of[tenant] < 3 {
			return false
		}
	}
	return true
}

// count is how many requests since a time had such an answer.
func (a *askers) count(since time.Time, hit bool) (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, one := range a.done {
		if one.hit == hit && !one.at.Before(since) {
			n++
		}
	}
	return n
}

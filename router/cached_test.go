package router_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/schemas"
)

const cacheable = `{"model":"m","temperature":0,"messages":[{"role":"user","content":"hi"}]}`

// cachedPipeline is one whose routers count what they do in registries of their own.
type cachedPipeline struct {
	*pipeline
	registries []*prometheus.Registry
}

func setupCached(t *testing.T, cfgs ...router.CacheConfig) *cachedPipeline {
	t.Helper()
	t.Parallel()
	server := bustest.Server(t)
	p := &cachedPipeline{pipeline: setupOn(t, server, bus.Config{})}
	for i, cfg := range cfgs {
		b := bustest.Connect(t, server, bus.Config{})
		registry := prometheus.NewRegistry()
		p.registries = append(p.registries, registry)
		p.routeOn(router.Config{Bus: b, Name: fmt.Sprint("r", i), Active: len(cfgs), Cache: cfg, Registerer: registry})
	}
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 400})
	return p
}

// keyOf is the key of a body of tenant acme.
func keyOf(t *testing.T, tenant, body string) string {
	t.Helper()
	parsed, err := openai.ParseRequest(schemas.OpChat, []byte(body), openai.Policy{})
	if err != nil {
		t.Fatal(err)
	}
	key, reason := cache.KeyOf(&cache.Request{Tenant: tenant, Op: schemas.OpChat, Parsed: parsed})
	if reason != "" {
		t.Fatal(reason)
	}
	return key.String()
}

func kept(key, text string) *schemas.CacheEntry {
	return &schemas.CacheEntry{
		V: schemas.Version, Tenant: "acme", Key: key, Op: schemas.OpChat, RequestID: "order-0", TTL: 60, FinishReasons: []string{"stop"},
		Usage:  &schemas.Usage{PromptTokens: 3, CompletionTokens: 2, TotalTokens: 5},
		Answer: json.RawMessage(fmt.Sprintf(`{"object":"chat.completion","model":"m","choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}]}`, text)),
	}
}

// keep writes an entry as a worker does.
func (p *cachedPipeline) keep(e *schemas.CacheEntry) {
	p.t.Helper()
	mark, err := p.bus.PurgeMark(p.ctx, e.Tenant)
	if err == nil {
		err = p.bus.KeepAnswer(p.ctx, e, mark)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// ask sends a request that wants the cache.
func (p *cachedPipeline) ask(id, body string, header ...string) {
	p.t.Helper()
	h := withID(id)
	h[schemas.HeaderCache], h[schemas.HeaderCoalesce] = []string{"on"}, []string{"off"}
	for i := 0; i+1 < len(header); i += 2 {
		h[header[i]] = []string{header[i+1]}
	}
	p.publish("m", body, h)
}

// wantHit waits for the answer to a request from the cache, and makes sure that it is all there is of it.
func (p *cachedPipeline) wantHit(id, text string) *schemas.Result {
	p.t.Helper()
	var result *schemas.Result
	p.poll("the result of "+id, func() (ok bool) {
		r, err := p.bus.Result(p.ctx, acme(id))
		result = r
		return err == nil
	})
	chain, err := p.bus.Chain(p.ctx, acme(id))
	if err != nil {
		p.t.Fatal(err)
	}
	end := chain.Terminal()
	if end == nil || end.Kind != schemas.KindEnd || end.Cache == nil || end.Cache.Status != schemas.CacheHit || !strings.Contains(string(end.Data), text) {
		p.t.Errorf("the end of %s: %+v", id, end)
	}
	if chain.Start() != nil || result.Cache != schemas.CacheHit || result.Status != schemas.StatusCompleted || result.Usage == nil || result.Usage.TotalTokens != 5 {
		p.t.Errorf("the result of %s: %+v", id, result)
	}
	p.wantAllSettled()
	return result
}

// wantWork waits for the work item of a request, the n-th there is, and for what it says of the cache.
func (p *cachedPipeline) wantWork(n uint64, status schemas.CacheStatus, reason string) *schemas.Work {
	p.t.Helper()
	w := p.work(n)
	if w.Cache == nil || w.Cache.Status != status || w.Cache.Reason != reason {
		p.t.Errorf("work item %d says %s of the cache, want %s %s", n, w.Cache, status, reason)
	}
	p.wantAllSettled()
	return w
}

// metric is the value of a router's metric, of any labels that contain with.
func (p *cachedPipeline) metric(router int, name, with string) float64 {
	p.t.Helper()
	families, err := p.registries[router].Gather()
	if err != nil {
		p.t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() != name {
			continue
		}
		for _, m := range family.GetMetric() {
			if labels := fmt.Sprint(m.GetLabel()); with == "" || strings.Contains(labels, with) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return 0
}

func TestAHitCostsNoWork(t *testing.T) {
	p := setupCached(t, router.CacheConfig{})
	p.keep(kept(keyOf(t, "acme", cacheable), "of the cache"))
	for i := range 20 {
		id := fmt.Sprint("order-", i)
		p.ask(id, cacheable)
		p.wantHit(id, "of the cache")
	}
	s, err := p.js.Stream(p.ctx, schemas.StreamWork)
	if err != nil {
		t.Fatal(err)
	}
	if last := s.CachedInfo().State.LastSeq; last != 0 {
		t.Errorf("hits left %d items in LLM_WORK", last)
	}
	if replies := p.messages(schemas.StreamReplies); replies != 20 {
		t.Errorf("20 hits wrote %d frames", replies)
	}
}

// TestLevels asks twice for each setting: the first answer comes from the stream where it is used, since the entry was there
// before the router.
func TestLevels(t *testing.T) {
	for name, c := range map[string]struct {
		cfg    router.CacheConfig
		levels []string // of the hits, "" for none
	}{
		"both":   {router.CacheConfig{}, []string{"stream", "memory"}},
		"memory": {router.CacheConfig{NoStream: true}, []string{"", ""}},
		"stream": {router.CacheConfig{NoMemory: true}, []string{"stream", "stream"}},
	} {
		t.Run(name, func(t *testing.T) {
			p := setupCached(t)
			p.keep(kept(keyOf(t, "acme", cacheable), "of the cache"))
			registry := prometheus.NewRegistry()
			p.registries = append(p.registries, registry)
			p.routeOn(router.Config{Bus: p.bus, Name: "r", Cache: c.cfg, Registerer: registry})
			for i, level := range c.levels {
				id := fmt.Sprint("order-", i)
				before := p.metric(0, "weir_router_cache_hits_total", level)
				p.ask(id, cacheable)
				if level == "" {
					p.wantWork(uint64(i+1), schemas.CacheMiss, "")
					continue
				}
				p.wantHit(id, "of the cache")
				p.poll("a hit in "+level, func() bool { return p.metric(0, "weir_router_cache_hits_total", level) > before })
			}
			if c.cfg.NoStream { // what it hears of it still has
				p.keep(kept(keyOf(t, "acme", cacheable), "heard"))
				p.poll("the entry in memory", func() bool { return p.metric(0, "weir_router_cache_entries", "") == 1 })
				p.ask("order-9", cacheable)
				p.wantHit("order-9", "heard")
			}
		})
	}
}

// TestAHitNeverEntersAClaimedChain has the entry and a worker that runs the request already.
func TestAHitNeverEntersAClaimedChain(t *testing.T) {
	p := setupCached(t, router.CacheConfig{})
	p.keep(kept(keyOf(t, "acme", cacheable), "of the cache"))
	if _, err := p.bus.Append(p.ctx, acme("order-1"), 0, &schemas.Frame{
		Kind: schemas.KindStart, Attempt: 1, Writer: "abc", Start: &schemas.Start{Mode: schemas.ModeFresh, Work: 1, Dispatch: 1, Worker: "w1"},
	}); err != nil {
		t.Fatal(err)
	}
	p.ask("order-1", cacheable)
	p.wantAllSettled()
	chain, err := p.bus.Chain(p.ctx, acme("order-1"))
	if err != nil || len(chain.Frames) != 1 {
		t.Errorf("the chain of the worker has %d frames, %v", len(chain.Frames), err)
	}
	if _, err := p.bus.Result(p.ctx, acme("order-1")); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("result: %v, want none", err)
	}
	if hits := p.metric(0, "weir_router_cache_hits_total", ""); hits != 0 {
		t.Errorf("%v hits were counted", hits)
	}
}

// TestAHitAfterWhatTheDoorSaid is that of a request in the background, whose chain begins with its acceptance, and of one whose
// body lies in the object store.
func TestAHitAfterWhatTheDoorSaid(t *testing.T) {
	p := setupCached(t, router.CacheConfig{})
	p.keep(kept(keyOf(t, "acme", cacheable), "of the cache"))
	if _, err := p.bus.Append(p.ctx, acme("order-1"), 0, &schemas.Frame{Kind: schemas.KindAccepted, Writer: "door", Op: schemas.OpChat}); err != nil {
		t.Fatal(err)
	}
	p.ask("order-1", cacheable)
	p.wantHit("order-1", "of the cache")

	large := strings.Replace(cacheable, "hi", strings.Repeat("long ", schemas.InlineBytes/4), 1) // more than a message takes
	p.keep(kept(keyOf(t, "acme", large), "of a large one"))
	r := &schemas.Request{Identity: acme("order-2"), ModelToken: "m", Op: schemas.OpChat, Body: []byte(large), Header: schemas.Header{schemas.HeaderCache: {"on"}}}
	if _, err := p.bus.Accept(p.ctx, r); err != nil {
		t.Fatal(err)
	}
	result := p.wantHit("order-2", "of a large one")
	if result.BodyHash != schemas.BodyHash([]byte(large)) {
		t.Errorf("the result is of another body: %+v", result)
	}
}

func TestDirectivesOfAHit(t *testing.T) {
	p := setupCached(t, router.CacheConfig{})
	key := keyOf(t, "acme", cacheable)
	p.keep(kept(key, "of the cache"))
	for i, directive := range []string{"on, max-age=60", "on, only-if-cached", "on, max-age=60, only-if-cached"} {
		id := fmt.Sprint("order-", i)
		p.ask(id, cacheable, schemas.HeaderCache, directive)
		p.wantHit(id, "of the cache")
	}
	p.ask("refresh", cacheable, schemas.HeaderCache, "refresh")
	p.wantWork(1, schemas.CacheRefresh, "")
	p.ask("new", cacheable, schemas.HeaderCache, "on, no-cache")
	p.wantWork(2, schemas.CacheRefresh, "")
	p.ask("ttl", strings.Replace(cacheable, "hi", "ho", 1), schemas.HeaderCacheTTL, "7")
	if w := p.wantWork(3, schemas.CacheMiss, ""); w.Cache.TTL != 7 {
		t.Errorf("the order is to keep the answer for %d s, want 7", w.Cache.TTL)
	}
	p.ask("sampled", body)
	p.wantWork(4, schemas.CacheBypass, "sampling")
	p.ask("never", strings.Replace(cacheable, "hi", "hm", 1), schemas.HeaderCache, "on, only-if-cached")
	p.wantAnswer("never", schemas.CodeNotCached, schemas.StatusRejected)

	p.ask("old", cacheable, schemas.HeaderCache, "on, max-age=0")
	p.wantWork(5, schemas.CacheMiss, "")
	p.ask("older", cacheable, schemas.HeaderCache, "on, max-age=0, only-if-cached")
	p.wantAnswer("older", schemas.CodeNotCached, schemas.StatusRejected)
}

// TestAnEntryThatCannotBeReadIsAMiss puts into the stream what no worker of this version writes.
func TestAnEntryThatCannotBeReadIsAMiss(t *testing.T) {
	p := setupCached(t, router.CacheConfig{})
	key := keyOf(t, "acme", cacheable)
	good := kept(key, "of the cache")
	older, other, foreign := *good, *good, *good
	older.V = schemas.Version + 1
	other.Key = "_." + strings.Repeat("0", 64)
	foreign.Tenant = "bcme"
	damaged := good.Encode()
	damaged[len(damaged)/2] ^= 1
	unfit := *good
	unfit.Answer = json.RawMessage(`{"choices":7}`)
	for i, data := range [][]byte{older.Encode(), other.Encode(), foreign.Encode(), damaged, []byte("garbage"), good.Encode()[:40]} {
		if _, err := p.js.PublishMsg(p.ctx, &nats.Msg{Subject: schemas.CacheSubject("acme", key), Data: data}); err != nil {
			t.Fatal(err)
		}
		p.ask(fmt.Sprint("order-", i), cacheable)
		p.wantWork(uint64(i+1), schemas.CacheMiss, "")
	}
	// One that is whole and says nothing that can be streamed: it is found, and the request runs all the same.
	p.keep(&unfit)
	p.ask("streamed", strings.Replace(cacheable, `"m",`, `"m","stream":true,`, 1))
	p.wantWork(7, schemas.CacheMiss, "")
}

// TestNobodyIsAnsweredWithTheEntryOfAnother asks for the same as two tenants and in two namespaces.
func TestNobodyIsAnsweredWithTheEntryOfAnother(t *testing.T) {
	p := setupCached(t, router.CacheConfig{Policy: func(tenant string) router.CachePolicy {
		return router.CachePolicy{On: true, TTL: map[string]time.Duration{"acme": time.Minute, "bcme": 2 * time.Minute}[tenant]}
	}})
	p.keep(kept(keyOf(t, "acme", cacheable), "of acme"))
	if _, err := p.js.PublishMsg(p.ctx, &nats.Msg{Subject: "llm.requests.bcme.m", Data: []byte(cacheable), Header: withID("order-1")}); err != nil {
		t.Fatal(err)
	}
	first := p.wantWork(1, schemas.CacheMiss, "")
	p.ask("order-2", cacheable, schemas.HeaderCacheNamespace, "u1")
	second := p.wantWork(2, schemas.CacheMiss, "")
	p.publish("m", cacheable, withID("order-3")) // by the policy alone
	p.wantHit("order-3", "of acme")
	got := []any{first.Tenant, first.Cache.TTL, second.Tenant, second.Cache.TTL, first.Cache.Key == second.Cache.Key}
	if diff := cmp.Diff([]any{"bcme", 120, "acme", 60, false}, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

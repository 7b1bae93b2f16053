package bus_test

import (
	"context"
	"encoding/json"
	"errors"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

// cacheBus is a bus with what two of its listeners hear of the cache.
type cacheBus struct {
	*bus.Bus
	t   *testing.T
	ctx context.Context

	mu    sync.Mutex
	heard [2][]bus.CacheNews
}

func setupCache(t *testing.T) *cacheBus {
	t.Helper()
	t.Parallel()
	server := bustest.Server(t)
	c := &cacheBus{t: t, Bus: bustest.Connect(t, server, bus.Config{})}
	var cancel context.CancelFunc
	c.ctx, cancel = context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	for i := range c.heard {
		stop, err := bustest.Connect(t, server, bus.Config{}).OnCache(func(n bus.CacheNews) {
			c.mu.Lock()
			defer c.mu.Unlock()
			c.heard[i] = append(c.heard[i], n)
		}, func() {})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(stop)
	}
	return c
}

func (c *cacheBus) last(i int) (n bus.CacheNews, count int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if count = len(c.heard[i]); count > 0 {
		n = c.heard[i][count-1]
	}
	return n, count
}

func (c *cacheBus) eventually(what string, done func() bool) {
	c.t.Helper()
	for !done() {
		select {
		case <-c.ctx.Done():
			c.t.Fatalf("timed out waiting for %s", what)
		case <-time.After(2 * time.Millisecond):
		}
	}
}

func (c *cacheBus) mark(tenant string) uint64 {
	c.t.Helper()
	mark, err := c.PurgeMark(c.ctx, tenant)
	if err != nil {
		c.t.Fatal(err)
	}
	return mark
}

func (c *cacheBus) keep(tenant, key string, mark uint64) error {
	return c.KeepAnswer(c.ctx, &schemas.CacheEntry{
		V: schemas.Version, Tenant: tenant, Key: key, Op: schemas.OpChat, RequestID: "r", TTL: 60, Answer: json.RawMessage(`{"a":1}`),
	}, mark)
}

func (c *cacheBus) has(tenant, key string) bool {
	c.t.Helper()
	_, _, err := c.CachedAnswer(c.ctx, tenant, key)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		c.t.Fatal(err)
	}
	return err == nil
}

// purge removes entries, of which there must be as many as wanted.
func (c *cacheBus) purge(tenant, namespaceToken string, want uint64) {
	c.t.Helper()
	removed, err := c.PurgeCache(c.ctx, tenant, namespaceToken)
	if err != nil || removed != want {
		c.t.Fatalf("a purge of %s %q removed %d, %v; want %d", tenant, namespaceToken, removed, err, want)
	}
}

// TestAPurgeFencesWhatIsUnderWay is the promise that what was asked before a purge does not come back after it, neither into the
// stream nor into the ears of routers.
func TestAPurgeFencesWhatIsUnderWay(t *testing.T) {
	c := setupCache(t)
	before, other := c.mark("acme"), c.mark("bcme")
	if err := c.keep("acme", "_.one", before); err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(c.keep("acme", "ns.two", before), c.keep("bcme", "_.one", other)); err != nil {
		t.Fatal(err)
	}
	c.purge("acme", "", 2)
	if c.has("acme", "_.one") || c.has("acme", "ns.two") || !c.has("bcme", "_.one") {
		t.Error("a purge removes all of its tenant, and nothing of another")
	}
	heardBefore := [2]int{}
	for i := range c.heard {
		c.eventually("word of the purge", func() bool { n, count := c.last(i); return n.Tenant == "acme" && n.Key == "" && count == 5 })
		_, heardBefore[i] = c.last(i)
	}

	if err := c.keep("acme", "_.one", before); !errors.Is(err, bus.ErrFenced) {
		t.Errorf("an answer from before the purge: %v, want ErrFenced", err)
	}
	if c.has("acme", "_.one") {
		t.Error("an answer from before the purge was stored")
	}
	if err := c.keep("bcme", "_.two", other); err != nil {
		t.Errorf("an answer of another tenant: %v", err)
	}
	after := c.mark("acme")
	if after <= before {
		t.Fatalf("the mark is %d after a purge, and was %d", after, before)
	}
	if err := c.keep("acme", "_.one", after); err != nil || !c.has("acme", "_.one") {
		t.Errorf("an answer from after the purge: %v", err)
	}
	for i := range c.heard {
		c.eventually("the entries of after", func() bool { _, count := c.last(i); return count == heardBefore[i]+2 })
		c.mu.Lock()
		if said := c.heard[i][heardBefore[i]:]; said[0].Tenant != "bcme" || said[1].Tenant != "acme" {
			t.Errorf("heard %+v, and not only what was stored", said)
		}
		c.mu.Unlock()
	}
}

func TestAPurgeOfANamespaceLeavesTheOthers(t *testing.T) {
	c := setupCache(t)
	if err := errors.Join(c.keep("acme", "_.one", 0), c.keep("acme", "ns.two", 0)); err != nil {
		t.Fatal(err)
	}
	c.purge("acme", "ns", 1)
	c.purge("acme", "ns", 0)
	if c.has("acme", "ns.two") || !c.has("acme", "_.one") {
		t.Error("a purge of a namespace removes all of it and nothing else")
	}
	if err := c.keep("acme", "ns.two", 0); !errors.Is(err, bus.ErrFenced) {
		t.Errorf("an answer from before the purge: %v, want ErrFenced", err)
	}
	c.purge("acme", "", 1) // must not take the mark with it, nor count it
	c.purge("nosuch", "", 0)
	if c.mark("acme") == 0 {
		t.Error("a purge of all removed its own mark")
	}
}

func TestADroppedAnswerIsGoneAtOnce(t *testing.T) {
	c := setupCache(t)
	if err := c.keep("acme", "_.one", 0); err != nil {
		t.Fatal(err)
	}
	if err := c.DropAnswer(c.ctx, "acme", "_.one"); err != nil {
		t.Fatal(err)
	}
	if c.has("acme", "_.one") {
		t.Error("a dropped answer is still there")
	}
	for i := range c.heard {
		c.eventually("word of it", func() bool {
			n, _ := c.last(i)
			return n.Tenant == "acme" && n.Key == "_.one" && len(n.Data) == 0
		})
	}
	if err := c.keep("acme", "_.one", 0); err != nil || !c.has("acme", "_.one") {
		t.Errorf("the same key again: %v", err)
	}
}

// TestTheServerForgetsOnTime asks for a second, which the server keeps to the tick of its clock.
func TestTheServerForgetsOnTime(t *testing.T) {
	c := setupCache(t)
	e := &schemas.CacheEntry{V: schemas.Version, Tenant: "acme", Key: "_.one", Op: schemas.OpChat, TTL: 1, Answer: json.RawMessage(`{}`)}
	if err := c.KeepAnswer(c.ctx, e, 0); err != nil {
		t.Fatal(err)
	}
	c.eventually("the end of an entry", func() bool { return !c.has("acme", "_.one") })
}

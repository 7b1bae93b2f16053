package router

import (
	"encoding/json"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// TestAHitInMemoryWaitsForNoLookUp has more requests look into the second level than may do so at once, while it does not answer.
func TestAHitInMemoryWaitsForNoLookUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		gate := make(chan struct{})
		b.bus.cachedGate = gate // before anything is asked
		e := &schemas.CacheEntry{
			V: schemas.Version, Tenant: "acme", Key: "_.known", Op: schemas.OpChat, RequestID: "r", TTL: 60, FinishReasons: []string{"stop"},
			Answer: json.RawMessage(`{"choices":[]}`),
		}
		memory := b.loop.caching.memory
		if !memory.Put(memory.Generation(), e.Tenant, e.Key, e.Encode(), 0, time.Minute) {
			t.Fatal("the entry was not kept")
		}
		asks := func(key string) func(*item) {
			return func(it *item) {
				it.cache = &lookup{note: schemas.CacheNote{Status: schemas.CacheMiss, Key: key}, seek: true, oldest: schemas.MaxCacheTTL * time.Second}
			}
		}
		var others []*fakeDelivery
		for range lookupWidth + 1 {
			others = append(others, b.arrive(asks("_.unknown")))
		}
		if hit := b.arrive(asks("_.known")); hit.settled() != "ack" {
			t.Errorf("the hit is %s while the second level does not answer", hit.settled())
		}
		b.keepBeating(&schemas.Heartbeat{V: schemas.Version, Worker: "w1", Models: []schemas.ModelBeat{{Model: "m", Slots: 2 * lookupWidth}}}, time.Second)
		close(gate)
		synctest.Wait()
		for i, other := range others {
			if other.settled() != "ack" {
				t.Errorf("request %d is %s after the second level had nothing", i, other.settled())
			}
		}
	})
}

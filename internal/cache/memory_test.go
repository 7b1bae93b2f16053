package cache_test

import (
	"encoding/json"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/schemas"
)

// clocked is a memory with a clock of the test.
type clocked struct {
	*cache.Memory
	t   testing.TB
	now atomic.Int64
}

func newClocked(t testing.TB, cfg cache.MemoryConfig) *clocked {
	t.Helper()
	c := &clocked{t: t}
	c.now.Store(int64(time.Hour))
	cfg.Now = func() time.Duration { return time.Duration(c.now.Load()) }
	var err error
	if c.Memory, err = cache.NewMemory(cfg); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *clocked) pass(d time.Duration) { c.now.Add(int64(d)) }

func entry(tenant, key string, answer string) *schemas.CacheEntry {
	return &schemas.CacheEntry{
		V: schemas.Version, Tenant: tenant, Key: key, Op: schemas.OpChat, RequestID: "r", TTL: 60, Answer: json.RawMessage(answer),
	}
}

// put keeps an entry whose answer is a text of so many bytes.
func (c *clocked) put(key string, size int, age, ttl time.Duration) bool {
	return c.Put(c.Generation(), "acme", key, entry("acme", key, `"`+strings.Repeat("x", size)+`"`).Encode(), age, ttl)
}

func (c *clocked) has(key string) bool {
	_, _, ok := c.Get("acme", key)
	return ok
}

func TestAnEntryEndsOnItsSecond(t *testing.T) {
	t.Parallel()
	c := newClocked(t, cache.MemoryConfig{})
	c.put("_.fresh", 10, 0, 60*time.Second)
	c.put("_.older", 10, 20*time.Second, 60*time.Second)
	if c.put("_.over", 10, 60*time.Second, 60*time.Second) || c.has("_.over") {
		t.Error("an entry whose time is over was kept")
	}
	for _, step := range []struct {
		to           time.Duration
		fresh, older bool
	}{
		{0, true, true}, {40*time.Second - 1, true, true}, {40 * time.Second, true, false}, {60*time.Second - 1, true, false}, {60 * time.Second, false, false},
		{25 * time.Hour, false, false},
	} {
		c.now.Store(int64(time.Hour + step.to))
		if c.has("_.fresh") != step.fresh || c.has("_.older") != step.older {
			t.Errorf("after %s: got %t and %t, want %t and %t", step.to, c.has("_.fresh"), c.has("_.older"), step.fresh, step.older)
		}
	}
}

func TestAgeIsCountedFromWhereItWasStored(t *testing.T) {
	t.Parallel()
	c := newClocked(t, cache.MemoryConfig{})
	c.put("_.k", 10, 20*time.Second, time.Minute)
	c.pass(5 * time.Second)
	if _, age, ok := c.Get("acme", "_.k"); !ok || age != 25*time.Second {
		t.Errorf("the age is %s, found: %t", age, ok)
	}
}

// TestTheClockOfTheMemoryIsMonotonic sets nothing, since nobody can set that clock: it makes sure that the default one has no
// wall clock in it, whose steps back would make entries last longer.
func TestTheClockOfTheMemoryIsMonotonic(t *testing.T) {
	t.Parallel()
	c := newClocked(t, cache.MemoryConfig{})
	c.put("_.k", 10, 0, time.Minute)
	c.pass(-10 * time.Minute) // what a clock that could be set might do
	if _, age, ok := c.Get("acme", "_.k"); !ok || age != 0 {
		t.Errorf("after a step back: found %t, of age %s, which must not be negative", ok, age)
	}
	c.pass(11 * time.Minute)
	if c.has("_.k") {
		t.Error("an entry outlived its time after a step back and forth")
	}
	real, err := cache.NewMemory(cache.MemoryConfig{})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	real.Put(real.Generation(), "acme", "_.k", entry("acme", "_.k", `"x"`).Encode(), 0, time.Second)
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for ; ; <-ticker.C {
		_, _, ok := real.Get("acme", "_.k")
		if passed := time.Since(began); !ok && passed < 900*time.Millisecond {
			t.Fatalf("an entry of a second ended after %s", passed)
		} else if !ok {
			break
		} else if passed > time.Minute {
			t.Fatal("an entry of a second does not end")
		}
	}
}

func TestWhatIsDamagedOrOfAnotherVersionIsNone(t *testing.T) {
	t.Parallel()
	c := newClocked(t, cache.MemoryConfig{})
	good := entry("acme", "_.k", `{"a":"b"}`)
	other := *good
	other.V = schemas.Version + 1
	flipped := good.Encode()
	flipped[len(flipped)/2] ^= 1
	short := good.Encode()
	for name, data := range map[string][]byte{
		"another version": other.Encode(), "a flipped bit": flipped, "cut short": short[:len(short)-1], "no entry": []byte("{}"),
		"nothing": nil, "another key": entry("acme", "_.other", `{}`).Encode(), "another tenant": entry("bcme", "_.k", `{}`).Encode(),
		"no answer": entry("acme", "_.k", ``).Encode(),
	} {
		if c.Put(c.Generation(), "acme", "_.k", data, 0, time.Minute) {
			t.Errorf("%s was kept", name)
		}
		if e, _, ok := c.Get("acme", "_.k"); ok {
			t.Errorf("%s: got %+v", name, e)
		}
	}
	c.Put(c.Generation(), "acme", "_.k", good.Encode(), 0, time.Minute)
	if !c.has("_.k") {
		t.Error("the good one is not found")
	}
}

// TestNoEntryEvictsAShard puts entries at and over the limit between small ones. What bigcache does by itself with one that is
// larger than a shard is to empty the shard.
func TestNoEntryEvictsAShard(t *testing.T) {
	t.Parallel()
	c := newClocked(t, cache.MemoryConfig{MB: cache.MinMemoryMB})
	const small = 1000
	for i := range small {
		c.put(fmt.Sprintf("_.%d", i), 100, 0, time.Hour)
	}
	for i := range 100 {
		if c.put(fmt.Sprintf("_.large%d", i), schemas.MaxCacheEntryBytes+1+i<<14, 0, time.Hour) {
			t.Fatalf("an entry over the limit was kept")
		}
	}
	for i := range small {
		if !c.has(fmt.Sprintf("_.%d", i)) {
			t.Fatalf("entry %d is gone", i)
		}
	}
	if whole := schemas.MaxCacheEntryBytes - len(entry("acme", "_.fits", `""`).Encode()); !c.put("_.fits", whole, 0, time.Hour) || !c.has("_.fits") {
		t.Error("an entry at the limit was not kept")
	}
	left := 0
	for i := range small {
		if c.has(fmt.Sprintf("_.%d", i)) {
			left++
		}
	}
	if left < small*9/10 {
		t.Errorf("one entry at the limit left %d of %d", left, small)
	}
}

// TestMemoryIsBounded writes eight times what fits and measures.
func TestMemoryIsBounded(t *testing.T) {
	before := heap()
	c := newClocked(t, cache.MemoryConfig{MB: cache.MinMemoryMB})
	if idle := heap() - before; idle > 1<<20 {
		t.Errorf("an empty memory takes %d KB", idle>>10)
	}
	for i := range 64 << 10 {
		c.put(fmt.Sprintf("_.%d", i), 700, 0, time.Hour)
	}
	entries, bytes := c.Size()
	if used := heap() - before; used > cache.MinMemoryMB<<20*5/4 || bytes > cache.MinMemoryMB<<20 {
		t.Errorf("%d entries take %d KB of heap, %d of them for the ring", entries, used>>10, bytes>>10)
	}
	if !c.has(fmt.Sprintf("_.%d", 64<<10-1)) || c.has("_.0") {
		t.Error("the newest stay and the oldest go")
	}
	if err := c.Reset(); err != nil {
		t.Fatal(err)
	}
	if left := heap() - before; left > 1<<20 {
		t.Errorf("after a reset %d KB are left", left>>10)
	}
	runtime.KeepAlive(c)
}

func heap() int64 {
	var m runtime.MemStats
	for range 2 {
		runtime.GC()
	}
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

func TestNothingComesBackAfterARemoval(t *testing.T) {
	t.Parallel()
	c := newClocked(t, cache.MemoryConfig{})
	for name, remove := range map[string]func() error{"reset": c.Reset, "purge": func() error { return c.Purge("acme") }, "drop": func() error { return c.Drop("acme", "_.k") }, "drop of none": func() error { return c.Drop("acme", "_.none") }} {
		c.put("_.k", 10, 0, time.Minute)
		read := c.Generation() // what was read from the stream before the removal is put in after it
		if err := remove(); err != nil {
			t.Fatal(err)
		}
		if name != "drop of none" && c.has("_.k") {
			t.Errorf("%s: it is still there", name)
		}
		if c.Put(read, "acme", "_.k2", entry("acme", "_.k2", `"x"`).Encode(), 0, time.Minute) || c.has("_.k2") {
			t.Errorf("%s: what was read before came back", name)
		}
	}
}

// An entry that was read from elsewhere does not take the place of one that was heard of meanwhile.
func TestTheLatestEntryStays(t *testing.T) {
	t.Parallel()
	c := newClocked(t, cache.MemoryConfig{})
	read := c.Generation()
	c.put("_.k", 10, 0, time.Minute)
	c.pass(time.Second)
	if c.Put(read, "acme", "_.k", entry("acme", "_.k", `"old"`).Encode(), 5*time.Second, time.Hour) {
		t.Error("an older entry was put in the place of a newer one")
	}
	if _, age, ok := c.Get("acme", "_.k"); !ok || age != time.Second {
		t.Errorf("the age is %s, found: %t; want the newer one", age, ok)
	}
	if !c.put("_.k", 10, 0, time.Minute) {
		t.Error("the newest entry was not put in")
	}
}

func TestAPurgeIsOfOneTenant(t *testing.T) {
	t.Parallel()
	c := newClocked(t, cache.MemoryConfig{})
	keep := func(tenant, answer string) {
		t.Helper()
		if !c.Put(c.Generation(), tenant, "_.k", entry(tenant, "_.k", answer).Encode(), 0, time.Minute) {
			t.Fatalf("the entry of %s was not kept", tenant)
		}
	}
	want := func(when, tenant, answer string) {
		t.Helper()
		e, _, ok := c.Get(tenant, "_.k")
		if ok != (answer != "") || ok && string(e.Answer) != answer {
			t.Errorf("%s: tenant %s has %+v, want %q", when, tenant, e, answer)
		}
	}
	keep("acme", `"old"`)
	keep("bcme", `"b"`)
	for i := range 3 {
		if err := c.Purge("acme"); err != nil {
			t.Fatal(err)
		}
		want("after a purge", "acme", "")
		want("after a purge", "bcme", `"b"`)
		keep("acme", fmt.Sprint(i))
		want("kept anew", "acme", fmt.Sprint(i))
	}
	if err := c.Drop("acme", "_.k"); err != nil {
		t.Fatal(err)
	}
	want("after a drop", "acme", "")
}

// TestPurgesAreBounded purges one tenant more than are remembered, which forgets everything rather than anything too little.
func TestPurgesAreBounded(t *testing.T) {
	t.Parallel()
	c := newClocked(t, cache.MemoryConfig{})
	c.put("_.k", 10, 0, time.Minute)
	purge := func(i int) {
		t.Helper()
		if err := c.Purge(fmt.Sprint("tenant-", i)); err != nil {
			t.Fatal(err)
		}
	}
	for i := range 4096 {
		purge(i)
	}
	purge(0) // one that is known takes no more room
	if !c.has("_.k") {
		t.Fatal("purges of others removed an entry")
	}
	c.Put(c.Generation(), "tenant-4096", "_.k", entry("tenant-4096", "_.k", `"x"`).Encode(), 0, time.Minute)
	purge(4096)
	if _, _, ok := c.Get("tenant-4096", "_.k"); ok {
		t.Error("the tenant that was one too many was not purged")
	}
	if entries, _ := c.Size(); entries != 0 {
		t.Errorf("%d entries are left", entries)
	}
}

func TestMemoryTakesEverybodyAtOnce(t *testing.T) {
	t.Parallel()
	c := newClocked(t, cache.MemoryConfig{MB: cache.MinMemoryMB})
	var all sync.WaitGroup
	for worker := range 8 {
		all.Go(func() {
			for i := range 500 {
				key := fmt.Sprintf("_.%d", i%50)
				switch {
				case worker == 0 && i%100 == 0:
					_ = c.Reset()
				case worker == 0 && i%50 == 0:
					_ = c.Purge("acme")
				case worker == 1 && i%10 == 0:
					_ = c.Drop("acme", key)
				case worker%2 == 0:
					c.put(key, i, 0, time.Minute)
				default:
					if e, _, ok := c.Get("acme", key); ok && (e.Key != key || e.Tenant != "acme") {
						t.Errorf("asked for %s, got %s", key, e.Key)
					}
				}
			}
		})
	}
	all.Wait()
}

func TestMemoryConfigIsChecked(t *testing.T) {
	t.Parallel()
	for _, cfg := range []cache.MemoryConfig{
		{MB: cache.MinMemoryMB - 1}, {MB: cache.MaxMemoryMB + 1}, {MB: -1}, {MaxEntry: -1}, {MaxEntry: schemas.MaxCacheEntryBytes + 1},
	} {
		if _, err := cache.NewMemory(cfg); err == nil {
			t.Errorf("%+v was accepted", cfg)
		}
	}
}

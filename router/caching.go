package router

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// DefaultCacheTTL is for how long an answer is kept when neither its request nor its tenant says.
const DefaultCacheTTL = time.Hour

// Levels of the cache.
const (
	levelMemory = "memory" // the first: of this process
	levelStream = "stream" // the second: LLM_CACHE, of all routers
)

// CacheConfig is how answers are kept and found.
type CacheConfig struct {
	MemoryMB int           // of the first level; default cache.DefaultMemoryMB
	MaxEntry int           // bytes of an entry in the first level; default schemas.MaxCacheEntryBytes
	TTL      time.Duration // default DefaultCacheTTL
	NoMemory bool          // without the first level
	NoStream bool          // without looking into the second level
	// Policy is what a tenant wants when a request does not say. It is asked for every request, by several goroutines at once.
	// Optional: without it nothing is kept unless a request asks.
	Policy func(tenant string) CachePolicy
	// Revision names the backends of a model: what was answered under another one is not found. Optional. As Policy.
	Revision func(model string) string
}

// CachePolicy is what a tenant wants of the cache. The zero value is: nothing, unless a request asks.
type CachePolicy struct {
	On        bool          // every request that may be answered from the cache is
	TTL       time.Duration // 0 = the router's
	Namespace string        // of requests that name none
	Sampled   bool          // answers may be kept, and shared, although another run would give another one
	Coalesce  CoalesceMode  // which of its requests share a run when they are equal
}

// caching decides what the cache has to do with a request. It is safe for concurrent use.
type caching struct {
	cfg    CacheConfig
	memory *cache.Memory // nil without the first level
	log    *slog.Logger
	meters *cacheMetrics
}

func newCaching(cfg CacheConfig, log *slog.Logger, registerer prometheus.Registerer) (*caching, error) {
	if cfg.TTL == 0 {
		cfg.TTL = DefaultCacheTTL
	}
	if cfg.TTL < time.Second || cfg.TTL > schemas.MaxCacheTTL*time.Second {
		return nil, fmt.Errorf("router: answers are kept for %s: use 1s to 24h", cfg.TTL)
	}
	if cfg.Policy == nil {
		cfg.Policy = func(string) CachePolicy { return CachePolicy{} }
	}
	if cfg.Revision == nil {
		cfg.Revision = func(string) string { return "" }
	}
	meters, err := newCacheMetrics(registerer)
	if err != nil {
		return nil, err
	}
	c := &caching{cfg: cfg, log: log, meters: meters}
	if cfg.NoMemory {
		return c, nil
	}
	c.memory, err = cache.NewMemory(cache.MemoryConfig{MB: cfg.MemoryMB, MaxEntry: cfg.MaxEntry})
	if err != nil {
		return nil, fmt.Errorf("router: %w", err)
	}
	return c, nil
}

// lookup is what the cache has to do with one request.
type lookup struct {
	note   schemas.CacheNote // what is known so far; on the work item, with the order to keep the answer
	seek   bool              // an entry is to be looked for
	only   bool              // nothing but an entry will do
	oldest time.Duration     // that it may be old
	replay cache.Replay      // how it would be said
	flight string            // the key of requests that can share its run
}

// reasonOff says that the caller or its tenant wants nothing of the cache.
const reasonOff = "off"

// plan says what the cache has to do with a request whose headers are valid; nil when nobody wants anything of it.
func (c *caching) plan(req *schemas.Request, parsed *openai.Request) *lookup {
	d, err := schemas.ParseCacheDirective(req.Header)
	if err != nil {
		return nil // it was refused before
	}
	policy := c.cfg.Policy(req.Tenant)
	switch on := d.Mode == schemas.CacheOn || d.Mode == schemas.CacheRenew || d.Mode == "" && policy.On; {
	case !on && !policy.On && !d.OnlyIfCached:
		return nil
	case !on:
		return &lookup{note: schemas.CacheNote{Status: schemas.CacheBypass, Reason: reasonOff}, only: d.OnlyIfCached}
	}
	if d.Namespace == "" {
		d.Namespace = policy.Namespace
	}
	key, reason := cache.KeyOf(&cache.Request{
		Tenant: req.Tenant, Namespace: d.Namespace, Op: req.Op, Revision: c.cfg.Revision(parsed.Model), Header: req.Header,
		Parsed: parsed, Sampled: policy.Sampled,
	})
	if reason != "" {
		return &lookup{note: schemas.CacheNote{Status: schemas.CacheBypass, Reason: string(reason)}, only: d.OnlyIfCached}
	}
	l := &lookup{
		note:   schemas.CacheNote{Status: schemas.CacheMiss, Key: key.String(), TTL: c.ttl(d, policy)},
		flight: key.Flight(), seek: true, only: d.OnlyIfCached, oldest: schemas.MaxCacheTTL * time.Second,
		replay: cache.Replay{Request: req.Request, Stream: parsed.Stream, IncludeUsage: parsed.IncludeUsage},
	}
	if d.HasMaxAge {
		l.oldest = time.Duration(d.MaxAge)*time.Second - 1 // none is new enough for 0
	}
	if d.NoCache || d.Mode == schemas.CacheRenew {
		l.note.Status, l.seek = schemas.CacheRefresh, false
	}
	return l
}

func (c *caching) ttl(d schemas.CacheDirective, policy CachePolicy) int {
	switch {
	case d.TTL > 0:
		return d.TTL
	case policy.TTL > 0:
		return int(policy.TTL / time.Second)
	}
	return int(c.cfg.TTL / time.Second)
}

// remembered is the entry of the first level that answers the request.
func (c *caching) remembered(tenant string, l *lookup) (*hit, bool) {
	if c.memory == nil {
		return nil, false
	}
	e, age, ok := c.memory.Get(tenant, l.note.Key)
	if !ok || age > l.oldest {
		return nil, false
	}
	return &hit{entry: e, age: age, level: levelMemory}, true
}

// hit is an entry that answers a request.
type hit struct {
	entry *schemas.CacheEntry
	age   time.Duration
	level string
}

// found takes what the second level has. An entry that is damaged or not of this version is none.
func (c *caching) found(tenant string, l *lookup, generation uint64, data []byte, age time.Duration) (*hit, bool) {
	e, err := schemas.DecodeCacheEntry(tenant, l.note.Key, data)
	if err != nil {
		c.log.Warn("an entry of the cache cannot be used", keyTenant, tenant, keyError, err)
		return nil, false
	}
	age, ttl := max(age, 0), time.Duration(e.TTL)*time.Second
	if age >= ttl {
		return nil, false // the server is about to remove it
	}
	if c.memory != nil {
		c.memory.Put(generation, tenant, l.note.Key, data, age, ttl)
	}
	return &hit{entry: e, age: age, level: levelStream}, age <= l.oldest
}

func (c *caching) generation() uint64 {
	if c.memory == nil {
		return 0
	}
	return c.memory.Generation()
}

// hear keeps the first level up with what is written to the second, and removed from it.
func (c *caching) hear(n bus.CacheNews) {
	var err error
	switch {
	case n.Key == "":
		err = c.memory.Purge(n.Tenant)
	case len(n.Data) == 0:
		err = c.memory.Drop(n.Tenant, n.Key)
	default:
		var e *schemas.CacheEntry
		if e, err = schemas.DecodeCacheEntry(n.Tenant, n.Key, n.Data); err == nil {
			c.memory.Put(c.memory.Generation(), n.Tenant, n.Key, n.Data, 0, time.Duration(e.TTL)*time.Second)
		}
	}
	if err != nil {
		c.log.Warn("the first level of the cache could not follow the second", keyTenant, n.Tenant, keyError, err)
	}
}

// forget empties the first level when something may have been missed, such as a purge.
func (c *caching) forget() {
	if err := c.memory.Reset(); err != nil {
		c.log.Error("the first level of the cache could not be emptied", keyError, err)
	}
}

// follow begins to hear of the second level.
func (c *caching) follow(b *bus.Bus) (stop func(), err error) {
	if c.memory == nil {
		return func() {}, nil
	}
	return b.OnCache(c.hear, c.forget)
}

func notCached() *schemas.Error {
	return schemas.Errorf(schemas.CodeNotCached, "there is no cached answer to this request, and only-if-cached asks for no other; leave it out to have the model asked")
}

// seeking reports whether an entry is still to be looked for.
func (it *item) seeking() bool { return it.cache != nil && it.cache.seek }

// barred reports whether only an entry would do, and there is none.
func (it *item) barred() bool { return it.cache != nil && it.cache.only && !it.cache.seek }

// order is what a work item says of the cache.
func (it *item) order() *schemas.CacheNote {
	if it.cache == nil {
		return nil
	}
	return &it.cache.note
}

// consult looks for an entry that answers the request, first here and then in the stream. A request without one comes back
// to route.
func (l *loop) consult(it *item) {
	if err := l.books.forbid(it); err != nil {
		l.answer(it, err)
		return
	}
	if h, ok := l.caching.remembered(it.req.Tenant, it.cache); ok {
		l.replay(it, h)
		return
	}
	if l.caching.cfg.NoStream {
		l.missed(it)
		return
	}
	l.lookups.submitFor(it.req.Tenant, func() func() {
		generation := l.caching.generation()
		data, stored, err := l.clerk.cached(it)
		return func() {
			it.delayed(err, l.log)
			if err == nil {
				if h, ok := l.caching.found(it.req.Tenant, it.cache, generation, data, l.clock.at(time.Now()).Sub(stored)); ok && !l.draining {
					l.replay(it, h)
					return
				}
			}
			l.missed(it)
		}
	})
}

// delayed logs that the second level could not be asked, which costs a run and no more.
func (it *item) delayed(err error, log *slog.Logger) {
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		log.Warn("the cache could not be asked; the request runs", keyRequest, it.req.Request, keyTenant, it.req.Tenant, keyError, err)
	}
}

func (l *loop) missed(it *item) {
	it.cache.seek = false
	l.resume(it, nil)
}

// replay answers a request with an entry.
func (l *loop) replay(it *item, h *hit) {
	if l.draining {
		return // another router has it next
	}
	if err := l.books.hit(it); err != nil {
		l.answer(it, err)
		return
	}
	if l.books != nil {
		l.books.tell(it)
	}
	l.hits.submitFor(it.req.Tenant, func() func() {
		e, err := it.replayed(h)
		if err != nil {
			return func() {
				l.log.Warn("an entry of the cache cannot be said again; the request runs", keyRequest, it.req.Request, keyTenant, it.req.Tenant, keyError, err)
				l.missed(it)
			}
		}
		outcome, written := l.clerk.replay(it, e)
		return func() {
			if written {
				l.caching.meters.hits.WithLabelValues(h.level).Inc()
			}
			l.settle(it, outcome)
		}
	})
}

package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/schemas"
)

// TenantCache is what a tenant wants of the cache.
type TenantCache struct {
	Mode      string   `yaml:"mode,omitempty" enum:"off,on" doc:"on: every request that may be answered from the cache is, unless it says Llm-Cache: off. off: only those that say Llm-Cache: on. Default off."`
	TTL       Duration `yaml:"ttl,omitempty" doc:"How long an answer is kept, 1s to 24h; default cache.ttl."`
	Namespace string   `yaml:"namespace,omitempty" doc:"Keeps the answers apart from those under another namespace; a request may name its own. Up to 128 printable characters."`
	Sampled   bool     `yaml:"sampled,omitempty" doc:"Keep answers to requests with a temperature too, although the model would answer otherwise another time."`
}

// Cache is how routers keep answers.
type Cache struct {
	Levels        string   `yaml:"levels,omitempty" enum:"both,memory,stream" doc:"Where routers look: both, only in their own memory, or only in the stream LLM_CACHE; default both."`
	MemoryMB      int      `yaml:"memory_mb,omitempty" doc:"Memory of each router for entries, in megabytes, 8 to 16384; default 64. The index takes up to a quarter more."`
	MaxEntryBytes int      `yaml:"max_entry_bytes,omitempty" doc:"Largest entry that is kept in memory; default and most 262144, beyond which no answer is kept at all."`
	TTL           Duration `yaml:"ttl,omitempty" doc:"How long an answer is kept when neither its request nor its tenant says, 1s to 24h; default 1h."`
}

// coalesceMode reads a value of coalesce.
func coalesceMode(name string) (mode router.CoalesceMode, known bool) {
	switch name {
	case "", "cached":
		return router.CoalesceCached, true
	case cacheOn:
		return router.CoalesceOn, true
	case off:
		return router.CoalesceOff, true
	}
	return "", false
}

// Values of mode and levels.
const (
	cacheOn      = "on"
	levelsBoth   = "both"
	levelsMemory = "memory"
	levelsStream = "stream"
)

func (c *Config) checkCache() *configError {
	switch k := &c.Cache; {
	case k.Levels != "" && k.Levels != levelsBoth && k.Levels != levelsMemory && k.Levels != levelsStream:
		return problem("cache.levels", "use both, memory or stream", "%q is not known", k.Levels)
	case k.MemoryMB != 0 && (k.MemoryMB < cache.MinMemoryMB || k.MemoryMB > cache.MaxMemoryMB):
		return problem("cache.memory_mb", fmt.Sprintf("use %d to %d", cache.MinMemoryMB, cache.MaxMemoryMB), "%d is out of range", k.MemoryMB)
	case k.MaxEntryBytes < 0 || k.MaxEntryBytes > schemas.MaxCacheEntryBytes:
		return problem("cache.max_entry_bytes", fmt.Sprintf("use 1 to %d", schemas.MaxCacheEntryBytes), "%d is out of range", k.MaxEntryBytes)
	}
	if err := checkCacheTTL("cache.ttl", c.Cache.TTL); err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(c.Tenants)) {
		key, t := join(join("tenants", name), "cache"), c.Tenants[name].Cache
		if t.Mode != "" && t.Mode != off && t.Mode != cacheOn {
			return problem(join(key, "mode"), "use on or off", "%q is not known", t.Mode)
		}
		if _, known := coalesceMode(c.Tenants[name].Coalesce); !known {
			return problem(join(join("tenants", name), "coalesce"), "use cached, on or off", "%q is not known", c.Tenants[name].Coalesce)
		}
		if err := checkCacheTTL(join(key, "ttl"), t.TTL); err != nil {
			return err
		}
		if schemas.ValidateCacheNamespace(t.Namespace) != nil {
			return problem(join(key, "namespace"), "use up to 128 printable characters of ASCII", "%q cannot be one", t.Namespace)
		}
	}
	return nil
}

func checkCacheTTL(key string, ttl Duration) *configError {
	if d := time.Duration(ttl); d != 0 && (d < time.Second || d > schemas.MaxCacheTTL*time.Second || d%time.Second != 0) {
		return problem(key, "use whole seconds from 1s to 24h", "%s cannot be kept to", ttl)
	}
	return nil
}

// caching is what a router is told of the cache.
func (c *Config) caching(policy func(tenant string) router.CachePolicy) router.CacheConfig {
	revisions := make(map[string]string, len(c.Models))
	for name, m := range c.Models {
		revisions[name] = m.revision()
	}
	return router.CacheConfig{
		MemoryMB: c.Cache.MemoryMB, MaxEntry: c.Cache.MaxEntryBytes, TTL: time.Duration(c.Cache.TTL),
		NoMemory: c.Cache.Levels == levelsStream, NoStream: c.Cache.Levels == levelsMemory,
		Policy:   policy,
		Revision: func(model string) string { return revisions[model] },
	}
}

// cachePolicy is what a tenant wants of the cache.
func (c *Config) cachePolicy(tenant string) router.CachePolicy {
	t := c.Tenants[tenant].Cache
	mode, _ := coalesceMode(c.Tenants[tenant].Coalesce)
	return router.CachePolicy{
		On: t.Mode == cacheOn, TTL: time.Duration(t.TTL), Namespace: t.Namespace, Sampled: t.Sampled,
		Coalesce: mode,
	}
}

// revision names what answers for a model: where it is called, how, and as what. What only says how often or how long does
// not change an answer.
func (m Model) revision() string {
	h := sha256.New()
	for _, b := range m.Backends {
		fmt.Fprintf(h, "%q %q %q %v %d %q %+v\n", b.Protocol, b.URL, b.Model, b.MaxCompletionTokens, b.MaxTokens, b.AnthropicVersion, b.Echo)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

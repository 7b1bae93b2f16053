package main

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/schemas"
)

// TenantCache is what a tenant wants of the cache.
type TenantCache struct {
	Mode      string   `yaml:"mode,omitempty" enum:"off,on" doc:"on: every request that may be answered from the cache is, unless it says Llm-Cache: off. off: only those that say Llm-Cache: on. Default off."`
	TTL       Duration `yaml:"ttl,omitempty" min:"1s" max:"24h" doc:"How long an answer is kept, 1s to 24h; default cache.ttl."`
	Namespace string   `yaml:"namespace,omitempty" doc:"Keeps the answers apart from those under another namespace; a request may name its own. Up to 128 printable characters."`
	Sampled   bool     `yaml:"sampled,omitempty" doc:"Keep answers to requests with a temperature too, although the model would answer otherwise another time."`
}

// Cache is how routers keep answers.
type Cache struct {
	Levels        string   `yaml:"levels,omitempty" enum:"both,memory,stream" doc:"Where routers look: both, only in their own memory, or only in the stream LLM_CACHE; default both."`
	MemoryMB      int      `yaml:"memory_mb,omitempty" min:"8" max:"16384" doc:"Memory of each router for entries, in megabytes, 8 to 16384; default 64. The index takes up to a quarter more."`
	MaxEntryBytes int      `yaml:"max_entry_bytes,omitempty" min:"1" max:"262144" doc:"Largest entry that is kept in memory; default and most 262144, beyond which no answer is kept at all."`
	TTL           Duration `yaml:"ttl,omitempty" min:"1s" max:"24h" doc:"How long an answer is kept when neither its request nor its tenant says, 1s to 24h; default 1h."`
}

// coalesceMode reads a value of coalesce.
func coalesceMode(name string) router.CoalesceMode {
	switch name {
	case cacheOn:
		return router.CoalesceOn
	case off:
		return router.CoalesceOff
	}
	return router.CoalesceCached
}

// Values of mode and levels.
const (
	cacheOn      = "on"
	levelsBoth   = "both"
	levelsMemory = "memory"
	levelsStream = "stream"
)

func (c *Config) checkCache(f *findings) {
	checkCacheTTL(f, "cache.ttl", c.Cache.TTL)
	for _, name := range slices.Sorted(maps.Keys(c.Tenants)) {
		key, t := join(join("tenants", name), "cache"), c.Tenants[name].Cache
		checkCacheTTL(f, join(key, "ttl"), t.TTL)
		f.when(schemas.ValidateCacheNamespace(t.Namespace) != nil, join(key, "namespace"), "use up to 128 printable characters of ASCII", "%q cannot be one", t.Namespace)
	}
}

func checkCacheTTL(f *findings, key string, ttl Duration) {
	f.when(time.Duration(ttl)%time.Second != 0, key, "use whole seconds", "%s cannot be kept to", ttl)
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
	t := c.tenant(tenant)
	return router.CachePolicy{
		On: t.Cache.Mode == cacheOn, TTL: time.Duration(t.Cache.TTL), Namespace: t.Cache.Namespace, Sampled: t.Cache.Sampled,
		Coalesce: coalesceMode(t.Coalesce),
	}
}

// revision names what answers for a model: where it is called, how, and as what. What only says how often or how long does
// not change an answer.
func (m Model) revision() string {
	h := sha256.New()
	for _, b := range m.Backends {
		fmt.Fprintf(h, "%q %q %q %v %d %q %q %+v\n", b.Protocol, b.URL, b.Model, b.MaxCompletionTokens, b.MaxTokens, b.AnthropicVersion, b.Template, b.Echo)
	}
	return hex.EncodeToString(h.Sum(nil)[:8])
}

package main

import (
	"maps"
	"reflect"
	"slices"
	"sync/atomic"

	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/schemas"
)

// live is what a running process asks of the configuration while the file may change. What it was started with stays in
// effect for all that cannot change under way: of a new file it takes the tenants, the prices, and, in a process that
// calls no backends itself, which models there are. It is safe for concurrent use and never waits.
type live struct {
	start  *Config
	serves bool // the process calls the backends, so that its models are those that it was started with
	now    atomic.Pointer[state]
}

// state is one configuration, with what is derived from it.
type state struct {
	cfg    *Config
	limits map[string]*router.Limits
}

func newLive(cfg *Config, serves bool) *live {
	l := &live{start: cfg, serves: serves}
	l.set(cfg)
	return l
}

func (l *live) set(cfg *Config) {
	l.now.Store(&state{cfg: cfg, limits: cfg.allLimits()})
}

// swap puts a valid configuration into effect as far as it can, and names the keys that have to wait for the next start.
func (l *live) swap(next *Config) (waiting []string) {
	merged := *l.start
	merged.Tenants, merged.Models = next.Tenants, make(map[string]Model, len(next.Models))
	if l.serves {
		maps.Copy(merged.Models, l.start.Models)
	}
	for name, m := range next.Models {
		was, known := l.start.Models[name]
		switch {
		case known:
			was.Price = m.Price
			merged.Models[name] = was
		case !l.serves:
			merged.Models[name] = m
		}
	}
	l.set(&merged)
	return differing(&merged, next)
}

// differing are the keys in which two configurations are not the same.
func differing(a, b *Config) (keys []string) {
	for _, name := range slices.Sorted(maps.Keys(joined(a.Models, b.Models))) {
		if !reflect.DeepEqual(a.Models[name], b.Models[name]) {
			keys = append(keys, join("models", name))
		}
	}
	old, new := reflect.ValueOf(a).Elem(), reflect.ValueOf(b).Elem()
	for field, value := range old.Fields() {
		if key := keyName(field); key != "models" && !reflect.DeepEqual(value.Interface(), new.FieldByIndex(field.Index).Interface()) {
			keys = append(keys, key)
		}
	}
	return keys
}

func joined[V any](a, b map[string]V) map[string]V {
	all := maps.Clone(a)
	maps.Copy(all, b)
	return all
}

func (l *live) config() *Config { return l.now.Load().cfg }

func (l *live) modelNames() []string { return l.config().modelNames() }

func (l *live) weight(tenant string) int { return l.config().weight(tenant) }

func (l *live) mayUse(tenant, model string) bool { return l.config().mayUse(tenant, model) }

func (l *live) price(model string) *schemas.Price { return l.config().price(model) }

func (l *live) cachePolicy(tenant string) router.CachePolicy { return l.config().cachePolicy(tenant) }

// limits are those of a tenant, or nil. A tenant's are the same until the file changes, and others afterwards.
func (l *live) limits(tenant string) *router.Limits {
	all := l.now.Load().limits
	if own, named := all[tenant]; named {
		return own
	}
	return all[tenantDefault]
}

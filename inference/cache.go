package inference

import (
	"context"
	"errors"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/schemas"
)

// purgeMark is how often a tenant's entries had been purged when a run began, as far as it is known.
type purgeMark struct {
	sequence uint64
	known    bool
}

// purgeMarkWait is how long that may take before the answer is given and not kept.
const purgeMarkWait = 250 * time.Millisecond

// ordered reports whether the router wants the answer kept.
func (r *run) ordered() bool {
	order := r.work.Cache
	return order != nil && order.TTL > 0 && order.Key != ""
}

// markPurges notes the last purge before a model is asked, if the answer may be kept: what was asked before a purge must not
// come back after it.
func (r *run) markPurges(ctx context.Context) {
	if !r.ordered() {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, purgeMarkWait)
	defer cancel()
	sequence, err := r.w.bus.PurgeMark(ctx, r.work.Tenant)
	r.purged = purgeMark{sequence, err == nil}
	if err != nil {
		r.log().Warn("the answer will not be kept in the cache: its purges cannot be read", "error", err)
	}
}

// keepAnswer writes a whole answer to the cache, if the router ordered it and the answer is fit. It comes after the commit of
// the end and before the result: who erases a request finds its result, and so everything that was kept of it. Nobody makes
// up for a write that is lost.
func (r *run) keepAnswer(ctx context.Context, said *answer) {
	if !r.ordered() {
		return
	}
	outcome := r.cacheAnswer(ctx, r.work.Cache, said)
	r.w.meters.cached.WithLabelValues(string(outcome)).Inc()
}

// Outcomes that are none of an answer's.
const (
	cacheKept     cache.Reason = "kept"
	cacheFailed   cache.Reason = "failed"   // the bus did not take it
	cacheAttempts cache.Reason = "attempts" // it was put together from several runs
	cacheFallback cache.Reason = "fallback" // another model gave it
	cacheLeftOut  cache.Reason = "left_out" // events of it could not be read
	cachePurged   cache.Reason = "purged"   // the tenant's entries were purged while it was given
)

func (r *run) cacheAnswer(ctx context.Context, order *schemas.CacheNote, said *answer) cache.Reason {
	switch {
	case !r.single():
		return cacheAttempts
	case r.by != r.m:
		return cacheFallback
	case said.leftOut > 0:
		return cacheLeftOut
	case !r.purged.known:
		return cacheFailed
	}
	whole := &cache.Said{Op: r.work.Op, Response: said.response, Events: r.chain.whole().Events(), Finishes: said.finishes, Usage: said.usage}
	kept, reason := cache.Keep(whole)
	if reason != "" {
		return reason
	}
	err := r.w.bus.KeepAnswer(context.WithoutCancel(ctx), &schemas.CacheEntry{
		V: schemas.Version, Tenant: r.work.Tenant, Key: order.Key, Op: r.work.Op, RequestID: r.work.Request.Request, TTL: order.TTL,
		FinishReasons: said.finishes, Usage: said.usage, Answer: kept,
	}, r.purged.sequence)
	if errors.Is(err, bus.ErrFenced) {
		return cachePurged
	}
	if err != nil {
		r.log().Warn("an answer was not kept in the cache", "error", err)
		return cacheFailed
	}
	return cacheKept
}

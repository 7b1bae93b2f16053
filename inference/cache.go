package inference

import (
	"context"

	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/schemas"
)

// keepAnswer writes a whole answer to the cache, if the router ordered it and the answer is fit. It comes after the commit of
// the end and before the result: who erases a request finds its result, and so everything that was kept of it. Nobody makes
// up for a write that is lost.
func (r *run) keepAnswer(ctx context.Context, said *answer) {
	order := r.work.Cache
	if order == nil || order.TTL == 0 || order.Key == "" {
		return
	}
	outcome := r.cacheAnswer(ctx, order, said)
	r.w.meters.cached.WithLabelValues(string(outcome)).Inc()
}

// Outcomes that are none of an answer's.
const (
	cacheKept     cache.Reason = "kept"
	cacheFailed   cache.Reason = "failed"   // the bus did not take it
	cacheAttempts cache.Reason = "attempts" // it was put together from several runs
	cacheFallback cache.Reason = "fallback" // another model gave it
)

func (r *run) cacheAnswer(ctx context.Context, order *schemas.CacheNote, said *answer) cache.Reason {
	switch {
	case r.attempt != 1 || r.chain.Attempts() != 1:
		return cacheAttempts
	case r.by != r.m:
		return cacheFallback
	}
	whole := &cache.Said{Op: r.work.Op, Response: said.response, Events: r.chain.Events(), Finishes: said.finishes, Usage: said.usage}
	kept, reason := cache.Keep(whole)
	if reason != "" {
		return reason
	}
	err := r.w.bus.KeepAnswer(context.WithoutCancel(ctx), &schemas.CacheEntry{
		V: schemas.Version, Tenant: r.work.Tenant, Key: order.Key, Op: r.work.Op, RequestID: r.work.Request.Request, TTL: order.TTL,
		FinishReasons: said.finishes, Usage: said.usage, Answer: kept,
	})
	if err != nil {
		r.log().Warn("an answer was not kept in the cache", "error", err)
		return cacheFailed
	}
	return cacheKept
}

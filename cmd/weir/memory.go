package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"sync"
	"time"
)

const (
	// garbageBytes is how much the heap may grow between two collections, or by as much as is live, whichever is more. Little
	// is live, since requests pass through, so that the default of Go would collect a dozen times a second under load.
	garbageBytes = 192 << 20
	// mostGrowth bounds it for a small heap, in percent of what is live.
	mostGrowth = 400

	// liveMetric is what the last collection found live.
	liveMetric = "/gc/heap/live:bytes"
	tuneEvery  = time.Second
)

// tuneMemory says when the garbage collector runs until ctx ends or stop is called, unless the operator does with GOGC or
// GOMEMLIMIT.
func tuneMemory(ctx context.Context, env map[string]string) (stop func()) {
	if env["GOGC"] != "" || env["GOMEMLIMIT"] != "" {
		return func() {}
	}
	ctx, cancel := context.WithCancel(ctx)
	var tuning sync.WaitGroup
	tuning.Go(func() { followHeap(ctx) })
	return func() { cancel(); tuning.Wait() }
}

func followHeap(ctx context.Context) {
	percent := mostGrowth
	debug.SetGCPercent(percent)
	ticker := time.NewTicker(tuneEvery)
	defer ticker.Stop()
	sample := []metrics.Sample{{Name: liveMetric}}
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		metrics.Read(sample)
		if sample[0].Value.Kind() != metrics.KindUint64 {
			return // a Go that does not know the metric
		}
		if want := heapGrowth(sample[0].Value.Uint64()); want != percent {
			percent = want
			debug.SetGCPercent(percent)
		}
	}
}

// heapGrowth is how far a heap of which so much is live may grow, in percent, in steps of 50.
func heapGrowth(live uint64) int {
	percent := int(min(garbageBytes*100/max(live, 1), mostGrowth))
	return max(percent/50*50, 100)
}

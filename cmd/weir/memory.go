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
	// leastGarbage is how much it may grow in a process that has little to do; between the two, as much as it takes to collect
	// every collectEvery. So what streams slowly keeps its memory, and what is busy its processor.
	leastGarbage = 8 << 20
	collectEvery = 2 * time.Second
	// Bounds of the growth, in percent of what is live, and its steps.
	mostGrowth, leastGrowth, growthStep = 400, 10, 5

	tuneEvery = time.Second
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
	sample := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},                                  // what was ever allocated
		{Name: "/gc/heap/live:bytes"},                                    // what the last collection found live
		{Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}, // where it looked, of which Go lets the heap grow by as much
	}
	for allocated := uint64(0); ; {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		metrics.Read(sample)
		var live uint64
		for _, s := range sample {
			if s.Value.Kind() != metrics.KindUint64 {
				return // a Go that does not know the metrics
			}
			live += s.Value.Uint64()
		}
		now := sample[0].Value.Uint64()
		live -= now
		if want := heapGrowth(live, now-allocated); want != percent {
			percent = want
			debug.SetGCPercent(percent)
		}
		allocated = now
	}
}

// heapGrowth is how far a heap of which so much is live, with stacks and globals, may grow, in percent, while so much is
// allocated every tuneEvery.
func heapGrowth(live, allocated uint64) int {
	wanted := max(allocated*uint64(collectEvery/tuneEvery), leastGarbage)
	most := max(garbageBytes, live)
	percent := int(min(min(wanted, most)*100/max(live, 1), mostGrowth))
	return max(percent/growthStep*growthStep, leastGrowth)
}

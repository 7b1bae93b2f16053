package main

import (
	"context"
	"os"
	"path/filepath"
	"runtime/debug"
	"runtime/metrics"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

const (
	// A heap may grow between two collections by garbageShare of the memory there is, within these bounds, or by as much as is
	// live, whichever is more. Little is live, since requests pass through, so that the default of Go would collect a dozen
	// times a second under load, for an eighth of the processor.
	garbageShare                        = 16
	leastGarbageBytes, mostGarbageBytes = 64 << 20, 512 << 20
	unknownGarbageBytes                 = 192 << 20
	// idleGarbage is how much it may grow in a process that has little to do; between the two, as much as it takes to collect
	// every collectEvery. So what streams slowly keeps its memory, and what is busy its processor.
	idleGarbage  = 8 << 20
	collectEvery = 1500 * time.Millisecond
	// Bounds of the growth, in percent of what is live, and its steps, below and from 100: each change stops the world.
	mostGrowth, leastGrowth     = 1600, 10
	growthStep, largeGrowthStep = 5, 50
	// firstGrowth holds until the first collection, and leastLive is what Go takes a heap to have at least.
	firstGrowth, leastLive = 400, 4 << 20

	// tuneEvery is short, so that a burst is not collected every few milliseconds before it is noticed. What is allocated in one
	// counts on for a while, by less and less. busyPace or more counts whole for busyFor: between two bursts the memory that the
	// next one needs is not given back, to be asked for again by the page.
	tuneEvery   = 200 * time.Millisecond
	forgetShare = 8
	busyPace    = 16 << 20
	busyFor     = 4 * time.Second
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
	percent, most := firstGrowth, mostGarbage(memoryHere("/"))
	debug.SetGCPercent(percent)
	ticker := time.NewTicker(tuneEvery)
	defer ticker.Stop()
	sample := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},                                  // what was ever allocated
		{Name: "/gc/heap/live:bytes"},                                    // what the last collection found live
		{Name: "/gc/scan/stack:bytes"}, {Name: "/gc/scan/globals:bytes"}, // where it looked, of which Go lets the heap grow by as much
	}
	recent := &pace{}
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
		if want := heapGrowth(live, recent.note(now-allocated), most); want != percent {
			percent = want
			debug.SetGCPercent(percent)
		}
		allocated = now
	}
}

// pace is how much is allocated in a tuneEvery, with what counts on of those before.
type pace struct {
	fading uint64
	busy   [busyFor / tuneEvery]uint64
	next   int
}

// note adds what was allocated in a tuneEvery and returns the pace.
func (p *pace) note(allocated uint64) uint64 {
	p.fading = max(allocated, p.fading-p.fading/forgetShare)
	p.busy[p.next] = 0
	if allocated >= busyPace {
		p.busy[p.next] = allocated
	}
	p.next = (p.next + 1) % len(p.busy)
	return max(p.fading, slices.Max(p.busy[:]))
}

// heapGrowth is how far a heap of which so much is live, with stacks and globals, may grow, in percent, while so much is
// allocated every tuneEvery and garbage may be most, or as much as is live.
func heapGrowth(live, allocated, most uint64) int {
	if live == 0 {
		return firstGrowth
	}
	wanted := max(allocated*uint64(collectEvery/tuneEvery), idleGarbage)
	percent := int(min(min(wanted, max(most, live))*100/max(live, leastLive), mostGrowth))
	step := growthStep
	if percent >= 100 {
		step = largeGrowthStep
	}
	return max(percent/step*step, leastGrowth)
}

// mostGarbage is how much garbage may wait in a busy process with so much memory, which is 0 when it is not known.
func mostGarbage(memory uint64) uint64 {
	if memory == 0 {
		return unknownGarbageBytes
	}
	return min(max(memory/garbageShare, leastGarbageBytes), mostGarbageBytes)
}

// memoryHere is the memory of the machine, or of the container if that is less, read from the files below root; 0 when
// there are none.
func memoryHere(root string) uint64 {
	least := uint64(0)
	for _, file := range []string{"proc/meminfo", "sys/fs/cgroup/memory.max", "sys/fs/cgroup/memory/memory.limit_in_bytes"} {
		text, err := os.ReadFile(filepath.Join(root, file))
		if err != nil {
			continue // it is that of another system, or of another version of cgroups
		}
		if bytes, ok := parseMemory(string(text)); ok && (least == 0 || bytes < least) {
			least = bytes
		}
	}
	return least
}

// parseMemory reads /proc/meminfo, or the limit of a cgroup, which is a number of bytes, or max.
func parseMemory(text string) (bytes uint64, ok bool) {
	number, unit := text, uint64(1)
	if _, rest, found := strings.Cut(text, "MemTotal:"); found {
		number, _, _ = strings.Cut(rest, "kB")
		unit = 1 << 10
	}
	bytes, err := strconv.ParseUint(strings.TrimSpace(number), 10, 64)
	return bytes * unit, err == nil && bytes > 0
}

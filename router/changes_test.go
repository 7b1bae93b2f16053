package router

import (
	"slices"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/schemas"
)

// changingBench is a bench whose tenant acme has the limits that were last stored.
func changingBench(t *testing.T, limits *Limits) (*bench, *atomic.Pointer[Limits]) {
	t.Helper()
	var now atomic.Pointer[Limits]
	now.Store(limits)
	b := newBench(t, func(c *Config) {
		c.Limits = func(tenant string) *Limits {
			if tenant == "acme" {
				return now.Load()
			}
			return nil
		}
	})
	b.beat(slots(100))
	return b, &now
}

// TestLimitsChangeForWhoWaits raises, lowers and removes the limits of a tenant that waits for them.
func TestLimitsChangeForWhoWaits(t *testing.T) {
	for name, test := range map[string]struct {
		next *Limits
		want []string // that have left a moment later
	}{
		"raised":             {&Limits{Limits: ledger.Limits{RequestsPerMinute: 600}, MaxQueueWait: time.Hour}, ids(1, 4)},
		"lowered":            {&Limits{Limits: ledger.Limits{RequestsPerMinute: 1}, MaxQueueWait: time.Hour}, ids(1, 2)},
		"of another kind":    {&Limits{Limits: ledger.Limits{MaxInFlight: 3}, MaxQueueWait: time.Hour}, ids(1, 3)},
		"the tenant is gone": {nil, ids(1, 4)},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, limits := changingBench(t, &Limits{Limits: ledger.Limits{RequestsPerMinute: 2}, MaxQueueWait: time.Hour})
				for range 4 {
					b.from("acme", 10)
				}
				b.wantDispatched(ids(1, 2)...)
				limits.Store(test.next)
				b.after(500 * time.Millisecond)
				b.wantLeft(test.want...)
			})
		})
	}
}

// TestTheWaitAtALimitChanges: who waits when the policy becomes to reject is refused.
func TestTheWaitAtALimitChanges(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, limits := changingBench(t, &Limits{Limits: ledger.Limits{RequestsPerMinute: 1}, MaxQueueWait: time.Hour})
		b.from("acme", 10)
		b.from("acme", 10)
		b.after(time.Second)
		b.wantAnswer("idk_2", "")
		limits.Store(&Limits{Limits: ledger.Limits{RequestsPerMinute: 1}, Reject: true})
		b.after(500 * time.Millisecond)
		b.wantAnswer("idk_2", schemas.CodeRateLimit)
		b.wantDispatched("idk_1")
	})
}

// TestLimitsComeForWhoWaits gives limits to a tenant that has never had any and waits for room: what came before goes
// without them, and what comes is held to them, although the tenant has not stopped waiting.
func TestLimitsComeForWhoWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, limits := changingBench(t, nil)
		b.beat(slots(0))
		b.from("acme", 10)
		b.from("acme", 10)
		limits.Store(&Limits{Limits: ledger.Limits{RequestsPerMinute: 1}, MaxQueueWait: time.Hour})
		b.from("acme", 10)
		b.from("acme", 10)
		b.wantDispatched()
		b.after(time.Second) // they leave in the same moment, in any order
		b.wantLeft(ids(1, 3)...)
		b.after(61 * time.Second)
		b.wantLeft(ids(1, 4)...)
	})
}

// wantLeft is wantDispatched in any order.
func (b *bench) wantLeft(ids ...string) {
	b.t.Helper()
	synctest.Wait()
	b.bus.mu.Lock()
	defer b.bus.mu.Unlock()
	if got := slices.Sorted(slices.Values(b.bus.dispatched)); !slices.Equal(got, ids) {
		b.t.Errorf("dispatched %q, want %q", got, ids)
	}
}

// TestWeightsChangeForWhoWaits: a tenant that never stops waiting has the share that its weight says now.
func TestWeightsChangeForWhoWaits(t *testing.T) {
	weights := map[string]int{"a": 1, "b": 1}
	f := newFair(func(tenant string) int { return weights[tenant] })
	for range 2 {
		f.push(costing("a", "", 500))
		f.push(costing("b", "", 500))
	}
	serve := func() map[string]int {
		got := map[string]int{}
		for range 400 {
			it := f.pop(false)
			got[it.req.Tenant]++
			f.push(costing(it.req.Tenant, "", 500))
		}
		return got
	}
	serve()
	weights["b"] = 3
	if got := serve(); got["b"] < 297 || got["b"] > 303 {
		t.Errorf("of 400 turns the tenant of weight 3 had %d", got["b"])
	}
	if f.weights != 4 {
		t.Errorf("weights of %d wait", f.weights)
	}
	weights["b"] = -7
	if got := serve(); got["b"] < 197 || got["b"] > 203 {
		t.Errorf("a weight below 1 counts as 1: %d of 400 turns", got["b"])
	}
	weights["b"] = 1 << 40
	if serve(); f.weights != 1+MaxWeight {
		t.Errorf("weights of %d wait, although %d is the most of one", f.weights, MaxWeight)
	}
}

// TestStreamClockStepsUnderLimits sets the clock of the machine back and forth, by what the stream says, while a tenant waits:
// it waits as long as the monotonic clock says.
func TestStreamClockStepsUnderLimits(t *testing.T) {
	for name, step := range map[string]time.Duration{"forward": 5 * time.Minute, "back": -5 * time.Minute} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b, _ := changingBench(t, &Limits{Limits: ledger.Limits{RequestsPerMinute: 2}, MaxQueueWait: time.Hour})
				for range 3 {
					b.from("acme", 10)
				}
				b.wantDispatched(ids(1, 2)...)
				b.arrive(func(it *item) { // of another tenant, as the server's clock stamps it now
					it.req.Tenant, it.estimate, it.partition = "other", 10, schemas.PartitionOf("other")
					it.accepted, it.deadline = it.accepted.Add(step), it.deadline.Add(step)
				})
				b.after(29 * time.Second)
				b.wantDispatched("idk_1", "idk_2", "idk_4")
				b.after(2 * time.Second)
				b.wantDispatched("idk_1", "idk_2", "idk_4", "idk_3")
			})
		})
	}
}

// TestTheHeartbeatTellsOfLimits says at which limit a tenant waits and for how long, which weir top shows.
func TestTheHeartbeatTellsOfLimits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b, _ := changingBench(t, &Limits{Limits: ledger.Limits{RequestsPerMinute: 2}, MaxQueueWait: time.Hour})
		for range 3 {
			b.from("acme", 10)
		}
		b.after(2 * time.Second)
		beats := b.bus.told().beats
		for _, beat := range slices.Backward(beats) {
			if beat.Figures == nil {
				continue
			}
			if len(beat.Figures.Tenants) != 1 {
				t.Fatalf("%+v", beat.Figures)
			}
			got := beat.Figures.Tenants[0]
			if got.Tenant != "acme" || got.Queued != 1 || got.Limit != "requests_per_minute" || got.PredictMS < 27_000 || got.PredictMS > 30_000 {
				t.Errorf("%+v", got)
			}
			return
		}
		t.Error("no heartbeat with figures")
	})
}

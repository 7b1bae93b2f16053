package router

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/schemas"
)

// end lets a request have used so many tokens.
func (b *bench) end(tenant, id string, tokens int64) {
	b.t.Helper()
	b.vault.next++
	b.vault.results <- bus.Charged{
		Identity: schemas.Identity{Tenant: tenant, Request: id}, Sequence: b.vault.next, Time: time.Now(),
		Charge: &schemas.Charge{Requests: 1, Tokens: tokens},
	}
	synctest.Wait()
}

// limited is a loop over fakes in which acme has limits and nobody else, with room for many requests.
func limitedBench(t *testing.T, limits Limits) *bench {
	t.Helper()
	b := newBench(t, func(c *Config) {
		c.Limits = func(tenant string) *Limits {
			if tenant == "acme" {
				return &limits
			}
			return nil
		}
	})
	b.beat(slots(100))
	return b
}

// from delivers a request of a tenant that counts for so many tokens.
func (b *bench) from(tenant string, tokens int64) *fakeDelivery {
	return b.arrive(func(it *item) {
		it.req.Tenant, it.estimate, it.input, it.partition = tenant, tokens, tokens, schemas.PartitionOf(tenant)
	})
}

// after lets time pass, with workers that live.
func (b *bench) after(d time.Duration) {
	for ; d > 0; d -= schemas.HeartbeatInterval {
		time.Sleep(min(d, schemas.HeartbeatInterval))
		b.beat(slots(100))
	}
}

func ids(from, to int) (all []string) {
	for n := from; n <= to; n++ {
		all = append(all, fmt.Sprintf("idk_%d", n))
	}
	return all
}

func TestTheBucketWakesATenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{RequestsPerMinute: 2}, MaxQueueWait: time.Hour})
		for range 4 {
			b.from("acme", 10)
		}
		b.wantDispatched(ids(1, 2)...)
		time.Sleep(30*time.Second - 20*time.Millisecond)
		b.wantDispatched(ids(1, 2)...)
		b.beat(slots(100))
		time.Sleep(25 * time.Millisecond) // not a tick, which would be up to 100 ms late
		b.wantDispatched(ids(1, 3)...)
		b.after(30 * time.Second)
		b.wantDispatched(ids(1, 4)...)
	})
}

// TestOthersHaveTheTurns lets a tenant at its limit wait in front of others, for the same model and in a more urgent class.
func TestOthersHaveTheTurns(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{TokensPerMinute: 100}, MaxQueueWait: time.Hour})
		b.from("acme", 100)
		for range 3 {
			b.arrive(func(it *item) {
				it.estimate, it.input, it.partition, it.req.Priority = 50, 50, schemas.PartitionOf("acme"), schemas.PriorityInteractive
			})
		}
		b.from("other", 1_000_000)
		b.from("another", 10)
		b.wantDispatched("idk_1", "idk_5", "idk_6")
		b.after(31 * time.Second)
		b.wantDispatched("idk_1", "idk_5", "idk_6", "idk_2")
	})
}

// TestNoneOvertakes has a large request wait for a full bucket, while small ones that are as urgent come all the time, for
// another model too.
func TestNoneOvertakes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{TokensPerMinute: 100}, MaxQueueWait: time.Hour})
		b.from("acme", 40)
		b.from("acme", 100) // in 24 s
		for range 10 {
			b.arrive(func(it *item) {
				it.estimate, it.input, it.partition = 1, 1, schemas.PartitionOf("acme")
			})
			b.after(2 * time.Second)
		}
		b.after(3900 * time.Millisecond)
		b.wantDispatched("idk_1")
		b.after(200 * time.Millisecond)
		b.wantDispatched("idk_1", "idk_2")
		b.after(10 * time.Second)
		b.wantDispatched(ids(1, 12)...)
	})
}

// urgent delivers a request of acme with a priority.
func (b *bench) urgent(priority schemas.Priority, tokens int64) {
	b.arrive(func(it *item) {
		it.estimate, it.input, it.partition, it.req.Priority = tokens, tokens, schemas.PartitionOf("acme"), priority
	})
}

// TestUrgencyCountsAtALimit has a backlog of a tenant wait for a place in flight, and lets what is more urgent have the next.
func TestUrgencyCountsAtALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{MaxInFlight: 1}, MaxQueueWait: time.Hour})
		for range 3 {
			b.urgent(schemas.PriorityBatch, 1)
		}
		for range 2 {
			b.urgent(schemas.PriorityNormal, 1)
		}
		b.urgent(schemas.PriorityInteractive, 1)
		for _, id := range []string{"idk_1", "idk_6", "idk_4", "idk_5", "idk_2"} {
			b.end("acme", id, 1)
		}
		b.wantDispatched("idk_1", "idk_6", "idk_4", "idk_5", "idk_2", "idk_3")
	})
}

// TestUrgentIsNotHeldUpByWhatNeedsMore lets an urgent request go as soon as there is enough for it, although one that is
// less urgent waits for more.
func TestUrgentIsNotHeldUpByWhatNeedsMore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{TokensPerMinute: 600}, MaxQueueWait: time.Hour})
		b.urgent(schemas.PriorityNormal, 590)
		b.urgent(schemas.PriorityBatch, 600) // in 59 s
		b.urgent(schemas.PriorityInteractive, 5)
		b.wantDispatched("idk_1", "idk_3")
		b.urgent(schemas.PriorityInteractive, 25) // in 2 s
		b.wantDispatched("idk_1", "idk_3")
		b.after(2100 * time.Millisecond)
		b.wantDispatched("idk_1", "idk_3", "idk_4")
		b.after(61 * time.Second)
		b.wantDispatched("idk_1", "idk_3", "idk_4", "idk_2")
	})
}

// TestTheFloorOfAClassHoldsAtALimit has a tenant keep itself at its limit with urgent requests, twice as many as it may have.
func TestTheFloorOfAClassHoldsAtALimit(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{TokensPerMinute: 6000}, MaxQueueWait: ageAfter - time.Second})
		normal := map[string]bool{}
		for n := range 600 {
			if n%40 == 0 {
				normal[fmt.Sprintf("idk_%d", b.next)] = true
				b.urgent(schemas.PriorityNormal, 300)
			}
			b.urgent(schemas.PriorityInteractive, 100)
			time.Sleep(500 * time.Millisecond)
			b.beat(slots(1000))
		}
		b.bus.mu.Lock()
		defer b.bus.mu.Unlock()
		went := 0
		for _, id := range b.bus.dispatched {
			if normal[id] {
				went++
			}
		}
		if went < len(normal)*9/10 {
			t.Errorf("of %d normal requests %d went beside %d urgent ones", len(normal), went, len(b.bus.dispatched)-went)
		}
	})
}

func TestRejectAnswersAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{RequestsPerMinute: 2}, Reject: true})
		for range 3 {
			b.from("acme", 10)
		}
		b.wantDispatched(ids(1, 2)...)
		b.wantAnswer("idk_3", schemas.CodeRateLimit)
		b.after(30 * time.Second)
		b.from("acme", 10)
		b.wantDispatched("idk_1", "idk_2", "idk_4")
	})
}

// TestRejectWaitsForWhatEnds lets a caller that sends one request after the other have each, although the end of the last is
// counted a moment after it is told.
func TestRejectWaitsForWhatEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{MaxInFlight: 1}, Reject: true})
		b.from("acme", 10)
		b.from("acme", 10)
		time.Sleep(100 * time.Millisecond)
		b.end("acme", "idk_1", 10)
		b.wantDispatched("idk_1", "idk_2")
		b.from("acme", 10)
		b.after(400 * time.Millisecond)
		b.wantAnswer("idk_3", schemas.CodeRateLimit)
	})
}

// TestRejectReservesWhileItWaitsForRoom does not let more pass than the limit because there is no room yet, and gives
// back what a cancelled request has reserved.
func TestRejectReservesWhileItWaitsForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{RequestsPerMinute: 2}, Reject: true})
		b.beat(slots(0))
		for range 3 {
			b.from("acme", 10)
		}
		b.wantAnswer("idk_3", schemas.CodeRateLimit)
		b.loop.cancels <- hint{id: schemas.Identity{Tenant: "acme", Request: "idk_1"}, by: schemas.CancelledByCaller}
		b.wantAnswer("idk_1", schemas.CodeCancelled)
		b.from("acme", 10)
		b.wantAnswer("idk_4", "")
		b.beat(slots(1))
		b.wantDispatched("idk_2")
		b.beat(slots(100))
		b.wantDispatched("idk_2", "idk_4")
	})
}

func TestWaitingEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{RequestsPerMinute: 1}, MaxQueueWait: 5 * time.Second})
		b.from("acme", 10)
		b.from("acme", 10)
		b.after(4 * time.Second)
		b.from("acme", 10)
		b.wantAnswer("idk_2", "")
		b.after(1100 * time.Millisecond)
		b.wantAnswer("idk_2", schemas.CodeRateLimit)
		b.wantAnswer("idk_3", "")
		b.after(5 * time.Second)
		b.wantAnswer("idk_3", schemas.CodeRateLimit)
		b.wantDispatched("idk_1")
	})
}

// TestTheHeadIsCancelled lets the next one go that the bucket has enough for.
func TestTheHeadIsCancelled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{TokensPerMinute: 100}, MaxQueueWait: time.Hour})
		b.from("acme", 50)
		b.from("acme", 100)
		b.from("acme", 50)
		b.wantDispatched("idk_1")
		b.loop.cancels <- hint{id: schemas.Identity{Tenant: "acme", Request: "idk_2"}, by: schemas.CancelledByCaller}
		b.after(200 * time.Millisecond)
		b.wantDispatched("idk_1", "idk_3")
	})
}

// TestAResultWakesATenant gives a place in flight, and what was reserved too much, to who waits.
func TestAResultWakesATenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{MaxInFlight: 1, TokensPerMinute: 100}, MaxQueueWait: time.Hour})
		b.from("acme", 90)
		b.from("acme", 60)
		b.wantDispatched("idk_1")
		b.end("acme", "idk_1", 10)
		b.wantDispatched("idk_1", "idk_2")
		b.vault.mu.Lock()
		defer b.vault.mu.Unlock()
		if len(b.vault.events) != 1 || !strings.Contains(b.vault.events[0], `"state":"reached"`) {
			t.Errorf("events %q", b.vault.events)
		}
	})
}

// A request that is put off gives back what it has reserved until it is dispatched again.
func TestAHeldRequestReservesNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{MaxInFlight: 1}, MaxQueueWait: time.Hour})
		b.from("acme", 90)
		b.from("acme", 60)
		b.wantDispatched("idk_1")
		b.loop.retries <- &schemas.RetryEvent{V: 1, Tenant: "acme", Request: "idk_1"}
		b.wantDispatched("idk_1", "idk_2")
		b.end("acme", "idk_2", 10)
		b.arrive(func(it *item) {
			it.req.Request, it.retried, it.partition = "idk_1", 2, schemas.PartitionOf("acme")
		})
		b.wantDispatched("idk_1", "idk_2", "idk_1")
		b.arrive(func(it *item) { // put off again, and the event of it was lost
			it.req.Request, it.retried, it.partition, it.sequence = "idk_1", 3, schemas.PartitionOf("acme"), 7
		})
		b.wantDispatched("idk_1", "idk_2", "idk_1", "idk_1")
		b.from("acme", 60) // it is one too many
		b.wantDispatched("idk_1", "idk_2", "idk_1", "idk_1")
	})
}

// TestEventsAreFew tells of a limit once, however many requests meet it, and when the tenant has been within it for a while.
func TestEventsAreFew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{RequestsPerMinute: 1}, Reject: true})
		for range 50 {
			b.from("acme", 1)
		}
		b.after(limitQuiet + 2*time.Second)
		b.vault.mu.Lock()
		defer b.vault.mu.Unlock()
		want := []string{`limit {"tenant":"acme","state":"reached"}`, `limit {"tenant":"acme","state":"left","requests":49,"seconds":10}`}
		if !slices.Equal(b.vault.events, want) {
			t.Errorf("events %q", b.vault.events)
		}
	})
}

func TestABudgetThatIsSpentIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{Budget: ledger.Budget{Tokens: 100, Window: ledger.Window{Length: 24 * time.Hour}}}})
		b.from("acme", 10)
		b.end("acme", "idk_1", 100)
		b.from("acme", 10)
		b.wantAnswer("idk_2", schemas.CodeQuota)
	})
}

// TestWhatWouldWaitInVainDoesNotWait refuses at once what could only go after its time, unless something that runs may give
// back enough.
func TestWhatWouldWaitInVainDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{TokensPerMinute: 60}, MaxQueueWait: 30 * time.Second})
		within := func(deadline time.Duration, tokens int64) {
			b.arrive(func(it *item) {
				it.estimate, it.input, it.partition, it.deadline = tokens, tokens, schemas.PartitionOf("acme"), time.Now().Add(deadline)
			})
		}
		within(time.Hour, 60)
		within(time.Hour, 40)
		b.wantAnswer("idk_2", "") // the first may use less
		b.end("acme", "idk_1", 60)
		time.Sleep(2 * tick)
		b.wantAnswer("idk_2", schemas.CodeRateLimit)
		within(time.Hour, 40)
		b.wantAnswer("idk_3", schemas.CodeRateLimit)
		within(5*time.Second, 10)
		b.wantAnswer("idk_4", schemas.CodeRateLimit)
		within(15*time.Second, 10)
		b.after(11 * time.Second)
		b.wantDispatched("idk_1", "idk_5")
	})
}

func TestModelsOfATenant(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Models: []string{"other"}})
		b.from("acme", 10)
		b.wantAnswer("idk_1", schemas.CodeModelNotAllowed)
	})
}

// TestALostWriteStopsTheRouter gives back what waits when another router has the record, and takes the partition again only
// when the stream gives it requests of it.
func TestALostWriteStopsTheRouter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{RequestsPerMinute: 1}, MaxQueueWait: time.Hour})
		b.from("acme", 10)
		waiting := b.from("acme", 10)
		b.after(2 * time.Second)
		b.vault.steal(schemas.PartitionOf("acme"))
		b.end("acme", "idk_1", 5) // something changes
		b.after(2 * time.Second)
		b.wantSettled(waiting, "nak")
		b.after(time.Minute)
		b.wantDispatched("idk_1")
		b.from("acme", 10) // it is this router after all
		b.wantDispatched("idk_1", "idk_3")
	})
}

// TestTheVaultFails lets requests wait until the balances can be read, and keeps to deadlines meanwhile.
func TestTheVaultFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{RequestsPerMinute: 5}})
		b.vault.failures = 3
		b.from("acme", 10)
		b.arrive(func(it *item) {
			it.estimate, it.partition, it.deadline = 10, schemas.PartitionOf("acme"), time.Now().Add(500*time.Millisecond)
		})
		b.from("other", 10)
		b.wantDispatched("idk_3")
		b.after(4 * time.Second)
		b.wantDispatched("idk_3", "idk_1")
		b.wantAnswer("idk_2", schemas.CodeDeadline)
	})
}

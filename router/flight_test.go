package router

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/internal/eventlog"
	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/schemas"
)

// flightBench is a loop over fakes whose requests share runs, with room for many, and that has listened for a while.
func flightBench(t *testing.T, configure func(*Config)) *bench {
	t.Helper()
	b := newBench(t, func(c *Config) {
		c.Cache.Policy = func(string) CachePolicy { return CachePolicy{Coalesce: CoalesceOn} }
		if configure != nil {
			configure(c)
		}
	})
	b.beat(slots(1000))
	b.share("first", func(it *item) { it.flightKey = "another" })
	b.keepBeating(slots(1000), 2*adoptLate)
	return b
}

// inBubble runs a test in simulated time. What packs the events of results is made outside, because all bubbles share it.
func inBubble(t *testing.T, test func(t *testing.T)) {
	t.Helper()
	eventlog.Pack(time.Now(), []*schemas.Frame{{Kind: schemas.KindDelta, Count: 1, Data: []byte("{}")}})
	synctest.Test(t, test)
}

// share delivers a request that may share a run.
func (b *bench) share(id string, edit func(*item)) *fakeDelivery {
	b.t.Helper()
	return b.arrive(sharable(id, edit))
}

// sharable makes a request one that may share a run, changed by edit.
func sharable(id string, edit func(*item)) func(*item) {
	return func(it *item) {
		it.req.Identity, it.req.Body, it.flightKey, it.estimate, it.input, it.partition = named(id), []byte(`{"model":"m"}`), "k", 100, 40, schemas.PartitionOf("acme")
		if edit != nil {
			edit(it)
		}
	}
}

func (b *bench) begin(id string) {
	b.t.Helper()
	b.write(id, &schemas.Frame{Kind: schemas.KindStart, Start: &schemas.Start{Mode: schemas.ModeFresh, Work: 2, Dispatch: 1, Worker: "w"}})
}

func (b *bench) say(id string, texts ...string) {
	b.t.Helper()
	var events []string
	for _, text := range texts {
		events = append(events, fmt.Sprintf(`{"id":"u","created":1,"choices":[{"index":0,"delta":{"content":%q}}]}`, text))
	}
	b.write(id, &schemas.Frame{Kind: schemas.KindDelta, Count: len(events), Data: []byte(strings.Join(events, "\n"))})
}

func (b *bench) finish(id string) {
	b.t.Helper()
	summary := &schemas.Summary{Status: schemas.StatusCompleted, Usage: &schemas.Usage{PromptTokens: 7, CompletionTokens: 5, TotalTokens: 12}}
	b.write(id, &schemas.Frame{Kind: schemas.KindEnd, Data: summary.Encode()})
}

func (b *bench) fail(id string, reason *schemas.Error) {
	b.t.Helper()
	b.write(id, &schemas.Frame{Kind: schemas.KindError, Data: reason.Encode(), Summary: (&schemas.Summary{Status: schemas.StatusOf(reason)}).Encode()})
}

// wantEvents checks how many events a request has been given, and of which kind its last frame is.
func (b *bench) wantEvents(id string, events uint64, last schemas.Kind) {
	b.t.Helper()
	synctest.Wait()
	chain, _ := b.log.Chain(b.t.Context(), named(id))
	kind := schemas.Kind("")
	if chain.Last() != nil {
		kind = chain.Last().Kind
	}
	if chain.Next() != events || kind != last {
		b.t.Errorf("%s has %d events and ends with %q, want %d and %q", id, chain.Next(), kind, events, last)
	}
}

func (b *bench) wantCode(id string, code schemas.Code) {
	b.t.Helper()
	synctest.Wait()
	chain, _ := b.log.Chain(b.t.Context(), named(id))
	if terminal := chain.Terminal(); terminal == nil || codeOf(terminal) != code {
		b.t.Errorf("%s ends with %+v, want %s", id, terminal, code)
	}
}

// dispatches checks who was dispatched besides the first request of all.
func (b *bench) wantRuns(ids ...string) {
	b.t.Helper()
	b.wantDispatched(append([]string{"first"}, ids...)...)
}

func (b *bench) cancel(id string) {
	b.t.Helper()
	b.loop.cancels <- hint{named(id), schemas.CancelledByCaller}
	synctest.Wait()
}

func TestJoiningAndLeavingAFlight(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := flightBench(t, nil)
		lead := b.share("lead", nil)
		b.wantSettled(lead, "ack")
		one, two := b.share("one", nil), b.share("two", func(it *item) { it.deadline = time.Now().Add(time.Minute) })
		b.begin("lead")
		b.say("lead", "a", "b")
		three := b.share("three", nil) // late
		b.wantEvents("one", 2, schemas.KindDelta)
		b.wantEvents("three", 2, schemas.KindDelta)
		b.cancel("one")
		b.wantAnswer("one", schemas.CodeCancelled)
		b.wantSettled(one, "ack")
		b.keepBeating(slots(1000), time.Minute)
		b.wantAnswer("two", schemas.CodeDeadline)
		b.wantSettled(two, "ack")
		b.wantSettled(three, "held")
		b.say("lead", "c")
		b.wantEvents("one", 2, schemas.KindDelta) // the answer is the clerk's, which is not here
		b.finish("lead")
		b.wantEvents("three", 3, schemas.KindEnd)
		b.wantSettled(three, "ack")
		time.Sleep(time.Millisecond)
		late := b.share("late", nil) // accepted when the answer was over
		b.wantSettled(late, "ack")
		b.wantRuns("lead", "late")
	})
}

// A request that was accepted before the end of an answer, and comes after it, is given it all the same, for a while.
func TestWhoWasAcceptedBeforeTheEnd(t *testing.T) {
	for name, c := range map[string]struct {
		after  time.Duration
		shares bool
	}{
		"at once":       {0, true},
		"in the linger": {flightLinger - 200*time.Millisecond, true},
		"too late":      {flightLinger + 200*time.Millisecond, false},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := flightBench(t, nil)
				b.share("lead", nil)
				b.share("one", nil)
				b.begin("lead")
				b.say("lead", "a")
				accepted := time.Now()
				time.Sleep(time.Millisecond)
				b.finish("lead")
				b.keepBeating(slots(1000), c.after)
				time.Sleep(c.after % schemas.HeartbeatInterval)
				late := b.share("late", func(it *item) { it.accepted = accepted })
				b.wantSettled(late, "ack")
				if c.shares {
					b.wantEvents("late", 1, schemas.KindEnd)
					b.wantRuns("lead")
				} else {
					b.wantRuns("lead", "late")
				}
			})
		})
	}
}

func TestALeaderThatFailsIsReplacedOnce(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := flightBench(t, nil)
		b.share("lead", nil)
		one, two, three := b.share("one", nil), b.share("two", nil), b.share("three", nil)
		b.begin("lead")
		b.fail("lead", schemas.Errorf(schemas.CodeUpstreamError, "no"))
		b.wantRuns("lead", "one")
		b.wantSettled(one, "ack")
		b.wantSettled(two, "held")
		b.begin("one")
		b.fail("one", schemas.Errorf(schemas.CodeUpstreamTimeout, "no"))
		for id, d := range map[string]*fakeDelivery{"two": two, "three": three} {
			b.wantCode(id, schemas.CodeUpstreamTimeout)
			b.wantSettled(d, "ack")
			if r := b.log.results[named(id)]; r == nil || r.Status != schemas.StatusFailed {
				t.Errorf("the result of %s is %+v", id, r)
			}
		}
		b.wantRuns("lead", "one")
		b.share("next", nil) // has a run of its own
		b.wantRuns("lead", "one", "next")
	})
}

// Somebody else ends the leader, and its worker does not ask who comes next: after a while a follower runs.
func TestALeaderWhoseWorkerDoesNotAsk(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := flightBench(t, nil)
		b.share("lead", nil)
		b.share("one", nil)
		b.begin("lead")
		b.say("lead", "a")
		b.fail("lead", schemas.Cancelled(schemas.CancelledByCaller))
		b.keepBeating(slots(1000), heirWait-schemas.HeartbeatInterval)
		b.wantRuns("lead")
		b.keepBeating(slots(1000), 2*schemas.HeartbeatInterval)
		b.wantRuns("lead", "one")
		b.wantEvents("one", 1, schemas.KindDelta)
	})
}

// A worker asks while something is being written to the follower that came first: it is answered when that is done.
func TestAnHeirThatIsBeingWrittenTo(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := flightBench(t, nil)
		b.share("lead", nil)
		one, two := b.share("one", nil), b.share("two", nil)
		b.begin("lead")
		gate := b.log.block(named("one"))
		b.say("lead", "a")
		b.wantEvents("two", 1, schemas.KindDelta)
		answers := make(chan *schemas.Work, 2)
		ask := func() {
			b.loop.heirs <- heirQuestion{named("lead"), func(w *schemas.Work) { answers <- w }}
			synctest.Wait()
		}
		ask()
		ask() // again, before there is an answer
		if len(answers) > 0 {
			t.Errorf("answered %+v while the router writes", <-answers)
		}
		close(gate)
		synctest.Wait()
		if heir := <-answers; heir == nil || heir.Identity != named("one") || len(answers) > 0 {
			t.Errorf("the heir is %+v", heir)
		}
		b.write("one", &schemas.Frame{Kind: schemas.KindStart, Start: &schemas.Start{Mode: schemas.ModeInherit, Work: 2, Dispatch: 1, Worker: "w"}})
		b.say("one", "b")
		b.finish("one")
		b.wantEvents("two", 2, schemas.KindEnd)
		b.keepBeating(slots(1000), 2*heirLook)
		b.wantSettled(one, "ack")
		b.wantSettled(two, "ack")
		b.wantRuns("lead")
	})
}

// The window holds 4 MiB of events. A leader that is further ahead of its slowest follower is read no further until that one
// has caught up; then what all have is forgotten, and nobody joins.
func TestTheWindowOfAFlight(t *testing.T) {
	for name, over := range map[string]bool{"at the limit": false, "beyond": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := flightBench(t, nil)
				b.share("lead", nil)
				slow, fast := b.share("slow", nil), b.share("fast", nil)
				b.begin("lead")
				gate := b.log.block(named("slow"))
				const frame = 64 << 10
				event := func(bytesLong int) []byte {
					head := []byte(`{"choices":[{"index":0,"delta":{"content":"`)
					return append(append(head, bytes.Repeat([]byte("x"), bytesLong-len(head)-len(`"}}]}`))...), `"}}]}`...)
				}
				perEvent := int(flightWindow/frame) - 1
				for range perEvent { // 63 of 64 KiB, with what is counted for each
					b.write("lead", &schemas.Frame{Kind: schemas.KindDelta, Count: 1, Data: event(frame - 64)})
				}
				last := frame - 64
				if over {
					last++
				}
				b.write("lead", &schemas.Frame{Kind: schemas.KindDelta, Count: 1, Data: event(last)})
				read := b.log.reads("lead")
				b.say("lead", "the next")
				if got := b.log.reads("lead") > read; got == over {
					t.Errorf("the leader is read on: %t, want %t", got, !over)
				}
				b.wantEvents("slow", 0, schemas.KindStart)
				close(gate)
				synctest.Wait()
				b.wantEvents("slow", uint64(perEvent)+2, schemas.KindDelta)
				b.wantEvents("fast", uint64(perEvent)+2, schemas.KindDelta)
				b.share("new", nil)
				b.wantRuns("lead", "new") // one more event than the window holds is enough for both
				b.finish("lead")
				b.wantSettled(slow, "ack")
				b.wantSettled(fast, "ack")
				for _, id := range []string{"slow", "fast"} {
					b.wantEvents(id, uint64(perEvent)+2, schemas.KindEnd)
					if r := b.log.results[named(id)]; r == nil || r.Events == nil || r.Events.Count != perEvent+2 {
						t.Errorf("the result of %s is not whole", id)
					}
				}
			})
		})
	}
}

func (g *fakeLog) reads(id string) int {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.read[named(id)]
}

// A request comes back whose chain follows a leader that left no trace: neither a chain, a result nor a request. It waits for
// a lease, in case that comes back, and then runs.
func TestALeaderWithoutATrace(t *testing.T) {
	for name, appears := range map[string]bool{"for good": false, "but its worker begins": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := flightBench(t, nil)
				b.write("one", &schemas.Frame{
					Kind: schemas.KindStart, Start: &schemas.Start{Mode: schemas.ModeFollow, Dispatch: 1, Worker: "r0", Leader: "lost"},
				})
				one := b.share("one", func(it *item) { it.again = true })
				b.keepBeating(slots(1000), testLease-time.Second)
				b.wantRuns()
				if appears {
					b.begin("lost")
					b.say("lost", "a")
				}
				b.keepBeating(slots(1000), 2*time.Second)
				if !appears {
					b.wantRuns("one")
					b.wantSettled(one, "ack")
					return
				}
				b.wantRuns()
				b.finish("lost")
				b.wantEvents("one", 1, schemas.KindEnd)
				b.wantSettled(one, "ack")
			})
		})
	}
}

// The leader is charged as any request; who follows as one that is answered from the cache; an heir as one that runs.
func TestWhatAFlightCounts(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := flightBench(t, func(c *Config) {
			limits := &Limits{Limits: ledger.Limits{RequestsPerMinute: 100, TokensPerMinute: 100_000}}
			c.Limits = func(string) *Limits { return limits }
		})
		b.share("lead", nil)
		b.share("one", nil)
		b.share("two", nil)
		b.begin("lead")
		b.say("lead", "a")
		if requests, tokens := b.left(); requests != 97 || tokens != 100_000-100 {
			t.Errorf("%d requests and %d tokens are left, want 97 and all but the leader's 100", requests, tokens)
		}
		answers := make(chan *schemas.Work, 1)
		b.loop.heirs <- heirQuestion{named("lead"), func(w *schemas.Work) { answers <- w }}
		heir := <-answers
		if heir == nil || heir.Reserve == nil || heir.Reserve.Tokens() != 100 {
			t.Fatalf("the heir is %+v", heir)
		}
		if requests, tokens := b.left(); requests != 97 || tokens != 100_000-200 {
			t.Errorf("%d requests and %d tokens are left, want 97 and all but the leader's 100 and the heir's", requests, tokens)
		}
		b.write("one", &schemas.Frame{Kind: schemas.KindStart, Start: &schemas.Start{Mode: schemas.ModeInherit, Work: 2, Dispatch: 1, Worker: "w"}})
		b.say("one", "a")
		b.finish("one")
		b.keepBeating(slots(1000), 2*heirLook)
		for id, tokens := range map[string]int64{"one": 12, "two": 0} {
			r := b.log.results[named(id)]
			if r == nil || r.Charge == nil || r.Charge.Requests != 1 || r.Charge.Tokens != tokens {
				t.Errorf("the result of %s: %+v, want one request and %d tokens", id, r.Charge, tokens)
			}
		}
		if r := b.log.results[named("two")]; r.Cache != schemas.CacheCoalesced || !slices.Equal(r.FinishReasons, nil) {
			t.Errorf("the follower's result: cache %q", r.Cache)
		}
	})
}

// left is what the tenant may still do.
func (b *bench) left() (requests, tokens int64) {
	b.t.Helper()
	synctest.Wait()
	book := b.loop.books.partitions[schemas.PartitionOf("acme")]
	a := book.ledger.Allowance("acme", book.now())
	return a.Requests.Remaining, a.Tokens.Remaining
}

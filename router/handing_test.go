package router

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// wantHeir asks who inherits the run of a request: the answer is a request, "nobody", or empty when there is none.
func (b *bench) wantHeir(of, want string) {
	b.t.Helper()
	got := ""
	b.loop.heirs <- heirQuestion{named(of), func(w *schemas.Work) {
		if got = "nobody"; w != nil {
			got = w.Identity.Request
		}
	}}
	synctest.Wait()
	if got != want {
		b.t.Errorf("the heir of %s is %q, want %q", of, got, want)
	}
}

// passOn ends a leader whose run its worker hands on.
func (b *bench) passOn(id, heir string) {
	b.t.Helper()
	b.write(id, &schemas.Frame{Kind: schemas.KindError, Data: schemas.Cancelled(schemas.CancelledByCaller).Encode(), Heir: heir})
}

// inherit claims the chain of an heir as the worker of its leader does.
func (b *bench) inherit(id string) {
	b.t.Helper()
	b.write(id, &schemas.Frame{Kind: schemas.KindStart, Start: &schemas.Start{Mode: schemas.ModeInherit, Work: 2, Dispatch: 1, Worker: "w"}})
}

// unblock lets pass what is written from now on.
func (g *fakeLog) unblock(id schemas.Identity) {
	g.mu.Lock()
	defer g.mu.Unlock()
	delete(g.gates, id)
}

// An heir that came from another router has an heir as any leader has, and not itself.
func TestAReclaimedHeirHasAnHeir(t *testing.T) {
	for _, next := range []string{"two", "nobody"} {
		t.Run(next, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := flightBench(t, nil)
				b.loop.arrivals <- batch{partition: schemas.PartitionOf("acme"), pin: "new"}
				b.keepBeating(slots(1000), 2*clockSlack)
				b.inherit("one")
				b.say("one", "a")
				b.share("one", again)
				if next == "two" {
					b.share("two", nil)
					b.wantEvents("two", 1, schemas.KindDelta)
				}
				b.keepBeating(slots(1000), 2*adoptSettle)
				b.wantHeir("one", next)
			})
		})
	}
}

// A router that has just given the followers of a run back does not know that nobody inherits it: they may come back here.
func TestWhoInheritsIsNotKnownWhileFollowersMove(t *testing.T) {
	acmes := schemas.PartitionOf("acme")
	for name, c := range map[string]struct {
		move    func(b *bench)
		settled string
		elder   bool // another router was served
	}{
		"another router was served": {func(b *bench) { b.loop.arrivals <- batch{partition: acmes, unpinned: true} }, "nak", true},
		"its limits are another's":  {func(b *bench) { b.do(func() { b.loop.disown(acmes) }) }, "nak", false},
		"the router slept": {func(b *bench) {
			b.loop.finished <- func() { time.Sleep(testLease + time.Second) }
			time.Sleep(testLease + 2*time.Second)
		}, "silent", false},
	} {
		for follows, back := range map[string]bool{"and it comes back": true, "and nobody comes back": false} {
			t.Run(name+" "+follows, func(t *testing.T) {
				inBubble(t, func(t *testing.T) {
					b := flightBench(t, nil)
					b.loop.arrivals <- batch{partition: acmes, pin: "old"}
					b.keepBeating(slots(1000), 2*clockSlack)
					b.share("lead", nil)
					one := b.share("one", nil)
					b.begin("lead")
					b.say("lead", "a")
					c.move(b)
					b.wantSettled(one, c.settled)
					b.wantHeir("lead", "")
					if c.elder {
						b.keepBeating(slots(1000), 2*adoptSettle)
						b.wantHeir("lead", "")
						b.loop.arrivals <- batch{partition: acmes, pin: "new"}
						b.wantHeir("lead", "")
					}
					if back {
						b.share("one", again)
						b.wantHeir("lead", "one")
						return
					}
					b.keepBeating(slots(1000), adoptSettle)
					b.wantHeir("lead", "nobody")
				})
			})
		}
	}
}

// A pin that changes without a word may have been another router's in between, which had followers.
func TestWhoInheritsIsNotKnownAfterAnotherPin(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := flightBench(t, nil)
		pin := func(pin string) { b.loop.arrivals <- batch{partition: schemas.PartitionOf("acme"), pin: pin} }
		pin("old")
		b.keepBeating(slots(1000), 2*clockSlack)
		b.share("lead", nil)
		b.wantHeir("lead", "nobody")
		pin("new")
		b.wantHeir("lead", "")
		b.keepBeating(slots(1000), adoptSettle)
		b.wantHeir("lead", "nobody")
	})
}

// The heir that the end of a leader names leaves just then, while something is being written to it. The others wait for what
// its own chain tells.
func TestANamedHeirThatLeaves(t *testing.T) {
	passed := func(b *bench) { b.passOn("lead", "one") }
	cancelled := func(b *bench) { b.cancel("one") }
	for name, c := range map[string]struct {
		steps   []func(*bench)
		settled string
	}{
		"before it is named":    {[]func(*bench){cancelled, passed}, "ack"},
		"when it is named":      {[]func(*bench){passed, cancelled}, "ack"},
		"its worker was faster": {[]func(*bench){passed, func(b *bench) { b.log.unblock(named("one")); b.inherit("one") }}, "silent"},
	} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := flightBench(t, nil)
				b.share("lead", nil)
				one, two := b.share("one", nil), b.share("two", nil)
				b.begin("lead")
				gate := b.log.block(named("one"))
				b.say("lead", "a")
				for _, step := range c.steps {
					step(b)
				}
				close(gate)
				b.wantSettled(one, c.settled)
				b.keepBeating(slots(1000), time.Minute)
				if c.settled == "ack" {
					b.inherit("one")
				}
				b.say("one", "b")
				b.finish("one")
				chain, _ := b.log.Chain(t.Context(), named("one"))
				b.wantEvents("two", chain.Next(), schemas.KindEnd)
				b.wantSettled(two, "ack")
				b.wantRuns("lead")
			})
		})
	}
}

// An heir that the end of a leader names leaves, and its worker asks who is next.
func TestTheHeirOfANamedHeir(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := flightBench(t, nil)
		b.share("lead", nil)
		b.share("one", nil)
		b.share("two", nil)
		b.begin("lead")
		gate := b.log.block(named("one"))
		b.say("lead", "a")
		b.cancel("one")
		b.passOn("lead", "one")
		close(gate)
		b.fail("one", schemas.Cancelled(schemas.CancelledByCaller))
		b.wantHeir("one", "two")
		b.keepBeating(slots(1000), time.Minute)
		b.wantRuns("lead")
	})
}

// The heir that the end of a leader names inherits. Its own end names nobody yet when a follower leaves that was about to.
func TestANamedHeirHasAnHeir(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := flightBench(t, nil)
		b.share("lead", nil)
		b.share("one", nil)
		b.share("two", nil)
		b.share("three", nil)
		b.begin("lead")
		b.passOn("lead", "one")
		b.inherit("one")
		gate := b.log.block(named("two"))
		b.say("one", "a")
		b.wantHeir("one", "")
		b.cancel("two")
		close(gate)
		synctest.Wait()
		b.wantHeir("one", "three")
	})
}

package router

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/schemas"
)

// oneAtOnce are limits under which a place that is not given back stops everything.
var oneAtOnce = Limits{Limits: ledger.Limits{MaxInFlight: 1}, MaxQueueWait: time.Hour}

// do runs something in the loop.
func (b *bench) do(something func()) {
	b.t.Helper()
	b.loop.finished <- something
	synctest.Wait()
}

// A router that dispatches a request once more, after another did and its result was counted, gives its place back at once.
func TestAPlaceOfADispatchThatWasDoneBefore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, oneAtOnce)
		b.from("acme", 1)
		b.end("acme", "idk_1", 1)
		b.vault.count("idk_1", 1)
		b.vault.blind(1)
		b.arrive(func(it *item) {
			it.req.Tenant, it.req.Request, it.again = "acme", "idk_1", true
			it.estimate, it.input, it.partition = 1, 1, schemas.PartitionOf("acme")
		})
		b.from("acme", 1)
		b.wantDispatched("idk_1", "idk_1") // it could not be looked for
		b.after(2 * time.Second)
		b.wantDispatched("idk_1", "idk_1", "idk_3")
	})
}

// A follower gives back the place that a router before had for its own run: its leader may wait for that.
func TestAFollowerGivesItsPlaceToItsLeader(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		limits := oneAtOnce
		b := flightBench(t, func(c *Config) { c.Limits = func(string) *Limits { return &limits } })
		b.end("acme", "first", 1)
		b.do(func() {
			book := b.loop.books.partitions[schemas.PartitionOf("acme")]
			book.ledger.Hold(named("follower"), &schemas.Reserve{Requests: 1, Input: 40, Output: 60}, time.Now().Add(time.Hour), book.now())
			book.ledger.Sent(named("follower"))
		})
		b.share("lead", nil)
		b.wantRuns()
		b.share("follower", nil)
		b.wantRuns("lead")
	})
}

// A request that was given a part of an answer is not answered from the cache, should its leader be lost: it runs behind that.
func TestAPartOfAnAnswerIsGoneOnWith(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := flightBench(t, nil)
		b.begin("lead")
		b.say("lead", "a")
		b.led("one", "lead")
		b.say("one", "a")
		looked := make(chan struct{})
		b.bus.mu.Lock()
		b.bus.cachedGate = looked // nobody comes by
		b.bus.mu.Unlock()
		b.share("one", func(it *item) { it.again, it.cache = true, &lookup{seek: true} })
		b.fail("lead", schemas.Cancelled(schemas.CancelledByCaller))
		b.keepBeating(slots(1000), 2*heirWait)
		b.wantRuns("one")
		close(looked)
	})
}

// The only follower of a flight inherits its run while it is still looked how the leader stands. Who follows then is given the
// answer of the heir.
func TestALeaderThatChangesWhileItIsLookedAt(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := flightBench(t, nil)
		b.share("lead", nil)
		look := make(chan struct{})
		b.log.mu.Lock()
		b.log.look = look
		b.log.mu.Unlock()
		b.share("one", nil)
		heirs := make(chan *schemas.Work, 1)
		b.loop.heirs <- heirQuestion{named("lead"), func(w *schemas.Work) { heirs <- w }}
		if heir := <-heirs; heir == nil || heir.Identity != named("one") {
			t.Fatalf("the heir is %+v", heir)
		}
		two := b.share("two", nil)
		close(look)
		b.write("one", &schemas.Frame{Kind: schemas.KindStart, Start: &schemas.Start{Mode: schemas.ModeInherit, Work: 2, Dispatch: 1, Worker: "w"}})
		b.say("one", "a")
		b.finish("one")
		b.wantEvents("two", 1, schemas.KindEnd)
		b.wantSettled(two, "ack")
	})
}

// A dispatch that fails after its partition has gone is not tried again here, where nothing lets it pass the limits any more.
func TestADispatchThatFailsAfterItsPartitionHasGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, oneAtOnce)
		b.bus.dispatchGate = make(chan struct{})
		flying := b.from("acme", 1)
		b.loop.arrivals <- batch{partition: schemas.PartitionOf("acme"), unpinned: true}
		b.bus.mu.Lock()
		b.bus.dispatchErr = errors.New("no leader")
		b.bus.mu.Unlock()
		close(b.bus.dispatchGate)
		b.wantSettled(flying, "nak")
	})
}

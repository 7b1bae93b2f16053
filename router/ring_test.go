package router

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// led notes in a chain, as a router before did, that the request is given the answer of another.
func (b *bench) led(id, leader string) {
	b.t.Helper()
	b.write(id, &schemas.Frame{
		Kind: schemas.KindStart, Start: &schemas.Start{Mode: schemas.ModeFollow, Dispatch: 1, Worker: "r0", Leader: leader},
	})
}

func again(it *item) { it.again = true }

// Each of two routers, which had the same requests in turn, let one of them follow the other, but not the same one: the one
// that was about to run had begun to follow when its router before had been away. They come to one router at once: one of them
// runs, and the others follow it.
func TestFollowersOfEachOther(t *testing.T) {
	for name, ring := range map[string][]string{"two": {"one", "two"}, "three": {"one", "two", "three"}} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := flightBench(t, nil)
				for i, id := range ring {
					b.led(id, ring[(i+1)%len(ring)])
				}
				b.led("tail", "one")
				all := append(ring, "tail")
				var edits []func(*item)
				for _, id := range all {
					edits = append(edits, sharable(id, again))
				}
				deliveries := b.arriveAtOnce(edits...)
				b.bus.mu.Lock()
				runs := b.bus.dispatched[len(b.bus.dispatched)-1]
				b.bus.mu.Unlock()
				b.begin(runs)
				b.say(runs, "a", "b")
				b.finish(runs)
				for i, id := range all {
					b.wantEvents(id, 2, schemas.KindEnd)
					b.wantSettled(deliveries[i], "ack")
				}
				b.wantRuns(runs)
			})
		})
	}
}

// Everybody leaves a flight whose leader is not here, and comes back to it before it is forgotten. That the leader is
// nowhere is noticed all the same.
func TestAFlightThatIsFollowedAgain(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := flightBench(t, nil)
		b.led("one", "lost")
		one := b.share("one", again)
		b.keepBeating(slots(1000), time.Second)
		b.loop.arrivals <- batch{partition: schemas.PartitionOf("acme"), unpinned: true}
		b.wantSettled(one, "nak")
		one = b.share("one", again)
		b.keepBeating(slots(1000), testLease+2*time.Second)
		b.wantRuns("one")
		b.wantSettled(one, "ack")
	})
}

// A request that a job has in hand when its partition goes to another router goes there too, as soon as the job is done.
func TestALookUpUnderWayWhenThePartitionGoes(t *testing.T) {
	for name, comesBack := range map[string]bool{"for good": false, "and comes back": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := newBench(t, nil)
				b.bus.cachedGate = make(chan struct{})
				b.beat(slots(1))
				asks := func(it *item) {
					it.cache = &lookup{note: schemas.CacheNote{Status: schemas.CacheMiss, Key: "_.unknown"}, seek: true, oldest: schemas.MaxCacheTTL * time.Second}
				}
				looked := b.arrive(asks)
				b.loop.arrivals <- batch{unpinned: true}
				want := "nak"
				if comesBack {
					b.next--
					looked, want = b.arrive(asks), "ack"
				}
				b.wantSettled(looked, "held")
				close(b.bus.cachedGate)
				b.wantSettled(looked, want)
			})
		})
	}
}

// A router that was stopped for longer than a lease leaves alone what a job of it had in hand.
func TestALookUpOfAZombie(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.bus.cachedGate = make(chan struct{})
		b.beat(slots(1))
		looked := b.arrive(func(it *item) {
			it.cache = &lookup{note: schemas.CacheNote{Status: schemas.CacheMiss, Key: "_.unknown"}, seek: true, oldest: schemas.MaxCacheTTL * time.Second}
		})
		b.loop.finished <- func() { time.Sleep(testLease + time.Second) }
		time.Sleep(testLease + 2*time.Second)
		close(b.bus.cachedGate)
		b.wantSettled(looked, "silent")
		b.wantDispatched()
	})
}

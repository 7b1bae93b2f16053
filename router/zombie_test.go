package router

import (
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// byHand is a bench whose loop does not run: the test drives it.
func byHand(t *testing.T, configure func(*Config)) *bench {
	t.Helper()
	b := newBench(t, configure)
	b.stop()
	<-b.done
	b.loop.draining, b.loop.ticked = false, time.Now()
	return b
}

// take lets a loop that is driven by hand take a request in.
func (b *bench) take() *fakeDelivery {
	it, d := b.request(nil)
	b.loop.arrive(batch{items: []*item{it}})
	return d
}

// carryOn does for a loop that is driven by hand what its jobs want done, until there is no more of that.
func (b *bench) carryOn() {
	for {
		synctest.Wait()
		select {
		case then := <-b.loop.finished:
			then()
		default:
			return
		}
	}
}

// What a router holds that was stopped for longer than a lease is no longer its own.
func TestAZombieForgetsWhatItHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		z := byHand(t, nil)
		l := z.loop
		d := z.take()
		time.Sleep(testLease + time.Second)
		l.beat(slots(8))
		z.wantDispatched()
		l.tick(t.Context(), time.Now())
		l.beat(slots(8))
		z.wantDispatched()
		z.wantSettled(d, "silent")
	})
}

// Nor is what it was about to dispatch, be it that the loop hears first that it was stopped, or that the jobs go on.
func TestAZombieForgetsWhatItWasAboutToDispatch(t *testing.T) {
	for name, wakes := range map[string]bool{"the loop wakes first": true, "the jobs go on first": false} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				z := byHand(t, nil)
				gate := make(chan struct{})
				z.bus.dispatchGate, z.bus.dispatchErr = gate, errors.New("no leader")
				z.loop.beat(slots(dispatchWidth + 4))
				var held []*fakeDelivery
				for range dispatchWidth + 4 {
					held = append(held, z.take())
				}
				time.Sleep(testLease + time.Second)
				close(gate)
				synctest.Wait() // what was in flight has failed
				z.bus.dispatchErr = nil
				if wakes {
					z.loop.tick(t.Context(), time.Now())
				}
				z.carryOn()
				z.loop.tick(t.Context(), time.Now())
				z.carryOn()
				z.wantDispatched()
				for _, d := range held {
					z.wantSettled(d, "silent")
				}
				if room := z.loop.fleet.room("m"); room != dispatchWidth+4 {
					t.Errorf("room for %d", room)
				}
			})
		})
	}
}

// A router that was awake all the time tries again what has waited for long behind publishes that hung.
func TestADispatchThatWaitedForLong(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		gate := make(chan struct{})
		b.bus.dispatchGate = gate
		b.beat(slots(dispatchWidth + 1))
		for range dispatchWidth {
			b.arrive(nil)
		}
		last := b.arrive(nil)
		b.keepBeating(slots(dispatchWidth+1), testLease+time.Second)
		close(gate)
		b.keepBeating(slots(dispatchWidth+1), dispatchRetry+tick)
		b.wantSettled(last, "ack")
	})
}

// What a router could not send that was given back may have been sent by the one that has its partition now: its place of a
// limit is not free.
func TestTheReserveOfARequestThatWasGivenBack(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, oneAtOnce)
		gate := make(chan struct{})
		b.bus.dispatchGate, b.bus.dispatchErr = gate, errors.New("no leader")
		flying := b.from("acme", 1)
		b.after(2 * snapshotInterval)
		b.loop.arrivals <- batch{partition: schemas.PartitionOf("acme"), unpinned: true}
		second := b.from("acme", 1) // the balances are here again
		close(gate)
		b.wantSettled(flying, "nak")
		b.bus.mu.Lock()
		b.bus.dispatchErr = nil
		b.bus.mu.Unlock()
		b.after(time.Second)
		b.wantSettled(second, "held")
	})
}

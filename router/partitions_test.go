package router

import (
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/schemas"
)

// peer speaks for another router until stop is called.
func (b *bench) peer(name string, started int64, partitions ...int) (stop func()) {
	done := make(chan struct{})
	say := func() {
		b.loop.routers <- &schemas.RouterBeat{V: 1, Router: name, Started: started, Eligible: everywhere, Partitions: partitions}
	}
	say()
	go func() {
		for {
			select {
			case <-done:
				return
			case <-time.After(schemas.RouterBeatInterval):
				say()
			}
		}
	}()
	stop = func() { close(done); synctest.Wait() }
	synctest.Wait()
	return stop
}

func (b *bench) wantServing(want ...int) {
	b.t.Helper()
	synctest.Wait()
	beats := b.bus.told().beats
	if got := beats[len(beats)-1].Partitions; !slices.Equal(got, want) {
		b.t.Errorf("the router serves %v, want %v", got, want)
	}
}

// knows reports whether the loop counts on a worker.
func (b *bench) knows(worker string) (known bool) {
	done := make(chan struct{})
	b.loop.finished <- func() {
		known = b.loop.fleet.workers[worker] != nil
		close(done)
	}
	<-done
	return known
}

func TestAStandbyTakesOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.wantServing(everywhere...)
		dies := b.peer("elder", 1, everywhere...)
		time.Sleep(3 * time.Second)
		b.wantServing()
		if len(b.bus.told().adopted) > 0 {
			t.Errorf("partitions %v were taken from a router that lives", b.bus.told().adopted)
		}
		died := time.Now()
		dies()
		for range 30 {
			time.Sleep(tick)
			synctest.Wait()
			if len(b.bus.told().adopted) == schemas.Partitions {
				break
			}
		}
		if took := time.Since(died); took > 1500*time.Millisecond || len(b.bus.told().adopted) != schemas.Partitions {
			t.Errorf("partitions %v were taken over after %v", b.bus.told().adopted, took)
		}
		b.wantServing(everywhere...)
	})
}

// A router that starts looks for what one before it has left, once it knows that nobody else serves.
func TestANewRouterAdoptsOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.bus.mu.Lock()
		b.bus.adoptErr = errors.New("not now")
		b.bus.mu.Unlock()
		time.Sleep(routerGone + 2*tick)
		b.bus.mu.Lock()
		b.bus.adoptErr = nil
		b.bus.mu.Unlock()
		time.Sleep(time.Minute)
		synctest.Wait()
		adopted := b.bus.told().adopted
		slices.Sort(adopted)
		if diff := cmp.Diff(everywhere, adopted); diff != "" {
			t.Errorf("adopted (-want +got):\n%s", diff)
		}
	})
}

func TestWhatWaitsGoesWithItsPartition(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		here := b.arrive(nil)
		there := b.arrive(func(it *item) { it.partition = 2 })
		b.loop.arrivals <- batch{partition: 2, unpinned: true}
		b.wantSettled(there, "nak")
		b.wantSettled(here, "held")
		stop := b.peer("elder", 1, everywhere...)
		defer stop()
		b.wantSettled(here, "nak")
		b.wantServing()
	})
}

// A job that is under way when the partition goes is finished: its work item may be stored.
func TestADispatchUnderWayIsFinished(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.bus.dispatchGate = make(chan struct{})
		b.beat(slots(1))
		flying := b.arrive(nil)
		b.loop.arrivals <- batch{unpinned: true}
		b.wantSettled(flying, "held")
		close(b.bus.dispatchGate)
		b.wantSettled(flying, "ack")
	})
}

// A router that hears nothing, not even itself, blames nobody.
func TestADeafRouterBlamesNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.beat(slots(1))
		time.Sleep(time.Second)
		b.bus.mu.Lock()
		b.bus.deaf = true
		b.bus.mu.Unlock()
		time.Sleep(time.Minute)
		b.bus.mu.Lock()
		b.bus.deaf = false
		b.bus.mu.Unlock()
		time.Sleep(time.Second)
		synctest.Wait()
		if !b.knows("w") {
			t.Error("the worker is gone, which nobody could hear")
		}
		time.Sleep(2 * workerGone)
		synctest.Wait()
		if b.knows("w") {
			t.Error("the worker is there, although the router listens again")
		}
	})
}

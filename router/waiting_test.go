package router

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/schemas"
)

// saturated serves the model a request a second for a while, with more waiting than that: its pace is 100 tokens a second.
func saturated(b *bench) {
	for range 60 {
		b.arrive(func(it *item) { it.estimate = 100 })
	}
	for n := range uint64(12) {
		b.beat(beatOf("w", schemas.ModelBeat{Model: "m", Slots: 1, Released: []uint64{n}}))
		time.Sleep(500 * time.Millisecond)
		b.beat(beatOf("w", schemas.ModelBeat{Model: "m", Slots: 1, Used: 1, Held: []uint64{n + 1}}))
		time.Sleep(500 * time.Millisecond)
	}
}

func TestWhatComesTooLateIsRefusedAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		saturated(b)
		late := b.arrive(func(it *item) { it.estimate, it.deadline = 100, time.Now().Add(10*time.Second) })
		if got := late.settled(); got != "ack" {
			t.Errorf("a request whose deadline is in 10 s behind some 50 of a second each is %s", got)
		}
		b.bus.mu.Lock()
		code := b.bus.answers[fmt.Sprintf("idk_%d", b.next-1)]
		b.bus.mu.Unlock()
		if code != schemas.CodeOverloaded {
			t.Errorf("it was answered with %q", code)
		}
		if got := b.arrive(func(it *item) { it.estimate, it.deadline = 100, time.Now().Add(5*time.Minute) }).settled(); got != "held" {
			t.Errorf("one that can make it is %s", got)
		}
		other := b.arrive(func(it *item) {
			it.estimate, it.deadline, it.req.Tenant = 100, time.Now().Add(20*time.Second), "other"
		})
		if got := other.settled(); got != "held" {
			t.Errorf("one of a tenant that has nothing waiting is %s", got)
		}
	})
}

func TestNobodyIsRefusedOnAGuess(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.beat(slots(0))
		for range 50 { // nothing was ever served
			if got := b.arrive(func(it *item) { it.estimate, it.deadline = 1000, time.Now().Add(time.Second) }).settled(); got != "held" {
				t.Fatalf("the request is %s", got)
			}
		}
	})
}

// ask is what somebody is told who asks for a request's place.
func (b *bench) ask(id schemas.Identity) *schemas.Waiting {
	told := make(chan *schemas.Waiting, 1)
	b.loop.asked <- question{id, func(w *schemas.Waiting) { told <- w }}
	synctest.Wait()
	select {
	case w := <-told:
		return w
	default:
		return nil
	}
}

func TestTheWaitAtALimitIsTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := limitedBench(t, Limits{Limits: ledger.Limits{RequestsPerMinute: 1}, MaxQueueWait: time.Hour})
		b.from("acme", 10)
		b.from("acme", 10)
		b.after(20 * time.Second)
		want := &schemas.Waiting{V: schemas.Version, Place: 1, Queued: 1, WaitMS: 40_000}
		if diff := cmp.Diff(want, b.ask(schemas.Identity{Tenant: "acme", Request: "idk_2"})); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

func TestPlacesAreTold(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		saturated(b)
		last := schemas.Identity{Tenant: "acme", Request: fmt.Sprintf("idk_%d", b.next-1)}
		w := b.ask(last)
		if w == nil || w.Place != w.Queued || w.Queued < 40 || w.WaitMS < 30_000 || w.WaitMS > 80_000 {
			t.Errorf("the last of some 50 requests of a second each is told %+v", w)
		}
		if w := b.ask(schemas.Identity{Tenant: "acme", Request: "idk_1"}); w != nil {
			t.Errorf("one that has gone is told %+v", w)
		}
		if w := b.ask(schemas.Identity{Tenant: "other", Request: last.Request}); w != nil {
			t.Errorf("another tenant is told %+v", w)
		}
	})
}

func TestOperatorsAreToldOfAQueue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		told := func() (all []*schemas.QueueEvent) {
			synctest.Wait()
			b.bus.mu.Lock()
			defer b.bus.mu.Unlock()
			for _, event := range b.bus.events {
				if !strings.Contains(event, `"queued":`) {
					continue // of another kind
				}
				e, err := schemas.DecodeQueueEvent([]byte(event))
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, e)
			}
			b.bus.events = nil
			return all
		}
		b.arrive(nil)
		time.Sleep(time.Second)
		if e := told(); len(e) != 1 || e[0].Queued != 1 || e[0].Model != "m" || len(e[0].Requests) != 1 || e[0].Requests[0].Request != "idk_1" {
			t.Errorf("the first that waits: %+v", e)
		}
		for range 39 {
			b.arrive(nil)
		}
		b.keepBeating(slots(0), 20*time.Second)
		if e := told(); len(e) != 2 || e[1].Queued != 40 {
			t.Errorf("in 20 s: %+v", e)
		}
		b.beat(slots(40))
		b.keepBeating(slots(40), time.Second)
		if e := told(); len(e) != 1 || e[0].Queued != 0 || e[0].Requests != nil {
			t.Errorf("when none waits any more: %+v", e)
		}
		b.keepBeating(slots(0), 30*time.Second)
		if e := told(); len(e) != 0 {
			t.Errorf("after that: %+v", e)
		}
	})
}

// However much one tenant sends, there is room for the next.
func TestNoTenantTakesAllTheRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const room = 1000
		b := newBench(t, func(c *Config) { c.MaxQueued = room })
		b.beat(slots(0))
		count := func(tenant string, n int, size int64) (kept int) {
			for range n {
				if b.arrive(func(it *item) { it.req.Tenant, it.size = tenant, size }).settled() == "held" {
					kept++
				}
			}
			return kept
		}
		if got := count("flood", 800, 100); got < room/2-2 || got > room/2+2 {
			t.Errorf("one tenant alone keeps %d of %d places", got, room)
		}
		if got := count("second", 800, 100); got < room/4-2 || got > room/4+2 {
			t.Errorf("a second one keeps %d", got)
		}
		if got := count("third", 60, 100); got != 60 {
			t.Errorf("one that has sent little keeps %d of 60", got)
		}
		if got := count("flood", 10, 100); got != 0 {
			t.Errorf("the first gets %d more", got)
		}
		if b.bus.answers[fmt.Sprintf("idk_%d", b.next-1)] != schemas.CodeSlowDown {
			t.Error("it is told something else than to slow down")
		}
	})
}

// Large bodies fill the room by their bytes.
func TestNoTenantTakesAllTheBytes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(c *Config) { c.MaxQueuedBytes = 64 << 20 })
		b.beat(slots(0))
		kept := 0
		for range 64 {
			if b.arrive(func(it *item) { it.size = 1 << 20 }).settled() == "held" {
				kept++
			}
		}
		if kept < 31 || kept > 34 {
			t.Errorf("one tenant keeps %d of 64 MiB", kept)
		}
	})
}

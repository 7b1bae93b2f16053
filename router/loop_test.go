package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// fakeDelivery notes what becomes of it.
type fakeDelivery struct {
	mu       sync.Mutex
	extended []time.Time
	outcome  *bus.Outcome
}

func (d *fakeDelivery) Extend() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.extended = append(d.extended, time.Now())
}

func (d *fakeDelivery) Settle(o bus.Outcome) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.outcome == nil {
		d.outcome = &o
	}
}

func (d *fakeDelivery) settled() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.outcome == nil {
		return "held"
	}
	return map[bus.Outcome]string{bus.Ack: "ack", bus.Nak: "nak", bus.Silent: "silent", bus.Term: "term"}[*d.outcome]
}

// fakeBus is broker and registrar.
type fakeBus struct {
	mu         sync.Mutex
	dispatched []string // request ids, in order
	answers    map[string]schemas.Code
	gone       map[uint64]bool // work sequences that are no longer in LLM_WORK
	beats      []*schemas.RouterBeat
	echo       chan<- *schemas.RouterBeat // back to the loop
	deaf       bool                       // nothing comes back
	adopted    []int                      // partitions, in order
	adoptErr   error
	rescued    []lostWork
	events     []string

	dispatchErr  error
	dispatchGate chan struct{}   // a dispatch waits for it, when set
	cachedGate   chan struct{}   // a look-up in the second level of the cache waits for it, when set
	known        map[string]bool // request ids with a result
}

func (b *fakeBus) Dispatch(_ context.Context, w *schemas.Work) (uint64, error) {
	b.mu.Lock()
	gate := b.dispatchGate
	b.mu.Unlock()
	if gate != nil {
		<-gate
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.dispatchErr != nil {
		return 0, b.dispatchErr
	}
	b.dispatched = append(b.dispatched, w.Identity.Request)
	return uint64(len(b.dispatched)), nil
}

func (b *fakeBus) WorkExists(_ context.Context, sequence uint64) (bool, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return !b.gone[sequence], nil
}

func (b *fakeBus) RouterBeat(beat *schemas.RouterBeat) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.beats = append(b.beats, beat)
	if !b.deaf {
		b.echo <- beat
	}
	return nil
}

func (b *fakeBus) Adopt(_ context.Context, partition int, _ string, _ int) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.adoptErr != nil {
		return 0, b.adoptErr
	}
	b.adopted = append(b.adopted, partition)
	return 1, nil
}

func (b *fakeBus) Event(_ string, data []byte) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.events = append(b.events, string(data))
}

func (b *fakeBus) rescue(_ context.Context, lost lostWork) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rescued = append(b.rescued, lost)
	return len(lost.held), nil
}

func (b *fakeBus) answer(it *item, reason *schemas.Error) (bus.Outcome, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.answers[it.req.Request] = reason.Code
	return bus.Ack, true
}

func (b *fakeBus) cancelHeld(context.Context, schemas.Identity, *schemas.Error) (bool, error) {
	return false, nil
}

func (b *fakeBus) answered(it *item) (bool, bus.Outcome) { return b.known[it.req.Request], bus.Ack }

func (b *fakeBus) body(it *item) ([]byte, error) {
	if it.req.Object.Name == "" {
		return nil, bus.ErrNotFound
	}
	return []byte(it.req.Object.Name), nil
}

func (b *fakeBus) cached(*item) ([]byte, time.Time, error) {
	b.mu.Lock()
	gate := b.cachedGate
	b.mu.Unlock()
	if gate != nil {
		<-gate
	}
	return nil, time.Time{}, bus.ErrNotFound
}

func (b *fakeBus) replay(*item, ending) (bus.Outcome, bool) { return bus.Ack, true }

// told is what the loop has asked of the bus so far.
func (b *fakeBus) told() (t struct {
	adopted []int
	rescued []lostWork
	events  []string
	beats   []*schemas.RouterBeat
}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	t.adopted, t.rescued = slices.Clone(b.adopted), slices.Clone(b.rescued)
	t.events, t.beats = slices.Clone(b.events), slices.Clone(b.beats)
	return t
}

// bench is a loop over fakes in a bubble of simulated time.
type bench struct {
	t     *testing.T
	bus   *fakeBus
	loop  *loop
	stop  context.CancelFunc // begins the drain
	done  chan struct{}      // closed when the loop has ended
	next  uint64
	vault *fakeVault // when there are limits
	log   *fakeLog   // when runs are shared
}

const testLease = 30 * time.Second

func newBench(t *testing.T, configure func(*Config)) *bench {
	t.Helper()
	cfg := Config{Name: "r1", Models: func() []string { return []string{"m"} }, Logger: slog.New(slog.DiscardHandler)}
	cfg.setDefaults()
	if configure != nil {
		configure(&cfg)
	}
	meters, err := newMetrics(nil)
	if err != nil {
		t.Fatal(err)
	}
	caching, err := newCaching(cfg.Cache, cfg.Logger, nil)
	if err != nil {
		t.Fatal(err)
	}
	fake := &fakeBus{answers: make(map[string]schemas.Code), gone: make(map[uint64]bool), known: make(map[string]bool)}
	ctx, stop := context.WithCancel(t.Context())
	b := &bench{t: t, bus: fake, loop: newLoop(cfg, testLease, fake, fake, caching, meters), stop: stop, done: make(chan struct{}), next: 1}
	fake.echo = b.loop.routers
	b.loop.start = func(partition int) (stop func()) {
		return func() { go func() { b.loop.arrivals <- batch{partition: partition, ended: true} }() }
	}
	if cfg.Limits != nil {
		b.vault = newFakeVault()
		b.loop.keepBooks(t.Context(), b.vault)
		t.Cleanup(b.loop.books.close)
	}
	if cfg.Cache.Policy != nil {
		b.log = newFakeLog()
		b.loop.coalesce(t.Context(), b.log)
	}
	go func() { b.loop.run(ctx, t.Context()); close(b.done) }()
	t.Cleanup(func() { stop(); <-b.done })
	return b
}

// arrive delivers a request for model m with the id idk_<sequence>, changed by edit.
func (b *bench) arrive(edit func(*item)) *fakeDelivery {
	b.t.Helper()
	return b.arriveAtOnce(edit)[0]
}

// arriveAtOnce delivers a request for each edit, in one batch.
func (b *bench) arriveAtOnce(edits ...func(*item)) (deliveries []*fakeDelivery) {
	b.t.Helper()
	var items []*item
	for _, edit := range edits {
		it, d := b.request(edit)
		items, deliveries = append(items, it), append(deliveries, d)
	}
	b.loop.arrivals <- batch{items: items}
	synctest.Wait()
	return deliveries
}

func (b *bench) request(edit func(*item)) (*item, *fakeDelivery) {
	d := &fakeDelivery{}
	id := schemas.Identity{Tenant: "acme", Request: fmt.Sprintf("idk_%d", b.next)}
	it := &item{
		req: &schemas.Request{Identity: id, ModelToken: "m", Op: schemas.OpChat}, ctx: b.t.Context(), end: func() {}, delivery: d,
		sequence: b.next, accepted: time.Now(), arrived: time.Now(), deadline: time.Now().Add(schemas.DefaultDeadline), size: 100,
	}
	b.next++
	if edit != nil {
		edit(it)
	}
	return it, d
}

func (b *bench) beat(h *schemas.Heartbeat) {
	b.loop.beats <- h
	synctest.Wait()
}

// keepBeating sends the heartbeat for a while of simulated time.
func (b *bench) keepBeating(h *schemas.Heartbeat, d time.Duration) {
	for range int(d / schemas.HeartbeatInterval) {
		time.Sleep(schemas.HeartbeatInterval)
		b.beat(h)
	}
}

func (b *bench) wantDispatched(ids ...string) {
	b.t.Helper()
	synctest.Wait()
	b.bus.mu.Lock()
	defer b.bus.mu.Unlock()
	if diff := cmp.Diff(ids, slices.Clone(b.bus.dispatched)); diff != "" {
		b.t.Errorf("dispatched (-want +got):\n%s", diff)
	}
}

func (b *bench) wantAnswer(id string, code schemas.Code) {
	b.t.Helper()
	synctest.Wait()
	b.bus.mu.Lock()
	defer b.bus.mu.Unlock()
	if got := b.bus.answers[id]; got != code {
		b.t.Errorf("answer to %s = %q, want %q", id, got, code)
	}
}

func (b *bench) wantSettled(d *fakeDelivery, want string) {
	b.t.Helper()
	synctest.Wait()
	if got := d.settled(); got != want {
		b.t.Errorf("delivery is %s, want %s", got, want)
	}
}

func slots(n int) *schemas.Heartbeat { return beatOf("w", schemas.ModelBeat{Model: "m", Slots: n}) }

func TestDispatchAtOnceWhileThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.beat(slots(2))
		began := time.Now()
		first, second, third := b.arrive(nil), b.arrive(nil), b.arrive(nil)
		b.wantDispatched("idk_1", "idk_2")
		if waited := time.Since(began); waited != 0 {
			t.Errorf("the dispatch waited %v for a tick", waited)
		}
		b.wantSettled(first, "ack")
		b.wantSettled(second, "ack")
		b.wantSettled(third, "held")
		b.beat(beatOf("w", schemas.ModelBeat{Model: "m", Slots: 2, Used: 2, Held: []uint64{1, 2}}))
		b.wantSettled(third, "held")
		b.beat(beatOf("w", schemas.ModelBeat{Model: "m", Slots: 2, Used: 1, Held: []uint64{2}, Released: []uint64{1}}))
		b.wantDispatched("idk_1", "idk_2", "idk_3")
		b.wantSettled(third, "ack")
	})
}

func TestWithoutAWorkerAKnownModelWaits(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		d := b.arrive(nil)
		time.Sleep(time.Minute)
		b.wantSettled(d, "held")
		b.beat(slots(1))
		b.wantDispatched("idk_1")
	})
}

func TestNoDispatchToAWorkerThatFellSilent(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.beat(slots(8))
		b.arrive(nil)
		b.wantDispatched("idk_1")
		time.Sleep(workerGone + 2*tick)
		d := b.arrive(nil)
		b.wantDispatched("idk_1")
		b.wantSettled(d, "held")
	})
}

func TestUnseenDispatchIsForgottenWhenItIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.beat(slots(1))
		b.arrive(nil)
		b.arrive(nil)
		b.keepBeating(slots(1), 10*time.Second)
		b.wantDispatched("idk_1") // it is still in LLM_WORK, and takes the only slot
		b.bus.mu.Lock()
		b.bus.gone[1] = true
		b.bus.mu.Unlock()
		b.keepBeating(slots(1), verifyAfter+schemas.HeartbeatInterval)
		b.wantDispatched("idk_1", "idk_2")
	})
}

func TestQueuedRequestExpires(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		late := b.arrive(nil)
		early := b.arrive(func(it *item) { it.deadline = time.Now().Add(time.Second) })
		time.Sleep(time.Second + tick)
		b.wantAnswer("idk_2", schemas.CodeDeadline)
		b.wantSettled(early, "ack")
		b.wantSettled(late, "held")
		time.Sleep(schemas.DefaultDeadline)
		b.wantAnswer("idk_1", schemas.CodeDeadline)
		b.wantSettled(late, "ack")
		b.wantDispatched()
	})
}

func TestExpiredOnArrivalIsNotDispatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.beat(slots(1))
		d := b.arrive(func(it *item) { it.deadline = time.Now() })
		b.wantAnswer("idk_1", schemas.CodeDeadline)
		b.wantSettled(d, "ack")
		b.wantDispatched()
	})
}

func TestDeadlineIsJudgedByTheClockOfTheStream(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.beat(slots(1))
		stamp := time.Now().Add(time.Hour) // the server is an hour ahead
		b.arrive(func(it *item) { it.accepted, it.deadline = stamp, stamp.Add(schemas.DefaultDeadline) })
		b.wantDispatched("idk_1")
		b.arrive(func(it *item) { it.accepted, it.deadline = stamp, stamp })
		b.wantAnswer("idk_2", schemas.CodeDeadline)
	})
}

func TestUnknownModel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		early := b.arrive(func(it *item) { it.req.ModelToken = "x" })
		b.wantSettled(early, "held") // a worker may serve it: none was heard yet
		time.Sleep(workerGone + tick)
		b.wantAnswer("idk_1", schemas.CodeModelNotFound)
		b.wantSettled(early, "ack")
		b.arrive(func(it *item) { it.req.ModelToken = "y" })
		b.wantAnswer("idk_2", schemas.CodeModelNotFound)
		b.beat(beatOf("w", schemas.ModelBeat{Model: "y", Slots: 1}))
		b.arrive(func(it *item) { it.req.ModelToken = "y" })
		b.wantDispatched("idk_3")
	})
}

func TestConfiguredModelIsKnownAfterAReload(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var mu sync.Mutex
		models := []string{"m"}
		b := newBench(t, func(cfg *Config) {
			cfg.Models = func() []string { mu.Lock(); defer mu.Unlock(); return models }
		})
		time.Sleep(workerGone + tick)
		mu.Lock()
		models = []string{"new.model"}
		mu.Unlock()
		b.wantSettled(b.arrive(func(it *item) { it.req.ModelToken = "new=2Emodel" }), "held")
	})
}

func TestUnknownModelErrorNamesWhatExists(t *testing.T) {
	l := &loop{fleet: newFleet(time.Now()), configured: newCatalog(func() []string { return []string{"gpt-4.1", "echo"} })}
	l.fleet.beat(beatOf("w", schemas.ModelBeat{Model: "llama=2F3", Slots: 1}), time.Now())
	e := l.unknown("gpt-5=2E0")
	want := `the model "gpt-5.0" does not exist; use echo, gpt-4.1, llama/3`
	if e.Message != want || e.Param != "model" || e.Code != schemas.CodeModelNotFound {
		t.Errorf("error = %+v, want message %q", e, want)
	}
	l.configured = newCatalog(func() (names []string) {
		for i := range 30 {
			names = append(names, fmt.Sprintf("m%02d", i))
		}
		return names
	})
	if got := l.unknown("x").Message; len(got) > 200 || got[len(got)-11:] != "and 11 more" {
		t.Errorf("a long list is not cut: %q", got)
	}
}

func TestCancelOfAQueuedRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		d := b.arrive(nil)
		b.loop.cancels <- hint{id: schemas.Identity{Tenant: "other", Request: "idk_1"}, by: schemas.CancelledByCaller}
		b.wantSettled(d, "held")
		b.loop.cancels <- hint{id: schemas.Identity{Tenant: "acme", Request: "idk_1"}, by: schemas.CancelledByCaller}
		b.wantAnswer("idk_1", schemas.CodeCancelled)
		b.wantSettled(d, "ack")
		b.beat(slots(1))
		b.wantDispatched()
	})
}

func TestCancelWhileTheDispatchFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.bus.dispatchErr, b.bus.dispatchGate = errors.New("stream offline"), make(chan struct{})
		b.beat(slots(1))
		d := b.arrive(nil)
		b.loop.cancels <- hint{id: schemas.Identity{Tenant: "acme", Request: "idk_1"}, by: schemas.CancelledByCaller}
		b.wantSettled(d, "held")
		close(b.bus.dispatchGate)
		b.wantAnswer("idk_1", schemas.CodeCancelled)
		b.wantSettled(d, "ack")
	})
}

func TestFailedDispatchIsTriedAgainInItsOldPlace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.bus.dispatchErr = errors.New("stream offline")
		b.beat(slots(1))
		b.arrive(nil)
		b.arrive(nil)
		b.wantDispatched()
		b.bus.mu.Lock()
		b.bus.dispatchErr = nil
		b.bus.mu.Unlock()
		time.Sleep(dispatchRetry + tick)
		b.wantDispatched("idk_1")
	})
}

func TestDispatchThatCanNeverSucceedIsAnswered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.bus.dispatchErr = fmt.Errorf("dispatch: %w", schemas.Errorf(schemas.CodeRequestTooLarge, "too large"))
		b.beat(slots(1))
		d := b.arrive(nil)
		b.wantAnswer("idk_1", schemas.CodeRequestTooLarge)
		b.wantSettled(d, "ack")
	})
}

func TestRedeliveryReplacesTheDelivery(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		first := b.arrive(nil)
		again := b.arrive(func(it *item) { it.sequence, it.req.Request = 1, "idk_1" })
		b.wantSettled(first, "silent")
		b.wantSettled(again, "held")
		b.beat(slots(8))
		b.wantDispatched("idk_1")
		b.wantSettled(again, "ack")
	})
}

func TestReusedIDWithAResultIsOnlyAcked(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.bus.known["order-1"], b.bus.known["idk_2"] = true, true
		b.beat(slots(8))
		used := b.arrive(func(it *item) { it.req.Request = "order-1" })
		b.arrive(nil) // an id of ours is not looked up
		b.arrive(func(it *item) { it.req.Request = "order-2" })
		b.wantSettled(used, "ack")
		b.wantDispatched("idk_2", "order-2")
	})
}

func TestBodyInTheObjectStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.beat(slots(8))
		body := `{"model":"m","messages":[{"role":"user","content":"hi"}]}`
		b.arrive(func(it *item) { it.req.Object, it.req.ModelToken = &schemas.Object{Name: body}, "other" })
		b.arrive(func(it *item) { it.req.Object = &schemas.Object{Name: "garbage"} })
		b.arrive(func(it *item) { it.req.Object = &schemas.Object{} })
		b.wantDispatched("idk_1")
		b.wantAnswer("idk_2", schemas.CodeInvalidJSON)
		b.wantAnswer("idk_3", schemas.CodeInvalidValue)
	})
}

func TestLeasesAreRenewedWhileQueued(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		var all []*fakeDelivery
		for range 50 {
			all = append(all, b.arrive(nil))
		}
		began := time.Now()
		time.Sleep(5 * time.Minute)
		synctest.Wait()
		for i, d := range all {
			last := began
			for _, at := range append(d.extended, time.Now()) {
				if at.Sub(last) > testLease/2 {
					t.Fatalf("delivery %d: %v without a renewal of its lease of %v", i, at.Sub(last), testLease)
				}
				last = at
			}
			if n := len(d.extended); n > 31 {
				t.Errorf("delivery %d: %d renewals in 5 minutes, want one per 10 s", i, n)
			}
		}
	})
}

func TestBoundsStopTheFetching(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, func(cfg *Config) { cfg.MaxQueued = 3 })
		permitted := func() int {
			select {
			case n := <-b.loop.permits:
				return n
			case <-time.After(time.Millisecond):
				return 0
			}
		}
		for want := 3; want >= 0; want-- {
			if got := permitted(); got != want {
				t.Errorf("permit for %d requests, want %d", got, want)
			}
			if want > 0 {
				b.arrive(nil)
			}
		}
		b.beat(slots(1))
		if got := permitted(); got != 1 {
			t.Errorf("permit for %d requests after one left, want 1", got)
		}
		b.arrive(func(it *item) { it.size = DefaultMaxQueuedBytes })
		b.beat(slots(8))
		b.loop.cancels <- hint{id: schemas.Identity{}, by: schemas.CancelledByCaller}
		if got := permitted(); got != 3 {
			t.Errorf("permit for %d requests when all have left, want 3", got)
		}
		b.keepBeating(slots(0), time.Second)
		b.arrive(func(it *item) { it.size, it.req.ModelToken = DefaultMaxQueuedBytes, "m" })
		if got := permitted(); got != 0 {
			t.Errorf("permit for %d requests with 256 MiB held, want none", got)
		}
	})
}

func TestDrainFinishesPublishesAndGivesBackTheRest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		b.bus.dispatchGate = make(chan struct{})
		b.beat(slots(1))
		flying, queued := b.arrive(nil), b.arrive(nil)
		b.stop()
		synctest.Wait()
		select {
		case <-b.done:
			t.Fatal("the loop ended with a publish in flight")
		default:
		}
		close(b.bus.dispatchGate)
		<-b.done
		b.wantSettled(flying, "ack")
		b.wantSettled(queued, "nak")
		b.wantDispatched("idk_1")
	})
}

func TestOwnHeartbeat(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBench(t, nil)
		time.Sleep(10*time.Second + tick/2)
		synctest.Wait()
		figures := 0
		beats := b.bus.told().beats
		for _, beat := range beats {
			if beat.Figures != nil {
				figures++
			}
		}
		if got := len(beats); got < 50 || got > 52 || figures < 17 || figures > 21 {
			t.Errorf("%d heartbeats in 10 s and %d with figures, want about 50 and 20", got, figures)
		}
	})
}

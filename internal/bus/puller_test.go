package bus_test

import (
	"context"
	"crypto/rand"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/schemas"
)

func TestFetchTakesNoMoreThanWanted(t *testing.T) {
	t.Parallel()
	b, puller := leased(t, longLease, 10)
	got := 0
	for _, want := range []int{1, 2, 3, 4} {
		batch, err := puller.Fetch(deadline(t, atOnce), want)
		if err != nil || len(batch) == 0 || len(batch) > want {
			t.Fatalf("%d deliveries, error %v, want 1 to %d", len(batch), err, want)
		}
		got += len(batch)
	}
	puller.Close()
	other := b.Work("echo")
	t.Cleanup(other.Close)
	take(t, other, 10-got, atOnce)
}

func TestFetchWaitsForWork(t *testing.T) {
	t.Parallel()
	b, puller := leased(t, longLease, 0)
	type fetched struct {
		batch []*bus.Delivery
		err   error
	}
	done := make(chan fetched, 1)
	ctx := deadline(t, patience)
	go func() {
		batch, err := puller.Fetch(ctx, 4)
		done <- fetched{batch, err}
	}()
	dispatch(t, b, 0, 1)
	if got := <-done; got.err != nil || len(got.batch) != 1 {
		t.Errorf("%d deliveries, error %v", len(got.batch), got.err)
	}
	reason := errors.New("draining")
	stopping, stop := context.WithCancelCause(t.Context())
	stop(reason)
	if _, err := puller.Fetch(stopping, 4); !errors.Is(err, reason) {
		t.Errorf("a context that has ended: %v, want the cause", err)
	}
}

// Items that are there before their consumer is are delivered, to a puller that was there before it too.
func TestPullBeforeThereIsAConsumer(t *testing.T) {
	t.Parallel()
	b := bustest.Connect(t, bustest.Server(t), bus.Config{Lease: longLease})
	if _, err := b.Dispatch(t.Context(), work("early", []byte("{}"))); err != nil {
		t.Fatal(err)
	}
	puller := b.Work("echo")
	t.Cleanup(puller.Close)
	nothing(t, puller, 300*time.Millisecond)
	dispatch(t, b, 0, 1)
	take(t, puller, 2, patience)
}

func TestPullOutlivesItsConsumer(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{Lease: longLease})
	dispatch(t, b, 0, 1)
	puller := b.Work("echo")
	t.Cleanup(puller.Close)
	take(t, puller, 1, atOnce)[0].Settle(bus.Ack)
	_, js := raw(t, server)
	if err := js.DeleteConsumer(t.Context(), schemas.StreamWork, schemas.WorkConsumer("echo")); err != nil {
		t.Fatal(err)
	}
	dispatch(t, b, 1, 1)
	take(t, puller, 1, patience)
}

// A pull expires, and the next one is there before somebody waits.
func TestPullExpires(t *testing.T) {
	t.Parallel()
	b, puller := leased(t, longLease, 0)
	nothing(t, puller, 2500*time.Millisecond)
	dispatch(t, b, 0, 1)
	take(t, puller, 1, atOnce)
}

// A pull that is served gets no heartbeats. It is open all the same, and what it asks for is not asked for again.
func TestPullThatIsServedSteadily(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{Lease: longLease})
	dispatch(t, b, 0, 0)
	for !servedSteadily(t, server, b) {
		t.Log("the machine was too busy to serve a pull steadily")
	}
}

// servedSteadily serves a pull until shortly before it expires and counts what is asked for meanwhile. It reports false when
// the pull went without a sign of life for so long that it had to be taken for lost.
func servedSteadily(t *testing.T, server *natsd.Server, b *bus.Bus) bool {
	conn, _ := raw(t, server)
	defer conn.Close()
	var pulls atomic.Int32
	if _, err := conn.Subscribe("$JS.API.CONSUMER.MSG.NEXT."+schemas.StreamWork+".>", func(*nats.Msg) { pulls.Add(1) }); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	puller := b.Work("echo")
	defer puller.Close()
	const want = 40
	pace := time.NewTicker(100 * time.Millisecond)
	defer pace.Stop()
	began := time.Now()
	for n, last := 0, began; time.Since(began) < 1800*time.Millisecond; n++ {
		<-pace.C
		item := work("paced-"+rand.Text(), []byte("{}"))
		if _, err := b.Dispatch(t.Context(), item); err != nil {
			t.Fatal(err)
		}
		batch, err := puller.Fetch(deadline(t, patience), want-n)
		if err != nil || len(batch) != 1 {
			t.Fatalf("%d deliveries, error %v", len(batch), err)
		}
		batch[0].Settle(bus.Ack)
		if time.Since(last) > 500*time.Millisecond {
			return false
		}
		last = time.Now()
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	if time.Since(began) < 2*time.Second && pulls.Load() != 1 {
		t.Errorf("%d pulls, want one", pulls.Load())
	}
	return true
}

func TestPullAcrossLostConnections(t *testing.T) {
	t.Parallel()
	b, p, near := far(t, bus.Config{Lease: longLease})
	dispatch(t, near, 0, 1)
	puller := b.Work("echo")
	t.Cleanup(puller.Close)
	take(t, puller, 1, atOnce)[0].Settle(bus.Ack)
	p.Cut()
	dispatch(t, near, 1, 1)
	take(t, puller, 1, patience)[0].Settle(bus.Ack)

	// Pulls that never arrive are missed by the heartbeats that do not come.
	p.Set(bustest.ToServer, bustest.Drop)
	nothing(t, puller, 300*time.Millisecond)
	p.Cut()
	dispatch(t, near, 2, 1)
	take(t, puller, 1, patience)
}

func TestPullAcrossARestart(t *testing.T) {
	t.Parallel()
	r := newRestartable(t)
	b := connect(t, r.server, bus.Config{URL: r.proxy.URL(), Lease: longLease})
	if err := b.Setup(t.Context()); err != nil {
		t.Fatal(err)
	}
	dispatch(t, b, 0, 2)
	puller := b.Work("echo")
	t.Cleanup(puller.Close)
	held := take(t, puller, 1, atOnce)[0]
	r.server.Close()
	r.start()
	seen := map[uint64]bool{}
	for range 2 { // the other item is still there, and serve makes what was held available
		d := take(t, puller, 1, patience)[0]
		d.Settle(bus.Ack)
		seen[d.Sequence] = true
		if d.Sequence != held.Sequence {
			eventually(t, "the reset", func() bool { return b.ResetConsumers(deadline(t, atOnce)) == nil })
		}
	}
	if len(seen) != 2 {
		t.Errorf("%d of 2 items were delivered", len(seen))
	}
}

// What was asked for and not taken is there for others at once.
func TestCloseGivesBack(t *testing.T) {
	t.Parallel()
	b, puller := leased(t, longLease, 1)
	if batch, err := puller.Fetch(deadline(t, atOnce), 8); err != nil || len(batch) != 1 {
		t.Fatalf("%d deliveries, error %v", len(batch), err)
	}
	dispatch(t, b, 1, 5) // the open pull has room for them
	puller.Close()
	puller.Close() // twice is once
	other := b.Work("echo")
	t.Cleanup(other.Close)
	for _, d := range take(t, other, 5, atOnce) {
		if d.Delivered > 2 {
			t.Errorf("item %d is delivered for the %d. time", d.Sequence, d.Delivered)
		}
	}
	unused := b.Work("echo")
	unused.Close()
}

// Of the routers of a partition one is served; when it leaves, the next one is, without waiting for the pin to lapse.
func TestPinMovesWhenARouterLeaves(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{Lease: longLease})
	partition := partitionOf(t, b, "acme")
	first, second := b.Requests(partition), b.Requests(partition)
	t.Cleanup(second.Close)
	accept(t, b, "r-1")
	if d := take(t, first, 1, atOnce)[0]; d.Delivered != 1 {
		t.Fatal(d)
	}
	accept(t, b, "r-2")
	nothing(t, second, 500*time.Millisecond)
	pin := first.Pin()
	first.Close() // with r-2 on its way, perhaps
	if now := pinOf(t, server, partition); pin == "" || now == pin {
		t.Errorf("the pin was %q and is %q after its router has left", pin, now)
	}
	if d := take(t, second, 1, atOnce)[0]; d.Header[schemas.HeaderRequestID][0] != "r-2" {
		t.Errorf("request %v", d.Header)
	}
}

// Who was pinned once does not end the pin of another when it leaves, and a puller that was never served ends none.
func TestCloseLeavesAnothersPin(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{Lease: longLease})
	partition := partitionOf(t, b, "acme")
	stale, pinned, idle := b.Requests(partition), b.Requests(partition), b.Requests(partition)
	t.Cleanup(pinned.Close)
	accept(t, b, "r-1")
	take(t, stale, 1, atOnce)
	unpin(t, server, partition)
	accept(t, b, "r-2")
	take(t, pinned, 1, atOnce)
	pin := pinOf(t, server, partition)
	nothing(t, idle, 100*time.Millisecond)
	stale.Close()
	idle.Close()
	if now := pinOf(t, server, partition); pin == "" || now != pin {
		t.Errorf("the pin was %q and is %q", pin, now)
	}
}

func TestPullerGetsOverALostPin(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{Lease: longLease})
	partition := partitionOf(t, b, "acme")
	puller := b.Requests(partition)
	t.Cleanup(puller.Close)
	accept(t, b, "r-1")
	take(t, puller, 1, atOnce)
	unpin(t, server, partition)
	accept(t, b, "r-2")
	if _, err := puller.Fetch(deadline(t, patience), 1); !errors.Is(err, bus.ErrUnpinned) || puller.Pin() != "" {
		t.Errorf("the pin is %q, error %v", puller.Pin(), err)
	}
	take(t, puller, 1, atOnce)
	if pin := pinOf(t, server, partition); pin == "" || puller.Pin() != pin {
		t.Errorf("the pin is %q, the puller has %q", pin, puller.Pin())
	}
}

// A puller that takes nothing keeps its pin for as long as it says so.
func TestPinIsKept(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{Lease: longLease})
	partition := partitionOf(t, b, "acme")
	puller := b.Requests(partition)
	t.Cleanup(puller.Close)
	puller.Keep() // of no pin is nothing
	accept(t, b, "r-1")
	take(t, puller, 1, atOnce)
	pin := puller.Pin()
	accept(t, b, "r-2")
	for range 12 { // half as long again as a pin lasts
		puller.Keep()
		time.Sleep(500 * time.Millisecond)
	}
	if now := pinOf(t, server, partition); pin == "" || now != pin {
		t.Errorf("the pin was %q and is %q", pin, now)
	}
	if d := take(t, puller, 1, atOnce)[0]; d.Delivered != 1 {
		t.Errorf("the request is delivered for the %d. time: keeping the pin took it", d.Delivered)
	}
}

// What a router that is gone had taken is there for the next at once, and what is held already does not come twice.
func TestAdopt(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{Lease: longLease})
	partition := partitionOf(t, b, "acme")
	dead, next := b.Requests(partition), b.Requests(partition)
	t.Cleanup(dead.Close)
	t.Cleanup(next.Close)
	for _, id := range []string{"r-1", "r-2", "r-3"} {
		accept(t, b, id)
	}
	take(t, dead, 3, atOnce)
	accept(t, b, "r-4")
	nothing(t, next, 300*time.Millisecond)
	if n, err := b.Adopt(t.Context(), partition, next.Pin(), 0); err != nil || n < 3 {
		t.Fatalf("%d requests were left, error %v, want 3 at least", n, err)
	}
	seen := map[uint64]bool{}
	for ctx := deadline(t, patience); len(seen) < 4; {
		batch, err := next.Fetch(ctx, 8)
		if err != nil {
			t.Fatalf("%d of 4 requests: %v", len(seen), err)
		}
		for _, d := range batch {
			seen[d.Sequence] = true
		}
	}
	for quiet := false; !quiet; { // what came between the end of the pin and the reset comes twice
		batch, err := next.Fetch(deadline(t, 300*time.Millisecond), 8)
		quiet = err != nil && len(batch) == 0
	}
	pin := pinOf(t, server, partition)
	if n, err := b.Adopt(t.Context(), partition, next.Pin(), 4); err != nil || n != 0 {
		t.Errorf("%d requests were left, error %v, want none", n, err)
	}
	nothing(t, next, 300*time.Millisecond)
	if now := pinOf(t, server, partition); pin == "" || now != pin {
		t.Errorf("the pin was %q and is %q", pin, now)
	}
	if _, err := dead.Fetch(deadline(t, patience), 1); !errors.Is(err, bus.ErrUnpinned) {
		t.Errorf("who was taken for dead fetches: %v, want that it is not served", err)
	}
	if _, err := b.Adopt(t.Context(), schemas.Partitions, "", 0); err == nil {
		t.Error("a partition that does not exist was adopted")
	}
}

func accept(t testing.TB, b *bus.Bus, id string) {
	t.Helper()
	if _, err := b.Accept(t.Context(), request(id)); err != nil {
		t.Fatal(err)
	}
}

// partitionOf finds the partition of a tenant by what the server makes of it.
func partitionOf(t testing.TB, b *bus.Bus, tenant string) int {
	t.Helper()
	accept(t, b, "probe-"+rand.Text())
	d := takeRequest(t, b, tenant)
	d.Settle(bus.Ack)
	for p := range schemas.Partitions {
		prefix := schemas.QueueFilter(p)
		if d.Subject[:len(prefix)-len("*.*")] == prefix[:len(prefix)-len("*.*")] {
			return p
		}
	}
	t.Fatalf("no partition has %s", d.Subject)
	return 0
}

func pinOf(t testing.TB, server *natsd.Server, partition int) string {
	t.Helper()
	_, js := raw(t, server)
	consumer, err := js.Consumer(t.Context(), schemas.StreamRequests, schemas.RouterConsumer(partition))
	if err != nil {
		t.Fatal(err)
	}
	for _, group := range consumer.CachedInfo().PriorityGroups {
		return group.PinnedClientID
	}
	return ""
}

func unpin(t testing.TB, server *natsd.Server, partition int) {
	t.Helper()
	_, js := raw(t, server)
	stream, err := js.Stream(t.Context(), schemas.StreamRequests)
	if err == nil {
		err = stream.UnpinConsumer(t.Context(), schemas.RouterConsumer(partition), schemas.RouterGroup)
	}
	if err != nil {
		t.Fatal(err)
	}
}

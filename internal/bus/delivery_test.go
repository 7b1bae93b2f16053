package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

// shortLease is short enough to wait for, and long enough to be extended by a machine that is busy.
const shortLease = 3 * time.Second

// leased is a bus with a lease, and a puller of a model for which n items are waiting.
func leased(t testing.TB, lease time.Duration, n int) (*bus.Bus, *bus.Puller) {
	t.Helper()
	b := bustest.Connect(t, bustest.Server(t), bus.Config{Lease: lease})
	dispatch(t, b, 0, n)
	puller := b.Work("echo")
	t.Cleanup(puller.Close)
	return b, puller
}

// dispatch makes work items with the numbers from first on.
func dispatch(t testing.TB, b *bus.Bus, first, n int) {
	t.Helper()
	if err := b.EnsureWorkConsumer(t.Context(), "echo"); err != nil {
		t.Fatal(err)
	}
	for i := range n {
		if _, err := b.Dispatch(t.Context(), work(itemID(first+i), []byte("{}"))); err != nil {
			t.Fatal(err)
		}
	}
}

func itemID(i int) string { return "item-" + string(rune('a'+i)) }

// take fetches n deliveries, however many fetches that needs.
func take(t testing.TB, p *bus.Puller, n int, within time.Duration) (all []*bus.Delivery) {
	t.Helper()
	ctx := deadline(t, within)
	for len(all) < n {
		batch, err := p.Fetch(ctx, n-len(all))
		if err != nil && !errors.Is(err, bus.ErrUnpinned) {
			t.Fatalf("%d of %d deliveries within %v: %v", len(all), n, within, err)
		}
		all = append(all, batch...)
	}
	return all
}

// nothing checks that no delivery comes for a while.
func nothing(t testing.TB, p *bus.Puller, wait time.Duration) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), wait)
	defer cancel()
	if batch, err := p.Fetch(ctx, 8); len(batch) > 0 || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("%d deliveries, error %v; want none", len(batch), err)
	}
}

func TestDeliverySaysWhatItIs(t *testing.T) {
	t.Parallel()
	began := time.Now().Add(-time.Second)
	b, puller := leased(t, longLease, 3)
	for i, d := range take(t, puller, 3, atOnce) {
		// The server counts a stored message for its consumers a little later than it stores it.
		if d.Delivered != 1 || d.Pending > uint64(2-i) || d.Time.Before(began) || d.Time.After(time.Now().Add(time.Second)) {
			t.Errorf("delivery %d: %+v", i, d)
		}
		if exists, err := b.WorkExists(t.Context(), d.Sequence); err != nil || !exists {
			t.Errorf("delivery %d is not item %d of %s: %v", i, d.Sequence, d.Stream, err)
		}
	}
}

func TestMetadataOfADelivery(t *testing.T) {
	t.Parallel()
	for _, reply := range []string{
		"$JS.ACK.LLM_WORK.worker.2.7.9.1700000000000000001.3",
		"$JS.ACK.domain.hash.LLM_WORK.worker.2.7.9.1700000000000000001.3.token",
	} {
		d, err := bus.ReadDelivery(&nats.Msg{Reply: reply})
		if err != nil {
			t.Errorf("%s: %v", reply, err)
			continue
		}
		if d.Stream != "LLM_WORK" || d.Delivered != 2 || d.Sequence != 7 || d.Order != 9 || d.Time.UnixNano() != 1700000000000000001 || d.Pending != 3 {
			t.Errorf("%s: %+v", reply, d)
		}
	}
	for _, reply := range []string{"", "reply", "$JS.ACK.LLM_WORK.worker.2.7.9.1700000000000000001", "$JS.ACK.LLM_WORK.worker.2.7.x.1700000000000000001.3"} {
		if d, err := bus.ReadDelivery(&nats.Msg{Reply: reply}); err == nil {
			t.Errorf("%q is taken for %+v", reply, d)
		}
	}
}

func TestSilentDeliveryComesBackAfterTheLease(t *testing.T) {
	t.Parallel()
	_, puller := leased(t, shortLease, 1)
	began := time.Now()
	first := take(t, puller, 1, atOnce)[0]
	first.Settle(bus.Silent)
	again := take(t, puller, 1, patience)[0]
	if again.Delivered != 2 || again.Sequence != first.Sequence || time.Since(began) < shortLease/2 {
		t.Errorf("delivery %d of item %d after %v", again.Delivered, again.Sequence, time.Since(began))
	}
}

func TestHoldKeepsTheLease(t *testing.T) {
	t.Parallel()
	_, puller := leased(t, shortLease, 1)
	release := take(t, puller, 1, atOnce)[0].Hold(t.Context())
	nothing(t, puller, 2*shortLease+shortLease/2)
	release()
	if again := take(t, puller, 1, patience)[0]; again.Delivered != 2 {
		t.Errorf("delivery %d after the release", again.Delivered)
	}
}

func TestHoldEndsWithItsContext(t *testing.T) {
	t.Parallel()
	_, puller := leased(t, shortLease, 1)
	ctx, cancel := context.WithCancel(t.Context())
	release := take(t, puller, 1, atOnce)[0].Hold(ctx)
	defer release()
	cancel()
	take(t, puller, 1, patience)
}

func TestNakBringsADeliveryBackAtOnce(t *testing.T) {
	t.Parallel()
	_, puller := leased(t, longLease, 1)
	take(t, puller, 1, atOnce)[0].Settle(bus.Nak)
	if again := take(t, puller, 1, atOnce)[0]; again.Delivered != 2 {
		t.Errorf("delivery %d", again.Delivered)
	}
}

func TestAckAndTermEndADelivery(t *testing.T) {
	t.Parallel()
	b, puller := leased(t, longLease, 2)
	batch := take(t, puller, 2, atOnce)
	for i, outcome := range []bus.Outcome{bus.Ack, bus.Term} {
		batch[i].Settle(outcome)
		eventually(t, "the item is gone", func() bool {
			exists, err := b.WorkExists(t.Context(), batch[i].Sequence)
			return err == nil && !exists
		})
		batch[i].Extend() // of a settled delivery: ignored
	}
	if err := b.ResetConsumers(t.Context()); err != nil {
		t.Fatal(err)
	}
	nothing(t, puller, 200*time.Millisecond)
}

func TestOnlyTheFirstSettlementCounts(t *testing.T) {
	t.Parallel()
	b, puller := leased(t, shortLease, 2)
	batch := take(t, puller, 2, atOnce)
	for i, outcomes := range [][]bus.Outcome{{bus.Nak, bus.Ack}, {bus.Silent, bus.Term}} {
		for _, outcome := range outcomes {
			batch[i].Settle(outcome)
		}
	}
	for range 2 {
		d := take(t, puller, 1, patience)[0]
		d.Settle(bus.Ack)
		d.Settle(bus.Nak)
		eventually(t, "the item is gone", func() bool {
			exists, err := b.WorkExists(t.Context(), d.Sequence)
			return err == nil && !exists
		})
	}
	if batch[0].Sequence == batch[1].Sequence {
		t.Error("one item twice")
	}
}

func TestResetMakesEverythingAvailableAtOnce(t *testing.T) {
	t.Parallel()
	b, puller := leased(t, longLease, 3)
	if err := b.PutResult(t.Context(), result("r-1", nil)); err != nil {
		t.Fatal(err)
	}
	sink := b.Results()
	t.Cleanup(sink.Close)
	take(t, puller, 3, atOnce)
	take(t, sink, 1, atOnce)
	if err := b.ResetConsumers(t.Context()); err != nil {
		t.Fatal(err)
	}
	seen := map[uint64]bool{}
	for _, d := range append(take(t, puller, 3, atOnce), take(t, sink, 1, atOnce)...) {
		seen[d.Sequence] = true
		d.Settle(bus.Ack)
	}
	if len(seen) != 3 { // the result has a sequence of its own stream, which is that of an item
		t.Errorf("sequences %v", seen)
	}
	if err := connect(t, bustest.Server(t), bus.Config{}).ResetConsumers(t.Context()); err == nil {
		t.Error("missing streams were reset")
	}
}

// An item is handed back in the name of its holder, whatever was delivered after it; one that is settled stays so.
func TestHandBack(t *testing.T) {
	t.Parallel()
	b, puller := leased(t, longLease, 3)
	first := take(t, puller, 3, atOnce)
	first[1].Settle(bus.Ack)
	dispatch(t, b, 3, 1)
	take(t, puller, 1, atOnce)
	eventually(t, "the item is settled", func() bool {
		exists, err := b.WorkExists(t.Context(), first[1].Sequence)
		return err == nil && !exists
	})
	other := b.Work("echo")
	t.Cleanup(other.Close)
	if err := b.HandBack(t.Context(), "echo", first[0].Sequence, first[1].Sequence); err != nil {
		t.Fatal(err)
	}
	if d := take(t, other, 1, patience)[0]; d.Sequence != first[0].Sequence || d.Delivered != 2 {
		t.Errorf("item %d for the %d. time", d.Sequence, d.Delivered)
	}
	nothing(t, other, 300*time.Millisecond)
	if id, err := b.WorkIdentity(t.Context(), first[0].Sequence); err != nil || first[0].Header[schemas.HeaderRequestID][0] != id.Request {
		t.Errorf("the item is of %v, error %v", id, err)
	}
	if _, err := b.WorkIdentity(t.Context(), first[1].Sequence); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("the request of an item that is gone: %v", err)
	}
	if err := b.HandBack(t.Context(), "no-such-model", 1); err == nil {
		t.Error("an item of a model without a consumer was handed back")
	}
}

package bus_test

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

var alice = schemas.Identity{Tenant: "acme", Request: "r-1"}

func start(writer string) *schemas.Frame {
	return &schemas.Frame{Kind: schemas.KindStart, Attempt: 1, Writer: writer, Start: &schemas.Start{Mode: schemas.ModeFresh, Work: 7, Dispatch: 1, Worker: "w"}, BodyHash: "h"}
}

func delta(writer string, index uint64, events string, count int) *schemas.Frame {
	return &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Writer: writer, Index: index, Count: count, Data: []byte(events)}
}

func end(writer string, index uint64) *schemas.Frame {
	return &schemas.Frame{Kind: schemas.KindEnd, Attempt: 1, Writer: writer, Index: index, Data: []byte(`{"status":"completed","attempts":1}`)}
}

// write appends frames one after the other and returns the last sequence.
func write(t *testing.T, b *bus.Bus, id schemas.Identity, expect uint64, frames ...*schemas.Frame) uint64 {
	t.Helper()
	for _, f := range frames {
		sequence, err := b.Append(t.Context(), id, expect, f)
		if err != nil {
			t.Fatal(err)
		}
		expect = sequence
	}
	return expect
}

func collect(t *testing.T, b *bus.Bus, id schemas.Identity, opt bus.ReadOptions) (events []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for f, err := range b.Read(ctx, id, opt) {
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range f.Events() {
			events = append(events, string(event))
		}
	}
	return events
}

func TestWriteAndReadBack(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	write(t, b, alice, 0, start("a"), delta("a", 0, "x\ny", 2), delta("a", 2, "z", 1), end("a", 3))
	for from, want := range []int{3, 2, 1, 0} {
		if got := collect(t, b, alice, bus.ReadOptions{From: uint64(from)}); len(got) != want {
			t.Errorf("from %d: got %q", from, got)
		}
	}
	chain, err := b.Chain(t.Context(), alice)
	if err != nil || chain.Terminal() == nil || chain.Next() != 3 || chain.Attempts() != 1 || chain.BodyHash() != "h" {
		t.Fatalf("chain %+v, error %v", chain, err)
	}
}

func TestSecondWriterIsFenced(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	sequence := write(t, b, alice, 0, start("a"))
	if _, err := b.Append(t.Context(), alice, 0, start("b")); !errors.Is(err, bus.ErrFenced) {
		t.Fatalf("a rival's start: %v", err)
	}
	// The same write again is recognised as the one that is committed.
	if again, err := b.Append(t.Context(), alice, 0, start("a")); err != nil || again != sequence {
		t.Fatalf("repeated write: sequence %d, error %v, want %d", again, err, sequence)
	}
}

func TestWorkIsDeliveredOnceAndComesBackAfterTheLease(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	if err := b.EnsureWorkConsumer(t.Context(), "echo"); err != nil {
		t.Fatal(err)
	}
	work := &schemas.Work{Request: schemas.Request{Identity: alice, ModelToken: "echo", Body: []byte("{}")}, Dispatch: 1, Accepted: time.Now()}
	for range 2 {
		if _, err := b.Dispatch(t.Context(), work); err != nil {
			t.Fatal(err)
		}
	}
	puller := b.Work("echo")
	defer puller.Close()
	began := time.Now()
	first, err := puller.Fetch(t.Context(), 4)
	if err != nil || len(first) != 1 {
		t.Fatalf("got %d deliveries, error %v", len(first), err)
	}
	if d := time.Since(began); d > 400*time.Millisecond {
		t.Errorf("delivery took %v", d)
	}
	second, err := puller.Fetch(t.Context(), 4)
	if err != nil || len(second) != 1 || second[0].Delivered != 2 || second[0].Sequence != first[0].Sequence {
		t.Fatalf("redelivery: %+v, error %v", second, err)
	}
	second[0].Settle(bus.Ack)
}

func TestRequestsArriveWithPartitionAndLargeBody(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	body := make([]byte, schemas.InlineBytes+1)
	accepted, err := b.Accept(t.Context(), &schemas.Request{Identity: alice, ModelToken: "echo", Body: body})
	if err != nil || accepted.Duplicate {
		t.Fatal(accepted, err)
	}
	if again, err := b.Accept(t.Context(), &schemas.Request{Identity: alice, ModelToken: "echo", Body: body}); err != nil || !again.Duplicate {
		t.Fatal(again, err)
	}
	got := make(chan *bus.Delivery, 1)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	for p := range schemas.Partitions {
		go func() {
			puller := b.Requests(p)
			defer puller.Close()
			if batch, err := puller.Fetch(ctx, 16); err == nil {
				got <- batch[0]
			}
		}()
	}
	d := <-got
	r, err := schemas.DecodeRequest(d.Subject, d.Sequence, d.Header, d.Data)
	if err != nil || r.Identity != alice || d.Sequence != accepted.Sequence {
		t.Fatalf("%+v %v", r, err)
	}
	if read, err := b.Body(ctx, r); err != nil || len(read) != len(body) {
		t.Fatalf("body of %d bytes, error %v", len(read), err)
	}
	d.Settle(bus.Ack)
}

func TestWorkThatWasThereBeforeItsConsumerIsDelivered(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	work := &schemas.Work{Request: schemas.Request{Identity: alice, ModelToken: "early", Body: []byte("{}")}, Dispatch: 1, Accepted: time.Now()}
	if _, err := b.Dispatch(t.Context(), work); err != nil {
		t.Fatal(err)
	}
	if err := b.EnsureWorkConsumer(t.Context(), "early"); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	puller := b.Work("early")
	defer puller.Close()
	batch, err := puller.Fetch(ctx, 4)
	if err != nil || len(batch) != 1 {
		t.Fatalf("got %d deliveries, error %v", len(batch), err)
	}
	batch[0].Settle(bus.Ack)
}

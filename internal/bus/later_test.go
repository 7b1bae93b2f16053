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

// What is held is due when its time has come and not before, once for each request, and nothing is left of it.
func TestHoldUntilDue(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b := bustest.Connect(t, server, bus.Config{})
	if any, err := b.AnyHeld(t.Context()); err != nil || any {
		t.Fatalf("something is held in a new store: %v, error %v", any, err)
	}
	told := make(chan struct{}, 8)
	stop, err := b.OnHeld(func(*schemas.RetryEvent) { told <- struct{}{} })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	b.Event(schemas.EventRetry, (&schemas.RetryEvent{V: 1, Tenant: "acme"}).Encode())
	<-told
	accepted := time.Now().Add(-time.Minute).Truncate(time.Millisecond)
	held := &schemas.Work{Request: *request("r-1"), Dispatch: 2, Cost: 17, Accepted: accepted}
	held.Op, held.Priority, held.Deadline = schemas.OpChat, schemas.PriorityBatch, accepted.Add(time.Hour)
	until := time.Now().Add(6 * time.Second)
	if err := b.Hold(t.Context(), held, time.Now().Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	held.Dispatch = 3
	if err := b.Hold(t.Context(), held, until); err != nil { // instead of the first
		t.Fatal(err)
	}
	late := *held
	late.Dispatch = 2
	if err := b.Hold(t.Context(), &late, time.Now().Add(time.Hour)); err != nil { // a second try of the first, whose answer was lost
		t.Fatal(err)
	}
	if any, err := b.AnyHeld(t.Context()); err != nil || !any {
		t.Errorf("nothing is held: error %v", err)
	}
	if got, err := b.Held(t.Context(), held.Identity); err != nil || got.Dispatch != 3 || got.ModelToken != held.ModelToken {
		t.Errorf("held: %+v, error %v", got, err)
	}
	if _, err := b.Held(t.Context(), schemas.Identity{Tenant: "acme", Request: "r-2"}); !errors.Is(err, bus.ErrNotFound) {
		t.Errorf("another request is held, or: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	puller := b.Due(schemas.PartitionOf("acme"))
	defer puller.Close()
	batch, err := puller.Fetch(ctx, 8)
	if err != nil || len(batch) != 1 {
		t.Fatalf("%d are due, error %v", len(batch), err)
	}
	d := batch[0]
	if d.Time.Before(until.Truncate(time.Millisecond)) {
		t.Errorf("due at %v, held until %v", d.Time, until)
	}
	token, ok := schemas.RetryModel(d.Subject)
	got, err := schemas.DecodeWork(token, d.Header, d.Data)
	if !ok || err != nil {
		t.Fatalf("an item on %s that cannot be read: %v", d.Subject, err)
	}
	if got.Identity != held.Identity || got.Dispatch != 3 || got.Cost != 17 || !got.Accepted.Equal(accepted) || !got.Deadline.Equal(held.Deadline) ||
		got.Priority != schemas.PriorityBatch || string(got.Body) != string(held.Body) {
		t.Errorf("due: %+v, held: %+v", got, held)
	}
	d.Settle(bus.Ack)
	b.Forget(d.Sequence)
	for deadline := time.Now().Add(patience); ; <-time.After(10 * time.Millisecond) {
		if any, err := b.AnyHeld(t.Context()); err == nil && !any {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("%d messages are left in %s", stored(t, server, schemas.StreamRetry), schemas.StreamRetry)
		}
	}
}

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

var cancelled = schemas.Errorf(schemas.CodeCancelled, "the request was cancelled")

// The owner that hears the hint ends the request itself, and the canceller writes nothing.
func TestCancelWithALiveOwner(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	b, owner := bustest.Connect(t, server, bus.Config{}), connect(t, server, bus.Config{})
	last := write(t, owner, alice, 0, start("a"), delta("a", 0, "x"))
	told := make(chan struct{})
	stop, err := owner.OnCancel(func(id schemas.Identity, _ schemas.CancelledBy) {
		defer close(told)
		if _, err := owner.Append(t.Context(), id, last, failure("a", 1, cancelled)); err != nil {
			t.Error(err)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	if err := b.CancelRequest(deadline(t, patience), alice, cancelled); err != nil {
		t.Fatal(err)
	}
	select { // what others see may be there before the owner knows that it is
	case <-told:
	case <-deadline(t, patience).Done():
		t.Fatal("the owner was not told")
	}
	if c := chain(t, b, alice); c.Terminal() == nil || c.Terminal().Writer != "a" || len(c.Frames) != 3 {
		t.Errorf("the chain ends with %+v", c.Last())
	}
}

// Whoever is down, the request ends: while it is queued, found but not claimed, or half answered.
func TestCancelWithoutAnOwner(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	found := &schemas.Frame{Kind: schemas.KindAccepted, Writer: "i", BodyHash: "h"}
	for name, frames := range map[string][]*schemas.Frame{
		"queued": nil, "found": {found}, "claimed": {found, start("a")}, "answering": {start("a"), delta("a", 0, "x", "y")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			id := schemas.Identity{Tenant: "acme", Request: name}
			last := write(t, b, id, 0, frames...)
			before := chain(t, b, id)
			began := time.Now()
			if err := b.CancelRequest(deadline(t, patience), id, cancelled); err != nil {
				t.Fatal(err)
			}
			if d := time.Since(began); d < 900*time.Millisecond {
				t.Errorf("the owner had %v to end it, want a second", d)
			}
			c := chain(t, b, id)
			end := c.Terminal()
			if end == nil || len(c.Frames) != len(frames)+1 || end.Index != before.Next() || end.Attempt != before.Attempts() {
				t.Fatalf("the chain ends with %+v", c.Last())
			}
			if e, err := schemas.DecodeError(end.Data); err != nil || e.Code != schemas.CodeCancelled {
				t.Errorf("%v, error %v", e, err)
			}
			if s, err := schemas.DecodeSummary(end.Summary); err != nil || s.Status != schemas.StatusCancelled || s.Attempts != before.Attempts() {
				t.Errorf("summary %+v, error %v", s, err)
			}
			// The owner that comes back is fenced.
			if _, err := b.Append(t.Context(), id, last, delta("a", before.Next(), "late")); !errors.Is(err, bus.ErrFenced) {
				t.Errorf("a late frame: %v, want ErrFenced", err)
			}
		})
	}
}

func TestCancelOfAnEndedRequest(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	ended := schemas.Identity{Tenant: "acme", Request: "ended"}
	write(t, b, ended, 0, start("a"), end("a", 0))
	kept := schemas.Identity{Tenant: "acme", Request: "kept"} // its chain has aged away
	putResults(t, b, kept.Request)
	for id, frames := range map[schemas.Identity]int{ended: 2, kept: 0} {
		least := time.Hour // of a few times: a busy machine may be late once, while who waits for an owner always is
		for range 10 {
			began := time.Now()
			if err := b.CancelRequest(deadline(t, patience), id, cancelled); err != nil {
				t.Errorf("%s: %v", id, err)
			}
			least = min(least, time.Since(began))
		}
		if least > 900*time.Millisecond {
			t.Errorf("%s: it took %v to see the end", id, least)
		}
		if n := len(chain(t, b, id).Frames); n != frames {
			t.Errorf("%s: %d frames, want %d", id, n, frames)
		}
	}
}

// An owner that does not listen but writes on loses a round sooner or later.
func TestCancelOfAWritingOwner(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	fenced := make(chan error, 1)
	last := write(t, b, alice, 0, start("a"))
	ctx := deadline(t, patience)
	go func() {
		tick := time.NewTicker(time.Millisecond) // a token each
		defer tick.Stop()
		for i := uint64(0); ; i++ {
			<-tick.C
			sequence, err := b.Append(ctx, alice, last, delta("a", i, "x"))
			if err != nil {
				fenced <- err
				return
			}
			last = sequence
		}
	}()
	if err := b.CancelRequest(ctx, alice, cancelled); err != nil {
		t.Fatal(err)
	}
	if err := <-fenced; !errors.Is(err, bus.ErrFenced) {
		t.Errorf("the owner's write: %v, want ErrFenced", err)
	}
	if c := chain(t, b, alice); c.Terminal() == nil || c.Terminal().Kind != schemas.KindError {
		t.Errorf("the chain ends with %+v", c.Last())
	}
}

func TestCancelEndsWithItsContext(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	reason := errors.New("the caller has gone")
	ctx, stop := context.WithCancelCause(t.Context())
	defer stop(nil)
	quit, err := b.OnCancel(func(schemas.Identity, schemas.CancelledBy) { stop(reason) })
	if err != nil {
		t.Fatal(err)
	}
	defer quit()
	if err := b.CancelRequest(ctx, alice, cancelled); !errors.Is(err, reason) {
		t.Errorf("%v, want the cause", err)
	}
	if n := len(chain(t, b, alice).Frames); n != 0 {
		t.Errorf("%d frames were written", n)
	}
}

package bus_test

import (
	"fmt"
	"testing"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

// long is a chain of more frames than are read at once.
func long(last *schemas.Frame) []*schemas.Frame {
	frames := []*schemas.Frame{start("a")}
	for i := range uint64(40) {
		frames = append(frames, delta("a", i, "x"))
	}
	last.Index = 40
	return append(frames, last)
}

// A chain that is erased while it is read is not taken for what was read of it.
func TestChainErasedWhileRead(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		frames []*schemas.Frame
		holds  string // what is asked for when it is erased
		left   int
	}{
		"completed":     {long(end("a", 0)), `{"seq":33,`, 0},
		"failed":        {long(failure("a", 0, schemas.Errorf(schemas.CodeInternal, "x"))), `{"seq":33,`, 1},
		"large payload": {[]*schemas.Frame{start("a"), delta("a", 0, string(large("x"))), end("a", 1)}, "DIRECT.GET.OBJ_", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, p, near := far(t, bus.Config{})
			write(t, near, alice, 0, c.frames...)
			if err := near.PutResult(t.Context(), result(alice.Request, nil)); err != nil {
				t.Fatal(err)
			}
			held := p.At(bustest.ToServer, c.holds, bustest.Hold)
			var got *bus.Chain
			var err error
			done := make(chan struct{})
			ctx := deadline(t, patience)
			go func() { defer close(done); got, err = b.Chain(ctx, alice) }()
			await(t, "the second read", held)
			if err := near.Erase(t.Context(), alice); err != nil {
				t.Fatal(err)
			}
			p.Set(bustest.ToServer, bustest.Pass)
			await(t, "the chain is read", done)
			if err != nil {
				t.Fatal(err)
			}
			if n := len(got.Frames); n != c.left {
				t.Errorf("%d frames, want %d", n, c.left)
			}
		})
	}
}

// A reader that comes too late learns it instead of waiting for ever.
func TestReaderOfWhatIsErased(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	write(t, b, alice, 0, start("a"), delta("a", 0, "x"), end("a", 1))
	if err := b.Erase(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	for _, opt := range []bus.ReadOptions{{}, {From: 1}, {Tail: true}} {
		_, err := drain(b.Read(deadline(t, atOnce), alice, opt), opt.From)
		wantCode(t, err, schemas.CodeStreamExpired)
	}
}

// So does one that has seen no event yet, whenever it was opened.
func TestErasedBeforeTheFirstEvent(t *testing.T) {
	t.Parallel()
	for _, fresh := range []bool{true, false} {
		t.Run(fmt.Sprint("fresh ", fresh), func(t *testing.T) {
			t.Parallel()
			server := bustest.Server(t)
			b := bustest.Connect(t, server, bus.Config{})
			reader, err := b.Open(t.Context(), alice, bus.ReadOptions{Fresh: fresh})
			if err != nil {
				t.Fatal(err)
			}
			defer reader.Close()
			write(t, b, alice, 0, start("a"))
			_, err = drain(func(yield func(*schemas.Frame, error) bool) {
				for f, err := range reader.Frames(deadline(t, atOnce)) {
					if err == nil {
						purge(t, server, alice, 0)
					}
					if !yield(f, err) {
						return
					}
				}
			}, 0)
			wantCode(t, err, schemas.CodeStreamExpired)
		})
	}
}

// A request that runs from beginning to end between two looks of a reader has a result, and its frames too.
func TestEndedWhileLookedFor(t *testing.T) {
	t.Parallel()
	b, p, near := far(t, bus.Config{})
	held := p.At(bustest.ToServer, "MSG.GET."+schemas.StreamResults, bustest.Hold)
	var events []string
	var err error
	done := make(chan struct{})
	ctx := deadline(t, patience)
	go func() { defer close(done); events, err = drain(b.Read(ctx, alice, bus.ReadOptions{}), 0) }()
	await(t, "it looks for the result", held)
	write(t, near, alice, 0, start("a"), delta("a", 0, "x"), end("a", 1))
	if err := near.PutResult(t.Context(), result(alice.Request, nil)); err != nil {
		t.Fatal(err)
	}
	p.Set(bustest.ToServer, bustest.Pass)
	await(t, "it ends", done)
	if err != nil || len(events) != 1 {
		t.Errorf("%q, error %v", events, err)
	}
}

// A cancel that is overtaken by an erasure leaves nothing behind.
func TestCancelOfWhatIsErased(t *testing.T) {
	t.Parallel()
	b, p, near := far(t, bus.Config{})
	held := p.At(bustest.ToServer, "MSG.GET."+schemas.StreamReplies, bustest.Hold)
	done := make(chan error, 1)
	ctx := deadline(t, patience)
	go func() { done <- b.CancelRequest(ctx, alice, schemas.Cancelled(schemas.CancelledByCaller)) }()
	await(t, "it looks for the end", held)
	write(t, near, alice, 0, start("a"), end("a", 0))
	if err := near.Erase(t.Context(), alice); err != nil {
		t.Fatal(err)
	}
	p.Set(bustest.ToServer, bustest.Pass)
	if err := <-done; err != nil {
		t.Error(err)
	}
	if n := len(chain(t, near, alice).Frames); n != 0 {
		t.Errorf("%d frames are left", n)
	}
}

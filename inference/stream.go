package inference

import (
	"context"
	"errors"
	"iter"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// lostError ends a stream whose write failed.
type lostError struct{ err error }

func (e *lostError) Error() string { return "write a frame: " + e.err.Error() }

// claim is a start frame that is being appended while the model call is already under way.
type claim struct {
	done chan struct{} // closed when err stands
	err  error
}

// wait blocks until the chain is claimed, or is not to be had.
func (c *claim) wait() error {
	<-c.done
	return c.err
}

// claim opens the attempt behind the chain. When the chain is not to be had, the model call is stopped.
func (r *run) claim(ctx context.Context, mode schemas.Mode, stop func()) *claim {
	frame := r.claimFrame(ctx, mode)
	c := &claim{done: make(chan struct{})}
	r.w.crew.do(func() {
		defer close(c.done)
		if c.err = r.write(ctx, frame); errors.Is(c.err, bus.ErrFenced) && r.behindAccepted(ctx) {
			c.err = r.write(ctx, frame)
		}
		if c.err != nil {
			stop()
		}
	})
	return c
}

func (r *run) claimFrame(ctx context.Context, mode schemas.Mode) *schemas.Frame {
	frame := &schemas.Frame{
		Kind: schemas.KindStart, Op: r.work.Op, Cache: r.work.Cache.Shown(), BodyHash: schemas.BodyHash(r.body), Trace: bus.TraceParent(ctx),
		Allowance: r.work.Allowance,
		Start:     &schemas.Start{Mode: mode, Work: r.d.Sequence, Redelivered: r.d.Delivered - 1, Dispatch: r.work.Dispatch, Worker: r.w.cfg.Name},
	}
	if r.work.Op == schemas.OpResponses {
		frame.Start.Accepted = r.work.Accepted // when the response was created
	}
	return frame
}

// behindAccepted reads the chain that a first delivery took for empty and reports whether it only says that the request
// was accepted. That is no claim, and the model call under way need not be made again for it.
func (r *run) behindAccepted(ctx context.Context) bool {
	if r.chain.Sequence() > 0 {
		return false
	}
	chain, err := r.w.bus.Chain(context.WithoutCancel(ctx), r.work.Identity)
	if err != nil || len(chain.Frames) != 1 || chain.Last().Kind != schemas.KindAccepted || r.reuses(chain.BodyHash()) {
		return false
	}
	r.chain.set(chain)
	return true
}

// stream writes what the model says until it ends. It reads on only when what it has read is committed, so that what
// arrives during a write leaves together in the next: at a slow pace each token goes at once, and the faster they come the
// less each costs. A unary answer is left to be committed with its end.
func (r *run) stream(ctx context.Context, events iter.Seq2[Event, error], said *answer, claim *claim) error {
	gathered := r.w.takeFrame()
	defer r.w.giveFrame(gathered)
	for event, err := range events {
		if err != nil {
			return r.flushed(ctx, gathered, claim, err)
		}
		said.note(event.Chunk)
		said.leftOut += event.LeftOut
		if said.bytes += int64(len(event.Data)); said.bytes > maxAnswer {
			return r.flushed(ctx, gathered, claim, errEndless)
		}
		switch {
		case len(event.Data) == 0:
			r.record.note(event.Running, gathered.count, false)
			if event.More {
				continue
			}
		case !r.request.Stream:
			said.response = append([]byte(nil), event.Data...)
			continue
		case !gathered.fits(event.Data):
			if err := r.flush(ctx, gathered, claim); err != nil {
				return err
			}
			fallthrough
		default:
			gathered.add(event.Data)
			r.record.note(event.Running, gathered.count, true)
		}
		if event.More {
			continue
		}
		if err := r.flush(ctx, gathered, claim); err != nil {
			return err
		}
	}
	if err := r.flush(ctx, gathered, claim); err != nil {
		return err
	}
	return nil
}

// maxAnswer is how many bytes of events one attempt may give: some hundred thousand tokens, beyond what any model says in one
// answer.
const maxAnswer = 128 << 20

// errEndless is shared and never changed.
var errEndless = schemas.Errorf(schemas.CodeUpstreamError, "the answer has more than %d MiB of events, so that the model seems not to stop; set max_tokens", maxAnswer>>20)

// flushed writes what came before an error, and returns the error.
func (r *run) flushed(ctx context.Context, gathered *frameData, claim *claim, failed error) error {
	if err := r.flush(ctx, gathered, claim); err != nil {
		return err
	}
	return failed
}

// flush commits the gathered events in one frame, once the chain is claimed.
func (r *run) flush(ctx context.Context, gathered *frameData, claim *claim) error {
	if gathered.count == 0 {
		return nil
	}
	if err := claim.wait(); err != nil {
		return &lostError{err}
	}
	frame := &gathered.frame
	*frame = schemas.Frame{Kind: schemas.KindDelta, Count: gathered.count, Data: gathered.data}
	r.record.put(frame)
	err := r.write(ctx, frame)
	switch {
	case err == nil:
	case r.relay != nil:
		err = r.relay.overtaken(ctx, err, frame)
	default:
		err = &lostError{err}
	}
	gathered.reset() // frame and buffer serve the next
	return err
}

// keepFrame is the largest buffer that is kept for the frames of another run.
const keepFrame = 64 << 10

func (w *Worker) takeFrame() *frameData {
	if f, ok := w.frames.Get().(*frameData); ok {
		return f
	}
	return &frameData{}
}

func (w *Worker) giveFrame(f *frameData) {
	if f.reset(); cap(f.data) <= keepFrame {
		w.frames.Put(f)
	}
}

// frameData gathers the events of a frame, newline-separated.
type frameData struct {
	frame schemas.Frame // that is written, while it is
	data  []byte
	count int
}

// fits reports whether the event goes into the same frame, which holds as much as a message may carry.
func (f *frameData) fits(event []byte) bool {
	return f.count == 0 || len(f.data)+1+len(event) <= schemas.InlineBytes
}

func (f *frameData) reset() { f.frame, f.data, f.count = schemas.Frame{}, f.data[:0], 0 }

func (f *frameData) add(event []byte) {
	if f.count > 0 {
		f.data = append(f.data, '\n')
	}
	f.data = append(f.data, event...)
	f.count++
}

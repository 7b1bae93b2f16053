package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/schemas"
)

const (
	// readerBuffer is how many live frames wait for a slow reader before it falls back to the stream.
	readerBuffer = 32
	// tailCheck is after how much silence a reader asks the stream whether it missed the last frames.
	tailCheck = 2 * time.Second
)

// ReadOptions say where a reader begins.
type ReadOptions struct {
	From  uint64 // index of the first event wanted
	Fresh bool   // the request is about to be accepted: there is nothing stored to read
	Tail  bool   // only what is committed from now on, and the terminal frame
}

// Reader yields the committed frames of one request. Any number of readers may read a request; none holds a writer up.
type Reader struct {
	bus  *Bus
	id   schemas.Identity
	opt  ReadOptions
	sub  *nats.Subscription
	live chan *nats.Msg

	last  uint64 // stream sequence of the last frame seen
	next  uint64 // index of the next event
	first bool   // the first stored frame has been checked against From
	tail  bool   // Tail is wanted, and where it begins is not yet known
}

// Open subscribes to a request; frames committed after Open returns are not missed. The caller must Close the reader.
func (b *Bus) Open(ctx context.Context, id schemas.Identity, opt ReadOptions) (*Reader, error) {
	if err := id.Validate(); err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	r := &Reader{bus: b, id: id, opt: opt, live: make(chan *nats.Msg, readerBuffer), first: opt.Fresh || opt.Tail, tail: opt.Tail}
	sub, err := b.control.ChanSubscribe(id.Replies(), r.live)
	if err != nil {
		return nil, fmt.Errorf("subscribe to %s: %w", id.Replies(), err)
	}
	r.sub = sub
	return r, nil
}

// Close ends the subscription. Frames must not be running.
func (r *Reader) Close() { _ = r.sub.Unsubscribe() }

// Read is Open, Frames and Close.
func (b *Bus) Read(ctx context.Context, id schemas.Identity, opt ReadOptions) iter.Seq2[*schemas.Frame, error] {
	return func(yield func(*schemas.Frame, error) bool) {
		reader, err := b.Open(ctx, id, opt)
		if err != nil {
			yield(nil, err)
			return
		}
		defer reader.Close()
		reader.Frames(ctx)(yield)
	}
}

// Frames yields the frames in the order of the stream, without a gap or a duplicate, and ends after the terminal frame.
// It waits for frames that are not yet written, also when there are none, unless the request has a result: then they are
// gone. An error is the last thing yielded: a [schemas.Error] with [schemas.CodeStreamExpired] when the events from From on
// are no longer in the log, or the cause of ctx. Frames may be called once; it is not safe for concurrent use.
func (r *Reader) Frames(ctx context.Context) iter.Seq2[*schemas.Frame, error] { return r.frames(ctx) }

func (r *Reader) frames(ctx context.Context) iter.Seq2[*schemas.Frame, error] {
	return func(yield func(*schemas.Frame, error) bool) {
		done := false
		emit := func(f *schemas.Frame, err error) bool {
			done = err != nil || f.Kind.Terminal()
			return yield(f, err) && !done
		}
		if !r.opt.Fresh && !r.catchUp(ctx, emit) {
			return
		}
		quiet := time.NewTimer(tailCheck)
		defer quiet.Stop()
		for {
			select {
			case <-ctx.Done():
				emit(nil, context.Cause(ctx))
				return
			case <-quiet.C:
				if !r.catchUp(ctx, emit) {
					return
				}
				quiet.Reset(tailCheck)
			case msg := <-r.live:
				if !r.receive(ctx, msg, emit) {
					return
				}
				quiet.Reset(tailCheck)
			}
		}
	}
}

type emit = func(*schemas.Frame, error) bool

// receive handles a live message. It returns false when the reader is done.
func (r *Reader) receive(ctx context.Context, msg *nats.Msg, emit emit) bool {
	// Anyone may publish on the subject; only the stream adds its name and sequence.
	sequence, err := strconv.ParseUint(header(msg.Header, schemas.HeaderNatsSequence), 10, 64)
	if err != nil || header(msg.Header, schemas.HeaderNatsStream) != schemas.StreamReplies || sequence <= r.last {
		return true
	}
	if r.tail {
		return r.catchUp(ctx, emit)
	}
	before, err := strconv.ParseUint(header(msg.Header, schemas.HeaderNatsLastSeq), 10, 64)
	if err != nil || before > r.last {
		r.bus.meters.gaps.Inc()
		return r.fill(ctx, sequence, emit)
	}
	f, err := schemas.DecodeFrame(msg.Header, msg.Data)
	if err != nil {
		r.bus.log.Error("a stored frame cannot be read", "request_id", r.id.Request, "sequence", sequence, "error", err)
		return emit(nil, err)
	}
	f.Sequence = sequence
	f.Time, _ = time.Parse(time.RFC3339Nano, header(msg.Header, schemas.HeaderNatsTime))
	return r.deliver(ctx, f, emit)
}

// catchUp reads what the stream holds beyond what was seen.
func (r *Reader) catchUp(ctx context.Context, emit emit) bool {
	last, err := r.lastFrame(ctx)
	switch {
	case errors.Is(err, errRemoved):
		return emit(nil, r.removed())
	case errors.Is(err, ErrNotFound):
		r.tail = false
		return true
	case errors.Is(err, ErrDamaged):
		return emit(nil, err)
	case ctx.Err() != nil:
		return emit(nil, context.Cause(ctx))
	case err != nil:
		return true // the server is away; the next silence asks again
	case r.tail && last.Kind.Terminal():
		return r.deliver(ctx, last, emit)
	case r.tail:
		r.tail, r.last, r.next = false, last.Sequence, last.Next()
		return true
	case last.Sequence <= r.last:
		return true
	}
	return r.fill(ctx, last.Sequence, emit)
}

// lastFrame is the last frame by the word of the leader: [ErrNotFound] while nothing was written, and errRemoved when it
// is no longer there.
func (r *Reader) lastFrame(ctx context.Context) (*schemas.Frame, error) {
	last, err := r.bus.lastFrame(ctx, r.id)
	if !errors.Is(err, ErrNotFound) || r.last == 0 && r.opt.Fresh {
		return last, err
	}
	if r.last == 0 {
		if _, missing := r.bus.getLast(ctx, schemas.StreamResults, r.id.Result()); missing != nil {
			return nil, err
		}
		// A record follows the frames, which may have been written since they were looked for.
		last, err = r.bus.lastFrame(ctx, r.id)
	}
	if errors.Is(err, ErrNotFound) {
		err = errRemoved
	}
	return last, err
}

// fill reads the frames up to sequence from the stream. A server that does not answer leaves the gap for the next try.
func (r *Reader) fill(ctx context.Context, sequence uint64, emit emit) bool {
	for f, err := range r.bus.storedFrames(ctx, r.id, r.last+1, sequence) {
		if err != nil {
			if ctx.Err() != nil {
				return emit(nil, context.Cause(ctx))
			}
			if errors.Is(err, ErrDamaged) {
				return emit(nil, err)
			}
			if errors.Is(err, errRemoved) {
				return true // the next silence tells what is left
			}
			r.bus.log.Warn("reading a stream back failed and is tried again", "request_id", r.id.Request, "error", err)
			return true
		}
		if !r.deliver(ctx, f, emit) {
			return false
		}
	}
	return true
}

// deliver yields a frame that follows the last one.
func (r *Reader) deliver(ctx context.Context, f *schemas.Frame, emit emit) bool {
	expected := max(r.next, r.opt.From)
	if !r.first && f.Index > r.opt.From || r.first && r.next > 0 && f.Index > r.next {
		return emit(nil, r.expired(f.Index))
	}
	r.first, r.last, r.next = true, f.Sequence, f.Next()
	if f.Count > 0 && f.Next() <= expected && !f.Kind.Terminal() {
		return true
	}
	if err := r.bus.resolveSurely(ctx, f); errors.Is(err, ErrNotFound) {
		return emit(nil, r.expired(f.Next()))
	} else if err != nil {
		return emit(nil, err)
	}
	f.From(expected)
	return emit(f, nil)
}

func (r *Reader) expired(index uint64) error {
	return schemas.Errorf(schemas.CodeStreamExpired, "the events of %s before index %d are no longer in the log; read its result instead", r.id.Request, index)
}

func (r *Reader) removed() error {
	return schemas.Errorf(schemas.CodeStreamExpired, "the events of %s are no longer in the log; read its result instead", r.id.Request)
}

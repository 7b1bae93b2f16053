package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"sync"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// trusted works on the bus itself, as the stages do.
type trusted struct{ bus *bus.Bus }

func newTrusted(ctx context.Context, cfg Config) (transport, error) {
	b, err := bus.Connect(ctx, bus.Config{
		URL: cfg.URL, Context: cfg.Context, InProcess: cfg.InProcess, Username: cfg.Username, Password: cfg.Password,
		CredsFile: cfg.CredsFile, CAFile: cfg.CAFile, CertFile: cfg.CertFile, KeyFile: cfg.KeyFile,
		Name: cfg.Name, Logger: cfg.Logger, TracerProvider: cfg.TracerProvider,
	})
	if err != nil {
		return nil, err
	}
	return &trusted{bus: b}, nil
}

func (t *trusted) close() error { return t.bus.Close() }

func (t *trusted) stream(ctx context.Context, r *outgoing) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		if r.chosen {
			there, err := t.join(ctx, r)
			if err != nil {
				yield(Event{}, err)
				return
			}
			if there.ended() {
				t.replay(ctx, r.Identity, 0)(yield)
				return
			}
		}
		// The reader is in place before the request is, so that it misses nothing.
		reader, err := t.bus.Open(ctx, r.Identity, bus.ReadOptions{Fresh: !r.chosen})
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer reader.Close()
		if _, err := t.accept(ctx, r, r.chosen); err != nil {
			yield(Event{}, err)
			return
		}
		if r.chosen { // it may have been sent before, by a caller who has left
			_ = t.bus.Attach(r.Identity)
		}
		defer t.attend(r.Identity)()
		events(r.Identity, r.own(reader.Frames(ctx)))(yield)
	}
}

func (t *trusted) resume(ctx context.Context, id schemas.Identity, from uint64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		_, err := t.lookUp(ctx, id)
		switch {
		case err == nil:
			t.replay(ctx, id, from)(yield)
		case errors.Is(err, bus.ErrNotFound):
			_ = t.bus.Attach(id) // a hint: a lost one is followed by the next
			defer t.attend(id)()
			events(id, t.bus.Read(ctx, id, bus.ReadOptions{From: from}))(yield)
		default:
			yield(Event{}, err)
		}
	}
}

// attendInterval is how often a reader says that it reads, well within the five minutes after which a door cancels a
// request that somebody else had been reading too.
const attendInterval = time.Minute

// attend says now and then that the request is read here, until release is called.
func (t *trusted) attend(id schemas.Identity) (release func()) {
	done := make(chan struct{})
	var attending sync.WaitGroup
	attending.Go(func() {
		ticker := time.NewTicker(attendInterval)
		defer ticker.Stop()
		for {
			select {
			case <-done:
				return
			case <-ticker.C:
				_ = t.bus.Attach(id)
			}
		}
	})
	return func() { close(done); attending.Wait() }
}

// replay yields the events of a request that has ended: byte for byte from the log while it has them, and from the
// result afterwards.
func (t *trusted) replay(ctx context.Context, id schemas.Identity, from uint64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		chain, err := t.chain(ctx, id)
		if err != nil {
			yield(Event{}, err)
			return
		}
		if chain.Terminal() != nil && chain.Frames[0].Index <= from {
			events(id, after(from, all(chain.Frames)))(yield)
			return
		}
		r, err := t.lookUp(ctx, id)
		if err != nil {
			yield(Event{}, err)
			return
		}
		events(id, after(from, recorded(r)))(yield)
	}
}

func (t *trusted) result(ctx context.Context, id schemas.Identity) (*schemas.Result, error) {
	r, err := t.lookUp(ctx, id)
	if errors.Is(err, bus.ErrNotFound) {
		return nil, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	return r, err
}

// lookUp is the result of a request, or [bus.ErrNotFound].
func (t *trusted) lookUp(ctx context.Context, id schemas.Identity) (*schemas.Result, error) {
	return patiently(ctx, func() (*schemas.Result, error) { return t.bus.Result(ctx, id) })
}

func (t *trusted) chain(ctx context.Context, id schemas.Identity) (*bus.Chain, error) {
	return patiently(ctx, func() (*bus.Chain, error) { return t.bus.Chain(ctx, id) })
}

// patiently repeats a look-up that the server does not answer, as while it elects a leader, until ctx ends. Each takes seconds
// to give up.
func patiently[T any](ctx context.Context, look func() (T, error)) (T, error) {
	for {
		found, err := look()
		if !errors.Is(err, context.DeadlineExceeded) || ctx.Err() != nil {
			return found, err
		}
	}
}

func (t *trusted) await(ctx context.Context, id schemas.Identity) error {
	for _, err := range t.bus.Read(ctx, id, bus.ReadOptions{Tail: true}) {
		if e, ok := errors.AsType[*schemas.Error](err); ok && e.Code == schemas.CodeStreamExpired {
			return nil // it was deleted meanwhile, as its result says
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (t *trusted) cancel(ctx context.Context, id schemas.Identity) error {
	return t.bus.CancelRequest(ctx, id, schemas.Cancelled(schemas.CancelledByCaller))
}

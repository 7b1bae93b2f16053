package client

import (
	"context"
	"errors"
	"iter"
	"slices"
	"sync"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/eventlog"
	"github.com/weir-llm/weir/schemas"
)

// Event is one piece of an answer: a chat.completion.chunk as the model sent it, byte for byte, or the whole response when
// the body does not ask for a stream.
type Event struct {
	Cursor schemas.Cursor // its place; to go on after it, resume from Cursor.Index+1
	Data   []byte
}

// Stream sends a request and yields its events as they are committed. It ends after the last one, or with one error: the
// answer could not be finished, the request was refused, or ctx ended. Leaving early or ending ctx does not cancel the
// request: use [Client.Cancel] or go on with [Client.Resume]. A request with an ID that was sent before is not run again;
// its events are yielded from the first.
func (c *Client) Stream(ctx context.Context, request Request) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		r, chosen, err := request.prepare()
		if err != nil {
			yield(Event{}, err)
			return
		}
		if chosen {
			ended, err := c.known(ctx, r)
			if err != nil {
				yield(Event{}, err)
				return
			}
			if ended {
				c.ended(ctx, r.Identity, 0)(yield)
				return
			}
		}
		// The reader is in place before the request is, so that it misses nothing.
		reader, err := c.bus.Open(ctx, r.Identity, bus.ReadOptions{Fresh: !chosen})
		if err != nil {
			yield(Event{}, err)
			return
		}
		defer reader.Close()
		if err := c.accept(ctx, r, chosen); err != nil {
			yield(Event{}, err)
			return
		}
		defer c.attend(r.Identity)()
		events(r.Identity, reader.Frames(ctx))(yield)
	}
}

// Resume yields the events of a request that was sent before, from the index from on, and goes on with those to come. It
// ends as Stream does. It waits for a request that has not begun, also for one that was never sent, so give ctx an end.
func (c *Client) Resume(ctx context.Context, tenant, id string, from uint64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		identity, err := identity(tenant, id)
		if err != nil {
			yield(Event{}, err)
			return
		}
		_, err = c.bus.Result(ctx, identity)
		switch {
		case err == nil:
			c.ended(ctx, identity, from)(yield)
		case errors.Is(err, bus.ErrNotFound):
			_ = c.bus.Attach(identity)
			defer c.attend(identity)()
			events(identity, c.bus.Read(ctx, identity, bus.ReadOptions{From: from}))(yield)
		default:
			yield(Event{}, err)
		}
	}
}

// attendInterval is how often a reader says that it reads, well within the five minutes after which a door cancels a
// request that somebody else had been reading too.
const attendInterval = time.Minute

// attend says now and then that the request is read here, until release is called.
func (c *Client) attend(id schemas.Identity) (release func()) {
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
				_ = c.bus.Attach(id) // a hint: a lost one is followed by the next
			}
		}
	})
	return func() { close(done); attending.Wait() }
}

// events takes the events out of frames and turns the terminal frame into the end of the sequence.
func events(id schemas.Identity, frames iter.Seq2[*schemas.Frame, error]) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		for f, err := range frames {
			if err != nil {
				yield(Event{}, err)
				return
			}
			for index, data := range f.Events() {
				if !yield(Event{Cursor: schemas.Cursor{Request: id.Request, Index: index}, Data: data}, nil) {
					return
				}
			}
			if f.Kind == schemas.KindError {
				yield(Event{}, decodeError(f.Data))
				return
			}
		}
	}
}

// ended yields the events of a request that has a result: byte for byte from the log while it has them, and from the
// result afterwards.
func (c *Client) ended(ctx context.Context, id schemas.Identity, from uint64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		chain, err := c.bus.Chain(ctx, id)
		if err != nil {
			yield(Event{}, err)
			return
		}
		if chain.Terminal() != nil && chain.Frames[0].Index <= from {
			events(id, after(from, all(chain.Frames)))(yield)
			return
		}
		r, err := c.bus.Result(ctx, id)
		if err != nil {
			yield(Event{}, err)
			return
		}
		events(id, after(from, recorded(r)))(yield)
	}
}

// recorded yields what the result keeps as frames, the terminal one included.
func recorded(r *schemas.Result) iter.Seq2[*schemas.Frame, error] {
	return func(yield func(*schemas.Frame, error) bool) {
		if r.Status == schemas.StatusDeleted {
			yield(nil, schemas.Errorf(schemas.CodeNotFound, "the request %q was deleted", r.RequestID))
			return
		}
		var index uint64
		for f, err := range eventlog.Frames(r.Events, r.Accepted) {
			if !yield(f, err) || err != nil {
				return
			}
			index = f.Next()
		}
		switch {
		case len(r.Error) > 0:
			yield(&schemas.Frame{Kind: schemas.KindError, Index: index, Data: r.Error}, nil)
		case r.Events == nil && len(r.Response) > 0:
			yield(&schemas.Frame{Kind: schemas.KindEnd, Index: index, Count: 1, Data: r.Response}, nil)
		}
	}
}

func all(frames []*schemas.Frame) iter.Seq2[*schemas.Frame, error] {
	return func(yield func(*schemas.Frame, error) bool) {
		for f := range slices.Values(frames) {
			if !yield(f, nil) {
				return
			}
		}
	}
}

// after leaves out the events before index from.
func after(from uint64, frames iter.Seq2[*schemas.Frame, error]) iter.Seq2[*schemas.Frame, error] {
	return func(yield func(*schemas.Frame, error) bool) {
		for f, err := range frames {
			if err == nil {
				f.From(from)
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

func decodeError(data []byte) error {
	e, err := schemas.DecodeError(data)
	if err != nil {
		return schemas.AsError(err)
	}
	return e
}

func identity(tenant, id string) (schemas.Identity, error) {
	if tenant == "" {
		tenant = DefaultTenant
	}
	identity := schemas.Identity{Tenant: tenant, Request: id}
	return identity, identity.Validate()
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"iter"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/eventlog"
	"github.com/weir-llm/weir/schemas"
	"github.com/weir-llm/weir/sink"
	"github.com/weir-llm/weir/sink/sqlite"
)

// history is everything that is known of what happened: the log on the bus and the database. Either may be missing.
type history struct {
	bus   *bus.Bus
	store *sqlite.Store
}

func (c *cli) openHistory(ctx context.Context, cfg *Config) (*history, error) {
	h := &history{}
	var busErr, storeErr error
	h.bus, busErr = c.log(ctx, cfg, "replay")
	h.store, storeErr = sqlite.Open(ctx, sqlite.Config{Path: cfg.Sink.Path, ReadOnly: true})
	if busErr != nil && storeErr != nil {
		return nil, fmt.Errorf("neither the log nor the database can be read: %w; name them with --nats and --data-dir", errors.Join(busErr, storeErr))
	}
	if busErr != nil {
		h.bus = nil
		fmt.Fprintf(c.stderr, "reading the database alone: %v\n", busErr)
	}
	if storeErr != nil {
		h.store = nil
		if !errors.Is(storeErr, fs.ErrNotExist) {
			fmt.Fprintf(c.stderr, "reading the log alone: %v\n", storeErr)
		}
	}
	return h, nil
}

func (h *history) close() {
	if h.bus != nil {
		_ = h.bus.Close() // nothing was written
	}
	if h.store != nil {
		_ = h.store.Close()
	}
}

// story is what is known of one request.
type story struct {
	id     schemas.Identity
	result *schemas.Result // nil while it runs
	chain  *bus.Chain      // nil when the log no longer has the frames
}

// story finds a request. known is its result when the caller has it already.
func (h *history) story(ctx context.Context, id schemas.Identity, known *schemas.Result) (*story, error) {
	s := &story{id: id, result: known}
	if h.bus != nil {
		if err := h.readLog(ctx, s); err != nil {
			return nil, err
		}
	}
	if s.result == nil && h.store != nil {
		result, err := h.store.Get(ctx, id)
		if err != nil && !errors.Is(err, sink.ErrNotFound) {
			return nil, err
		}
		s.result = result
	}
	if s.result == nil && s.chain == nil {
		return nil, fmt.Errorf("%s is not known: it was not accepted yet, the tenant is another (--tenant), or it is in another database (--data-dir)", id)
	}
	return s, nil
}

func (h *history) readLog(ctx context.Context, s *story) error {
	chain, err := h.bus.Chain(ctx, s.id)
	if err != nil {
		return err
	}
	// A chain without its beginning has lost frames to age; one without events has been erased.
	if len(chain.Frames) > 0 && chain.Frames[0].Index == 0 {
		s.chain = chain
	}
	if s.result == nil {
		result, err := h.bus.Result(ctx, s.id)
		if err != nil && !errors.Is(err, bus.ErrNotFound) {
			return err
		}
		s.result = result
	}
	return nil
}

// since calls show for each request accepted since a time: those of the database, then those that it does not have yet.
// It returns how many there were.
func (h *history) since(ctx context.Context, tenant string, from time.Time, show func(*story) error) (shown int, err error) {
	seen := map[schemas.Identity]bool{}
	for result, err := range h.results(ctx, tenant, from) {
		if err != nil {
			return shown, stopped(ctx, err)
		}
		id := result.Identity()
		if seen[id] || result.Accepted.Before(from) {
			continue
		}
		seen[id] = true
		s, err := h.story(ctx, id, result)
		if err != nil {
			return shown, err
		}
		if err := show(s); err != nil {
			return shown, err
		}
		shown++
		if ctx.Err() != nil {
			return shown, nil
		}
	}
	return shown, nil
}

func (h *history) results(ctx context.Context, tenant string, from time.Time) iter.Seq2[*schemas.Result, error] {
	return func(yield func(*schemas.Result, error) bool) {
		if h.store != nil {
			for r, err := range h.store.List(ctx, sink.Query{Tenant: tenant, Since: from, Payload: true}) {
				if !yield(r, err) {
					return
				}
			}
		}
		if h.bus != nil {
			h.bus.TailResults(ctx, tenant, from, false)(yield)
		}
	}
}

// begin is when the request was accepted, or the first that is known of it.
func (s *story) begin() time.Time {
	if s.result != nil && !s.result.Accepted.IsZero() {
		return s.result.Accepted
	}
	if s.chain != nil {
		return s.chain.Frames[0].Time
	}
	return time.Time{}
}

// source says how exact the story is.
func (s *story) source() string {
	if s.chain != nil {
		return sourceFrames
	}
	return sourceEvents
}

const (
	sourceFrames = "frames" // as committed
	sourceEvents = "events" // events, their grouping and times; without writers and sequences
)

// frames yields what was committed, in order.
func (s *story) frames() iter.Seq2[*schemas.Frame, error] {
	return func(yield func(*schemas.Frame, error) bool) {
		if s.chain != nil {
			for _, f := range s.chain.Frames {
				if !yield(f, nil) {
					return
				}
			}
			return
		}
		var next uint64
		for f, err := range eventlog.Frames(s.result.Events, s.result.Accepted) {
			if !yield(f, err) || err != nil {
				return
			}
			next = f.Next()
		}
		yield(ending(s.result, next), nil)
	}
}

// ending is the terminal frame that a result stands for.
func ending(r *schemas.Result, next uint64) *schemas.Frame {
	summary := (&schemas.Summary{
		Status: r.Status, FinishReasons: r.FinishReasons, Usage: r.Usage, Cost: r.Cost, Attempts: r.Attempts, FirstTokenMS: r.FirstTokenMS,
		DurationMS: r.DurationMS, Tries: r.Tries,
	}).Encode()
	f := &schemas.Frame{Kind: schemas.KindEnd, Attempt: r.Attempts, Index: next, Time: r.Finished, Data: summary}
	switch {
	case r.Status != schemas.StatusCompleted:
		f.Kind, f.Data, f.Summary = schemas.KindError, r.Error, summary
	case next == 0 && len(r.Response) > 0: // a unary answer is one event
		f.Count, f.Data, f.Summary = 1, r.Response, summary
	}
	return f
}

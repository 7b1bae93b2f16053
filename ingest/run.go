package ingest

import (
	"context"
	"errors"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/eventlog"
	"github.com/weir-llm/weir/schemas"
)

// run is what the bus holds of a request: its chain while that is kept, and its result where the chain does not tell
// everything any more. Both are empty when the tenant has no such request.
type run struct {
	chain  *bus.Chain
	result *schemas.Result // nil while the chain is enough
}

// find looks a request up. It takes the same path for an id that never was and for one of another tenant.
func (s *Ingest) find(ctx context.Context, id identity) (run, error) {
	chain, err := s.cfg.Bus.Chain(ctx, id)
	if err != nil {
		return run{}, unreachable(err)
	}
	there := run{chain: chain}
	if there.fromTheStart() {
		return there, nil
	}
	there.result, err = s.cfg.Bus.Result(ctx, id)
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return run{}, unreachable(err)
	}
	return there, nil
}

func unreachable(err error) error {
	if _, ok := errors.AsType[*schemas.Error](err); ok {
		return err
	}
	return schemas.Errorf(schemas.CodeUnavailable, "the request cannot be reached now. Please try again in 1s.").WithCause(err)
}

// fromTheStart reports whether the chain still has its beginning. What is left of an erased or an old one does not.
func (r run) fromTheStart() bool {
	if len(r.chain.Frames) == 0 {
		return false
	}
	first := r.chain.Frames[0]
	return first.Index == 0 && (first.Kind == schemas.KindAccepted || first.Kind == schemas.KindStart || first.Kind == schemas.KindEnd && first.BodyHash != "")
}

func (r run) exists() bool { return len(r.chain.Frames) > 0 || r.result != nil }

func (r run) ended() bool { return r.chain.Terminal() != nil || r.result != nil }

func (r run) deleted() bool { return r.result != nil && r.result.Status == schemas.StatusDeleted }

// status is how the request ended, or how far it is.
func (r run) status() schemas.Status {
	terminal := r.chain.Terminal()
	switch {
	case r.result != nil:
		return r.result.Status
	case terminal == nil && r.chain.Start() == nil:
		return statusQueued
	case terminal == nil:
		return statusRunning
	case terminal.Kind == schemas.KindEnd:
		return schemas.StatusCompleted
	}
	return schemas.StatusOf(failureOf(terminal))
}

func (r run) bodyHash() string {
	if hash := r.chain.BodyHash(); hash != "" || r.result == nil {
		return hash
	}
	return r.result.BodyHash
}

// op is what the request asks for, as far as is known.
func (r run) op() schemas.Op {
	if r.result != nil && r.result.Op != "" {
		return r.result.Op
	}
	return r.chain.Op()
}

// opOf is what a frame that is no delta says its request asks for.
func opOf(f *schemas.Frame) schemas.Op {
	if f.Op == "" {
		return schemas.OpChat
	}
	return f.Op
}

// events is the number of events so far.
func (r run) events() uint64 {
	switch {
	case len(r.chain.Frames) > 0:
		return r.chain.Next()
	case r.result == nil:
		return 0
	case r.result.Events != nil:
		return uint64(r.result.Events.Count)
	case r.result.Response != nil:
		return 1
	}
	return 0
}

// freed is the failure of a run that ended before its first event in a way that may pass, or nil.
func (r run) freed() *schemas.Error {
	if r.events() > 0 {
		return nil
	}
	var failure *schemas.Error
	if terminal := r.chain.Terminal(); terminal != nil && terminal.Kind == schemas.KindError {
		failure = failureOf(terminal)
	}
	if r.result != nil {
		failure = recordedFailure(r.result)
	}
	if failure == nil || !failure.Retryable() {
		return nil
	}
	return failure
}

// recordedFailure is the error that a result holds, or nil.
func recordedFailure(r *schemas.Result) *schemas.Error {
	if len(r.Error) == 0 {
		return nil
	}
	return failureOf(&schemas.Frame{Data: r.Error})
}

// replay gives the frames of a request that has ended, from an event on: as they were committed while the chain has
// them, and event by event after that.
func (r run) replay(from uint64) frames {
	switch {
	case r.deleted():
		return failed(schemas.Deleted())
	case len(r.chain.Frames) > 0 && r.chain.Frames[0].Index <= from:
		return cut(chainFrames(r.chain), from)
	case r.result != nil:
		return cut(resultFrames(r.result), from)
	}
	return failed(schemas.Errorf(schemas.CodeStreamExpired, "the events from %d on are no longer kept: read the result instead", from))
}

func chainFrames(chain *bus.Chain) frames {
	return func(yield func(*schemas.Frame, error) bool) {
		for _, f := range chain.Frames {
			if !yield(f, nil) {
				return
			}
		}
	}
}

// resultFrames are the frames that a result stands for.
func resultFrames(r *schemas.Result) frames {
	return func(yield func(*schemas.Frame, error) bool) {
		first := &schemas.Frame{Kind: schemas.KindAccepted, Time: r.Created}
		if first.Time.IsZero() {
			first.Time = r.Accepted
		}
		if !yield(first, nil) {
			return
		}
		last := &schemas.Frame{Kind: schemas.KindEnd}
		for f, err := range eventlog.Frames(r.Events, r.Accepted) {
			if errors.Is(err, eventlog.ErrNotKept) {
				err = schemas.Errorf(schemas.CodeStreamExpired, "the events were too large to be kept: read the result instead")
			}
			if !yield(f, err) || err != nil {
				return
			}
			last.Index = f.Next()
		}
		switch {
		case r.Status != schemas.StatusCompleted:
			last.Kind, last.Data = schemas.KindError, r.Error
		case r.Events == nil && r.Response != nil:
			last.Count, last.Data = 1, r.Response
		}
		yield(last, nil)
	}
}

func failed(err error) frames {
	return func(yield func(*schemas.Frame, error) bool) { yield(nil, err) }
}

// cut leaves out the events before an index.
func cut(all frames, from uint64) frames {
	return func(yield func(*schemas.Frame, error) bool) {
		for f, err := range all {
			if err == nil {
				f.From(from)
			}
			if !yield(f, err) {
				return
			}
		}
	}
}

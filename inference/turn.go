package inference

import (
	"context"
	"errors"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// maxAttempts is how many workers a request may take down with it.
const maxAttempts = 3

// watchTime is how long a successor watches a chain that it could only end with an error.
const watchTime = 2 * time.Second

// whoseTurn reads the chain of an item that may not be the first of its request and decides whether this item goes on
// with it; if not, the outcome says what becomes of the item.
func (r *run) whoseTurn(ctx context.Context) (mine bool, outcome bus.Outcome) {
	for range maxRounds {
		chain, err := r.w.bus.Chain(ctx, r.work.Identity)
		if err != nil {
			return false, r.puzzled(ctx, "reading the chain", err)
		}
		if r.reuses(chain.BodyHash()) {
			return false, r.bury(ctx)
		}
		r.chain.set(chain)
		if chain.Terminal() != nil {
			return false, r.conclude(ctx)
		}
		start := chain.Start()
		if start == nil {
			return r.unlessFinished(ctx)
		}
		if r.superseded() {
			return false, r.lost(ctx, bus.ErrFenced)
		}
		if start.Start.Work == r.d.Sequence || start.Start.Leader != "" { // a router has given the request up to this item
			return r.takeOver(ctx)
		}
		exists, err := r.w.bus.WorkExists(ctx, start.Start.Work)
		switch {
		case err != nil:
			return false, r.puzzled(ctx, "looking up the other item", err)
		case exists && start.Start.Mode == schemas.ModeInherit:
			return false, bus.Silent // another's item, which nobody would run for this request if its worker were lost
		case exists && start.Start.Dispatch < r.work.Dispatch:
			return false, bus.Silent // who has it may have put the request off, and be about to acknowledge it for this one
		case exists:
			return false, bus.Ack // the other item has it, and this one is a duplicate
		}
		// The other item is gone: it was finished after the chain was read, or put off, or it is lost.
		again, err := r.w.bus.Chain(ctx, r.work.Identity)
		if err != nil {
			return false, r.puzzled(ctx, "reading the chain", err)
		}
		if again.Sequence() == chain.Sequence() {
			return r.takeOver(ctx)
		}
	}
	return false, bus.Silent
}

// superseded reports whether a later delivery of the item has claimed the chain, since this one was not heard of for its lease
// or was given back.
func (r *run) superseded() bool {
	start := r.chain.whole().Start()
	return start != nil && start.Start.Work == r.d.Sequence && start.Start.Redelivered >= r.d.Delivered
}

// unlessFinished lets an item without a claimed chain run, unless retention has emptied the chain of a finished request.
func (r *run) unlessFinished(ctx context.Context) (bool, bus.Outcome) {
	result, err := r.w.bus.Result(ctx, r.work.Identity)
	if errors.Is(err, bus.ErrNotFound) {
		return true, bus.Silent
	}
	if err != nil {
		return false, r.puzzled(ctx, "looking up the result", err)
	}
	if r.reuses(result.BodyHash) {
		return false, r.bury(ctx)
	}
	return false, bus.Ack
}

// reuses reports whether the id was used before, for a request with another body.
func (r *run) reuses(hash string) bool {
	return hash != "" && r.body != nil && hash != schemas.BodyHash(r.body)
}

// bury keeps a second request under a used id in the DLQ. The chain is that of the first, which nobody asked to end.
func (r *run) bury(ctx context.Context) bus.Outcome {
	reason := schemas.ReusedID(r.work.Request.Request).Error()
	if err := r.w.bus.DeadLetter(context.WithoutCancel(ctx), r.work.Identity, r.m.token, reason, r.d.Header, r.d.Data); err != nil {
		return r.puzzled(ctx, "moving a request under a used id to the DLQ", err)
	}
	return bus.Ack
}

// takeOver lets the item go on with an attempt that looks dead. When going on would end the answer with an error, the
// chain is watched first: a worker that is only slow must not be cut off.
func (r *run) takeOver(ctx context.Context) (bool, bus.Outcome) {
	plan := r.plan()
	if plan.refuse == nil {
		return true, bus.Silent
	}
	timer := time.NewTimer(min(watchTime, r.w.bus.Lease()))
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false, bus.Nak
	case <-timer.C:
	}
	chain, err := r.w.bus.Chain(ctx, r.work.Identity)
	if err != nil {
		return false, r.puzzled(ctx, "reading the chain", err)
	}
	grown := chain.Sequence() != r.chain.Sequence()
	r.chain.set(chain)
	if terminal := chain.Terminal(); terminal != nil && terminal.Heir == "" {
		return false, r.conclude(ctx)
	}
	return !grown, bus.Silent
}

// conclude makes sure of the result of a finished chain, and of the DLQ record that whoever ended it may not have got to.
func (r *run) conclude(ctx context.Context) bus.Outcome {
	terminal := r.chain.whole().Terminal()
	if terminal.Heir != "" && (r.writer != "" || r.superseded()) { // who took the chain from this run holds the item, for the heir
		return bus.Silent
	}
	if terminal.Kind == schemas.KindError {
		e, err := schemas.DecodeError(terminal.Data)
		if err == nil && (e.Code == schemas.CodePoison || r.refused != nil && r.refused.Code == e.Code) {
			r.dead = e.Error()
		}
	}
	return r.keep(ctx)
}

// puzzled leaves the item to its lease when the bus does not answer, and to another worker when this one stops.
func (r *run) puzzled(ctx context.Context, what string, err error) bus.Outcome {
	if ctx.Err() != nil {
		return bus.Nak
	}
	r.log().Warn("an item could not be judged; it is tried again after the lease", "step", what, "error", err)
	return bus.Silent
}

// lost ends a run whose write failed: the worker goes silent, unless the request has ended.
func (r *run) lost(ctx context.Context, err error) bus.Outcome {
	r.w.meters.lost.Inc()
	r.log().Warn("another writer or an unknown outcome ended this run", "attempt", r.attempt, "error", err)
	if !errors.Is(err, bus.ErrFenced) {
		return bus.Silent
	}
	ctx = context.WithoutCancel(ctx)
	chain, err := r.w.bus.Chain(ctx, r.work.Identity)
	if err != nil || chain.Terminal() == nil {
		return bus.Silent
	}
	r.chain.set(chain)
	return r.conclude(ctx)
}

// refuse keeps an item that cannot be read in the DLQ, and answers it when it names a request.
func (w *Worker) refuse(ctx context.Context, m *model, work *schemas.Work, d *bus.Delivery, reason error) bus.Outcome {
	if work != nil && work.Validate() == nil {
		r := w.newRun(m, work, d)
		r.body = d.Data
		return r.refuse(ctx, schemas.Errorf(schemas.CodeInternal, "the request was damaged on its way; send it again").WithCause(reason))
	}
	id := schemas.Identity{}
	if work != nil {
		id = work.Identity
	}
	if err := w.bus.DeadLetter(ctx, id, m.token, reason.Error(), d.Header, d.Data); err != nil {
		w.log.Error("an unreadable item could not be moved to the DLQ; it is tried again", "sequence", d.Sequence, "error", err)
		return bus.Silent
	}
	return bus.Term
}

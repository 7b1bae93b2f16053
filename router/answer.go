package router

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/record"
	"github.com/weir-llm/weir/schemas"
)

// answer ends a request without a worker: a rejection, an expiry, a cancellation.
func (l *loop) answer(it *item, reason *schemas.Error) {
	if l.draining {
		return // another router has it next
	}
	l.answers.submit(func() func() {
		outcome, written := l.clerk.answer(it, reason)
		return func() {
			if written {
				l.meters.rejected(reason.Code)
				l.log.Info("request answered without a worker", keyRequest, it.req.Request, keyTenant, it.req.Tenant, keyCode, reason.Code)
			}
			l.settle(it, outcome)
		}
	})
}

// inspectObject reads a body that is too large for a message, only to check it: it stays where it is.
func (l *loop) inspectObject(it *item) {
	l.answers.submit(func() func() {
		body, err := l.clerk.body(it)
		if err == nil {
			it.inspect(body)
		}
		return func() {
			it.inspected = true
			l.resume(it, err)
		}
	})
}

// lookUp asks whether a request under an id that its caller chose was answered already.
func (l *loop) lookUp(it *item) {
	l.answers.submit(func() func() {
		answered, outcome := l.clerk.answered(it)
		return func() {
			it.checked = true
			if answered {
				l.settle(it, outcome)
				return
			}
			l.resume(it, nil)
		}
	})
}

// resume goes on with a request after a job.
func (l *loop) resume(it *item, err error) {
	switch {
	case l.draining: // another router has it next
	case err == nil:
		l.route(it)
	case errors.Is(err, bus.ErrNotFound):
		it.fault = schemas.Errorf(schemas.CodeInvalidValue, "the body that %s names does not exist; send the request again", schemas.HeaderObject)
		l.answer(it, it.fault)
	case errors.Is(err, bus.ErrDamaged):
		it.fault = schemas.Errorf(schemas.CodeInvalidValue, "the body that %s names is not of the size and digest given there; send the request again", schemas.HeaderObject)
		l.answer(it, it.fault)
	default: // the lease brings it back
		l.log.Warn("reading a request body failed", keyRequest, it.req.Request, keyTenant, it.req.Tenant, keyError, err)
		l.settle(it, bus.Silent)
	}
}

// clerk writes the answers that need no worker. It is safe for concurrent use.
type clerk struct {
	bus *bus.Bus
	log *slog.Logger
}

// answer commits an error to the chain of the request, then its result, then, for a request that cannot be parsed, the
// DLQ record. Ack says that all of it is done, written that this error is the answer: a chain that a worker has claimed is
// left alone.
func (c *clerk) answer(it *item, reason *schemas.Error) (outcome bus.Outcome, written bool) {
	var err error
	if !it.nameless {
		written, err = c.finish(it, reason)
	}
	if err == nil && it.fault != nil {
		err = c.bury(it, reason)
	}
	if err != nil {
		c.log.Warn("answering a request failed; it is tried again after the lease", keyRequest, it.req.Request, keyTenant, it.req.Tenant,
			keyCode, reason.Code, keyError, err)
		return bus.Silent, written
	}
	return bus.Ack, written
}

// finish ends the chain and makes sure of the result of whatever ended it.
func (c *clerk) finish(it *item, reason *schemas.Error) (written bool, err error) {
	chain, written, err := c.end(it.ctx, it.req, reason)
	if err != nil || chain == nil {
		return false, err
	}
	body, err := c.bus.Body(it.ctx, it.req)
	if err != nil {
		// An unreadable body may be why there is an error to answer; the caller gets its result all the same.
		c.log.Warn("result without its request body", keyRequest, it.req.Request, keyTenant, it.req.Tenant, keyError, err)
	}
	return written, record.Ensure(it.ctx, c.bus, &schemas.Work{Request: *it.req, Accepted: it.accepted}, body, chain)
}

// end writes the terminal frame, unless there is one, and returns the finished chain. It returns no chain when a worker
// runs the request, which is then the worker's to end.
func (c *clerk) end(ctx context.Context, r *schemas.Request, reason *schemas.Error) (chain *bus.Chain, written bool, err error) {
	id := r.Identity
	f := &schemas.Frame{
		Kind: schemas.KindError, Op: r.Op, Writer: rand.Text()[:12], Data: reason.Encode(),
		Summary: (&schemas.Summary{Status: schemas.StatusOf(reason), CancelledBy: reason.CancelledBy()}).Encode(), Trace: bus.TraceParent(ctx),
	}
	var expect uint64
	for {
		_, err := c.bus.Append(ctx, id, expect, f)
		if err != nil && !errors.Is(err, bus.ErrFenced) {
			return nil, false, err
		}
		written = err == nil
		if chain, err = c.bus.Chain(ctx, id); err != nil {
			return nil, written, err
		}
		last := chain.Last()
		switch {
		case chain.Terminal() != nil:
			return chain, written, nil
		case last != nil && last.Kind != schemas.KindAccepted:
			return nil, false, nil
		}
		expect = chain.Sequence()
	}
}

// bury puts the request into the DLQ as it came, less the headers that no caller may set.
func (c *clerk) bury(it *item, reason *schemas.Error) error {
	return c.bus.DeadLetter(it.ctx, it.req.Identity, it.model(), reason.Error(), it.req.Encode(), it.req.Body)
}

// answered reports whether the request's id has a result already, and what becomes of the request then: one with another
// body is a second request under a used id, and goes to the DLQ. When it cannot be known now, the worker finds out.
func (c *clerk) answered(it *item) (answered bool, outcome bus.Outcome) {
	result, err := c.bus.Result(it.ctx, it.req.Identity)
	if err != nil {
		return false, bus.Silent
	}
	if result.BodyHash == "" || result.BodyHash == it.req.BodyHash() {
		return true, bus.Ack
	}
	if err := c.bury(it, schemas.ReusedID(it.req.Request)); err != nil {
		c.log.Warn("a request under a used id was not moved to the DLQ; it is tried again after the lease", keyRequest, it.req.Request, keyTenant, it.req.Tenant, keyError, err)
		return true, bus.Silent
	}
	return true, bus.Ack
}

func (c *clerk) body(it *item) ([]byte, error) { return c.bus.Body(it.ctx, it.req) }

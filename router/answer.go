package router

import (
	"context"
	"crypto/rand"
	"errors"
	"log/slog"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/record"
	"github.com/weir-llm/weir/schemas"
)

// answer ends a request without a worker: a rejection, an expiry, a cancellation.
func (l *loop) answer(it *item, reason *schemas.Error) {
	if l.draining {
		return // another router has it next
	}
	if l.books != nil {
		l.books.tell(it)
	}
	l.answers.submitFor(it.req.Tenant, func() func() {
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
	l.answers.submitFor(it.req.Tenant, func() func() {
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
	l.answers.submitFor(it.req.Tenant, func() func() {
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
// DLQ record, which is all that a second request under a used id gets. Ack says that all of it is done, written that this error is the answer: a chain that a worker has claimed is
// left alone.
func (c *clerk) answer(it *item, reason *schemas.Error) (outcome bus.Outcome, written bool) {
	var err error
	reused := reason.Code == schemas.CodeIdempotencyMismatch // the chain and the result of the id are another request's
	if !it.nameless && !reused {
		written, err = c.finish(it, refusal(it, reason))
	}
	if err == nil && (it.fault != nil || reused) {
		err = c.bury(it, reason)
	}
	if err != nil {
		c.log.Warn("answering a request failed; it is tried again after the lease", keyRequest, it.req.Request, keyTenant, it.req.Tenant,
			keyCode, reason.Code, keyError, err)
		return bus.Silent, written
	}
	return bus.Ack, written
}

// ending is a terminal frame, and the summary that is in it.
type ending struct {
	*schemas.Frame
	summary *schemas.Summary
}

// finish ends the chain and makes sure of the result of whatever ended it.
func (c *clerk) finish(it *item, e ending) (written bool, err error) {
	chain, written, err := c.end(it.ctx, it.req.Identity, e.Frame, it.retried > 0 || it.revived)
	if err != nil || chain == nil {
		return false, err
	}
	body, err := c.bus.Body(it.ctx, it.req)
	if err != nil {
		// An unreadable body may be why there is an error to answer; the caller gets its result all the same.
		c.log.Warn("result without its request body", keyRequest, it.req.Request, keyTenant, it.req.Tenant, keyError, err)
	}
	if !written {
		e.summary = nil // it ended otherwise
	}
	return written, c.bus.PutResult(it.ctx, record.Build(it.asWork(), body, chain, e.summary))
}

// refusal is the end of a request that does not run.
func refusal(it *item, reason *schemas.Error) ending {
	summary := &schemas.Summary{Status: schemas.StatusOf(reason), CancelledBy: reason.CancelledBy()}
	return ending{&schemas.Frame{
		Kind: schemas.KindError, Op: it.req.Op, Writer: rand.Text()[:12], Data: reason.Encode(), Cache: it.order().Shown(),
		Summary: summary.Encode(), Trace: bus.TraceParent(it.ctx), Allowance: it.allowance,
	}, summary}
}

// errMidway is that a whole answer came for a request that was given a part of another one.
var errMidway = errors.New("the request was given a part of its answer already")

// end writes the terminal frame, unless there is one, and returns the finished chain. It returns no chain when a worker
// runs the request, which is then the worker's to end. A request that was held is the router's again: its chain has an
// attempt that was given up.
func (c *clerk) end(ctx context.Context, id schemas.Identity, f *schemas.Frame, held bool) (chain *bus.Chain, written bool, err error) {
	var expect uint64
	for {
		sequence, err := c.bus.Append(ctx, id, expect, f)
		if err != nil && !errors.Is(err, bus.ErrFenced) {
			return nil, false, err
		}
		if written = err == nil; written && expect == 0 { // it is all there is
			f.Sequence, f.Time = sequence, time.Now()
			return &bus.Chain{Frames: []*schemas.Frame{f}}, true, nil
		}
		if chain, err = c.bus.Chain(ctx, id); err != nil {
			return nil, written, err
		}
		last := chain.Last()
		switch {
		case chain.Terminal() != nil:
			return chain, written, nil
		case last != nil && last.Kind != schemas.KindAccepted && chain.Leader() == "" && (!held || !last.GivenUp() && !inherited(chain)):
			return nil, false, nil
		case last != nil && chain.Next() > 0 && f.Count > 0:
			return nil, false, errMidway
		case last != nil:
			f.Index, f.Attempt = chain.Next(), last.Attempt // behind what it was given of another's answer
		}
		expect = chain.Sequence()
	}
}

// inherited reports whether a worker went on in a chain with the run of another request.
func inherited(chain *bus.Chain) bool {
	start := chain.Start()
	return start != nil && start.Start.Mode == schemas.ModeInherit
}

// replay answers a request with what an entry says, as answer does with an error.
func (c *clerk) replay(it *item, e ending) (outcome bus.Outcome, written bool) {
	written, err := c.finish(it, e)
	if err != nil {
		c.log.Warn("answering a request from the cache failed; it is tried again after the lease", keyRequest, it.req.Request,
			keyTenant, it.req.Tenant, keyError, err)
		return bus.Silent, written
	}
	return bus.Ack, written
}

// replayed is an answer from the cache, which is one frame.
func (it *item) replayed(h *hit) (ending, error) {
	it.cache.replay.Created = time.Now()
	data, count, err := it.cache.replay.Events(h.entry)
	if err != nil {
		return ending{}, err
	}
	summary := &schemas.Summary{Status: schemas.StatusCompleted, FinishReasons: h.entry.FinishReasons, Usage: h.entry.Usage}
	it.cache.note.Status, it.cache.note.Age, it.cache.note.TTL = schemas.CacheHit, int(h.age/time.Second), 0
	return ending{&schemas.Frame{
		Kind: schemas.KindEnd, Op: it.req.Op, Writer: rand.Text()[:12], Count: count, Data: data, BodyHash: it.req.BodyHash(),
		Cache: it.order().Shown(), Allowance: it.allowance, Trace: bus.TraceParent(it.ctx), Summary: summary.Encode(),
	}, summary}, nil
}

func (c *clerk) cached(it *item) (data []byte, stored time.Time, err error) {
	ctx, cancel := context.WithTimeout(it.ctx, cacheWait)
	defer cancel()
	return c.bus.CachedAnswer(ctx, it.req.Tenant, it.cache.note.Key)
}

// cacheWait is how long the second level may take before the request runs.
const cacheWait = 250 * time.Millisecond

// bury puts the request into the DLQ as it came, less the headers that no caller may set.
func (c *clerk) bury(it *item, reason *schemas.Error) error {
	return c.bus.DeadLetter(it.ctx, it.req.Identity, it.model(), reason.Error(), it.req.Encode(), it.req.Body)
}

// answered reports whether the request's id has a result already, and what becomes of the request then: one with another
// body is a second request under a used id, and goes to the DLQ. When it cannot be known now, the worker finds out.
func (c *clerk) answered(it *item) (answered bool, outcome bus.Outcome) {
	if it.retried > 0 {
		return c.ended(it)
	}
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

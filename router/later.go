package router

import (
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/record"
	"github.com/weir-llm/weir/schemas"
)

// dueCheck is how often it is looked whether anything is held, beside the events that say so.
const dueCheck = 15 * time.Second

// due tells the fetchers of LLM_RETRY when there may be something to fetch, so that while nothing is held nothing is asked
// for. It is safe for concurrent use.
type due struct {
	woken [schemas.Partitions]chan struct{} // capacity 1
	some  atomic.Bool                       // something may be held
}

func newDue() *due {
	d := &due{}
	for p := range d.woken {
		d.woken[p] = make(chan struct{}, 1)
	}
	return d
}

func (d *due) wake(partition int) {
	d.some.Store(true)
	select {
	case d.woken[partition] <- struct{}{}:
	default:
	}
}

// fetchDue brings the requests of a partition whose time has come into the loop until ctx ends.
func (r *Router) fetchDue(ctx, work context.Context, partition int, l *loop) {
	for ctx.Err() == nil {
		some, err := r.cfg.Bus.AnyHeld(ctx)
		switch {
		case err != nil && ctx.Err() == nil:
			r.cfg.Logger.Warn("looking for held requests failed; it is tried again", keyError, err)
		case some:
			l.due.some.Store(true)
			r.takeDue(ctx, work, partition, l)
			continue
		case err == nil:
			l.due.some.Store(false)
		}
		timer := time.NewTimer(dueCheck)
		select {
		case <-ctx.Done():
		case <-timer.C:
		case <-l.due.woken[partition]:
		}
		timer.Stop()
	}
}

// takeDue takes what becomes due for a while.
func (r *Router) takeDue(ctx, work context.Context, partition int, l *loop) {
	puller := r.cfg.Bus.Due(partition)
	defer puller.Close()
	while, stop := context.WithTimeout(ctx, dueCheck)
	defer stop()
	for {
		most := permitted(while, l, puller)
		if most == 0 {
			return
		}
		deliveries, err := puller.Fetch(while, most)
		if len(deliveries) > 0 {
			b := batch{partition: partition, due: true}
			for _, d := range deliveries {
				it := r.readDue(d)
				it.partition = partition
				it.open(work, r.cfg.Bus, d)
				b.items = append(b.items, it)
			}
			l.arrivals <- b
		}
		if err != nil {
			if while.Err() == nil {
				r.cfg.Logger.Warn("fetching held requests failed; it is tried again", keyPartition, partition, keyError, err)
				pause(while, fetchRetry)
			}
			return
		}
	}
}

// dueDelivery is of a stream that keeps what is acknowledged.
type dueDelivery struct {
	*bus.Delivery
	bus *bus.Bus
}

func (d dueDelivery) Settle(o bus.Outcome) {
	d.Delivery.Settle(o)
	if o == bus.Ack || o == bus.Term {
		d.bus.Forget(d.Sequence)
	}
}

// readDue reads a work item that was held. Its sequence is of LLM_RETRY, where they begin with 1; those of LLM_REQUESTS
// begin with the milliseconds of a clock.
func (r *Router) readDue(d *bus.Delivery) *item {
	token, _ := schemas.RetryModel(d.Subject)
	work, err := schemas.DecodeWork(token, d.Header, d.Data)
	it := heldItem(work, r.caching)
	it.delivery, it.sequence, it.size = dueDelivery{d, r.cfg.Bus}, d.Sequence, int64(len(d.Data))
	if work == nil {
		it.req, it.nameless = unreadable(d), true
	}
	switch {
	case err != nil:
		it.fault = schemas.Errorf(schemas.CodeInternal, "the request was damaged while it waited; send it again").WithCause(err)
	case it.req.Object == nil:
		it.inspect(it.req.Body)
	}
	return it
}

// heldItem is the request of a work item that is held or was.
func heldItem(work *schemas.Work, caching *caching) *item {
	it := &item{caching: caching, arrived: time.Now(), dispatch: firstDispatch + 1}
	if work == nil {
		return it
	}
	it.req, it.accepted, it.deadline, it.retried = &work.Request, work.Accepted, work.Deadline, max(work.Dispatch, it.retried)
	it.failures = work.Failures
	if it.deadline.IsZero() {
		it.deadline = work.Accepted.Add(schemas.DefaultDeadline)
		it.req.Deadline = it.deadline
	}
	return it
}

// giveUp gives back what a request has reserved of its tenant's limits when it begins to be held. It is reserved again when
// the request is dispatched again.
func (l *loop) giveUp(e *schemas.RetryEvent) {
	if l.books != nil {
		l.books.release(schemas.Identity{Tenant: e.Tenant, Request: e.Request})
	}
}

func (b *books) release(id schemas.Identity) {
	book := b.partitions[schemas.PartitionOf(id.Tenant)]
	if book.ledger == nil || !book.ledger.Holds(id) {
		return
	}
	book.ledger.Release(id, book.now())
	book.dirty = true
	b.wake(id.Tenant)
}

// cancelHeld ends a request that is held, if one is, and if this router serves its tenant.
func (l *loop) cancelHeld(h hint) {
	if s := l.partitions[schemas.PartitionOf(h.id.Tenant)]; s == nil || s.leaving || !l.due.some.Load() || l.draining {
		return
	}
	l.answers.submitFor(h.id.Tenant, func() func() {
		reason := schemas.Cancelled(h.by)
		written, err := l.clerk.cancelHeld(context.Background(), h.id, reason)
		return func() {
			if err != nil {
				l.log.Warn("cancelling a request that is held failed; whoever asked makes sure of it", keyRequest, h.id.Request, keyTenant, h.id.Tenant, keyError, err)
			}
			if written {
				l.meters.rejected(reason.Code)
			}
		}
	})
}

// cancelHeld answers a request that is held and removes it.
func (c *clerk) cancelHeld(ctx context.Context, id schemas.Identity, reason *schemas.Error) (written bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, rescueTimeout)
	defer cancel()
	work, err := c.bus.Held(ctx, id)
	if errors.Is(err, bus.ErrNotFound) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	it := heldItem(work, nil)
	it.ctx = ctx
	if written, err = c.finish(it, refusal(it, reason)); err == nil {
		c.bus.Release(id)
	}
	return written, err
}

// ended makes sure of the result of a request that was held and has ended meanwhile, as one that was cancelled has.
func (c *clerk) ended(it *item) (ended bool, outcome bus.Outcome) {
	if _, err := c.bus.Result(it.ctx, it.req.Identity); err == nil {
		return true, bus.Ack
	}
	chain, err := c.bus.Chain(it.ctx, it.req.Identity)
	if err != nil || chain.Terminal() == nil {
		return false, bus.Silent // when it cannot be known now, the worker finds out
	}
	body, err := c.bus.Body(it.ctx, it.req)
	if err == nil {
		err = record.Ensure(it.ctx, c.bus, &schemas.Work{Request: *it.req, Accepted: it.accepted, Cache: it.order()}, body, chain)
	}
	if err != nil {
		c.log.Warn("the result of a request that has ended was not stored; it is tried again after the lease", keyRequest, it.req.Request,
			keyTenant, it.req.Tenant, keyError, err)
		return true, bus.Silent
	}
	return true, bus.Ack
}

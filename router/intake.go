package router

import (
	"container/list"
	"context"
	"errors"
	"strings"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

const (
	fetchBatch = 256
	// fetchRetry is the pause after a fetch that failed.
	fetchRetry = time.Second
	// fetchFresh is how long a fetch must have waited for its message to count as fresh.
	fetchFresh = 50 * time.Millisecond
)

// delivery is what the router does with a [bus.Delivery].
type delivery interface {
	Extend()
	Settle(bus.Outcome)
}

// item is a request from its delivery until it is settled. The loop owns it; a job reads what is fixed.
type item struct {
	// Fixed before the loop or a job before it sees the item.
	req       *schemas.Request // its deadline and model are what holds, not what the headers say
	ctx       context.Context  // of the span of its processing
	end       func()           // ends the span
	sequence  uint64           // in LLM_REQUESTS
	accepted  time.Time        // by the stream's clock
	arrived   time.Time        // here
	deadline  time.Time        // by the stream's clock
	size      int64
	estimate  int64    // tokens that it is taken for
	input     int64    // those of them that are of the prompt
	caching   *caching // what decides about the cache
	count     func(model string) func(body []byte) int64
	cache     *lookup        // what the cache has to do with it; nil when nothing
	flightKey string         // under which equal requests share a run; empty: it shares none
	again     bool           // it was delivered before
	fault     *schemas.Error // why it cannot be parsed
	nameless  bool           // there is nobody to answer

	partition int // of LLM_REQUESTS
	failures  int // of one that was held: how often for a failure that may be its own
	retried   int // the number that it is dispatched again with, of one that was held; 0 when it comes from LLM_REQUESTS

	passed int // how often another process wrote to a copy in between; of whoever has its follower in hand

	// Owned by the loop.
	delivery  delivery
	place     *list.Element       // in the queue
	class     class               // in the queue; it grows more urgent with time
	queued    time.Time           // since when it is in the class
	cost      int64               // tokens that it counts for, as corrected when it was decided about
	alarm     int                 // in the expiries, from 1
	inspected bool                // its body, when that is an object
	checked   bool                // that it has no result yet, when its caller chose the id
	traced    bool                // its chain was looked at
	placed    bool                // as a leader or a follower, or to run by itself
	dispatch  int                 // number of its dispatch, when that is not the first
	follower  *follower           // while it is given the answer of another
	revived   bool                // the worker that went on with a run in its chain is lost
	cancelled schemas.CancelledBy // while a job had it in hand; empty = it was not
	back      *bus.Outcome        // how it is given back once the job that has it in hand is done; nil: it is not
	reserve   *schemas.Reserve    // of a tenant with limits
	allowance string              // what that may still do, for the door
}

func (it *item) model() string { return it.req.ModelToken }

// chosen reports whether the caller chose the id and may have used it before; the door makes the others unique.
func (it *item) chosen() bool {
	id := it.req.Request
	made := strings.HasPrefix(id, "req_") && len(id) == len("req_")+ulid.EncodedSize || strings.HasPrefix(id, "idk_")
	return !made && schemas.ValidateCallerID(id) == nil
}

// batch is what one fetch brought.
type batch struct {
	partition int
	items     []*item
	fresh     bool   // the first of them was published just now
	pin       string // of the partition
	unpinned  bool   // another router is served the partition now
	ended     bool   // nothing more comes until the partition is served again
	due       bool   // they were held, and come from LLM_RETRY
}

// keepPin is how often a pin is kept while the router fetches nothing.
const keepPin = time.Second

// fetch brings the requests of a partition into the loop until ctx ends. It takes only as many as the loop permits.
func (r *Router) fetch(ctx, work context.Context, partition int, l *loop) {
	puller := r.cfg.Bus.Requests(partition)
	defer puller.Close()
	var seen newness
	for {
		most := permitted(ctx, l, puller)
		if most == 0 {
			return
		}
		asked := time.Now()
		deliveries, err := puller.Fetch(ctx, most)
		if len(deliveries) > 0 {
			b := batch{partition: partition, pin: puller.Pin(), fresh: seen.fresh(deliveries, time.Since(asked))}
			for _, d := range deliveries {
				it := read(d, r.caching, r.cfg.Count)
				it.partition = partition
				it.open(work, r.cfg.Bus, d)
				b.items = append(b.items, it)
			}
			l.arrivals <- b
		}
		switch {
		case err == nil || ctx.Err() != nil:
		case errors.Is(err, bus.ErrUnpinned):
			l.arrivals <- batch{partition: partition, unpinned: true}
		default:
			r.cfg.Logger.Warn("fetching requests failed; it is tried again", keyPartition, partition, keyError, err)
			pause(ctx, fetchRetry)
		}
	}
}

// newness tells whether a message was published just now. It belongs to the goroutine that fetches.
type newness struct {
	order uint64 // of the last message in what the consumer delivered; 0 before the first fetch, whose messages may have waited for long
}

// fresh reports whether the first of what a fetch brought came while that was waiting. A consumer that was reset begins to
// count anew, and delivers for the first time what it has delivered before.
func (n *newness) fresh(deliveries []*bus.Delivery, waited time.Duration) bool {
	first, before := deliveries[0], n.order
	n.order = deliveries[len(deliveries)-1].Order
	return before > 0 && first.Order > before && first.Delivered == 1 && waited > fetchFresh
}

// permitted waits until the loop takes more, and returns how many; 0 when ctx has ended. The pin is kept meanwhile: a
// router that is full is not gone.
func permitted(ctx context.Context, l *loop, puller *bus.Puller) int {
	ticker := time.NewTicker(keepPin)
	defer ticker.Stop()
	for {
		select {
		case most := <-l.permits:
			return most
		case <-ticker.C:
			puller.Keep()
		case <-ctx.Done():
			return 0
		}
	}
}

// read decodes and checks a delivery.
func read(d *bus.Delivery, caching *caching, count func(model string) func(body []byte) int64) *item {
	it := &item{caching: caching, count: count, delivery: d, again: d.Delivered > 1, sequence: d.Sequence, accepted: d.Time, arrived: time.Now(), size: int64(len(d.Data))}
	req, err := schemas.DecodeRequest(d.Subject, d.Sequence, d.Header, d.Data)
	if req == nil {
		req, it.nameless = unreadable(d), true
	}
	it.req = req
	if err != nil {
		it.fault = schemas.AsError(err)
	} else if req.Object == nil {
		it.inspect(req.Body)
	}
	if req.Deadline.IsZero() {
		req.Deadline = d.Time.Add(schemas.DefaultDeadline)
	}
	it.deadline = req.Deadline
	return it
}

// unreadable is what can be said of a message that names nobody who could be answered.
func unreadable(d *bus.Delivery) *schemas.Request {
	tenant, model, _ := schemas.ParseQueueSubject(d.Subject)
	return &schemas.Request{
		Identity: schemas.Identity{Tenant: tenant, Request: schemas.SequenceID(d.Sequence)}, ModelToken: model, Body: d.Data,
	}
}

// open begins the span of the request's time in the router.
func (it *item) open(work context.Context, b *bus.Bus, d *bus.Delivery) {
	ctx, span := b.Process(work, d, "llm.requests.{tenant}.{model}", it.req.Identity)
	it.ctx, it.end = ctx, func() { span.End() }
}

// inspect checks the body and takes the model from it.
func (it *item) inspect(body []byte) {
	parsed, err := openai.ParseRequest(it.req.Op, body, openai.Policy{})
	if err != nil {
		it.fault = schemas.AsError(err)
		return
	}
	model, err := schemas.EncodeModel(parsed.Model)
	if err != nil {
		it.fault = schemas.AsError(err)
		return
	}
	it.req.ModelToken = model // whatever the subject says
	it.input, it.estimate = cost(parsed, it.count)
	if it.caching != nil {
		it.cache = it.caching.plan(it.req, parsed)
		it.flightKey = it.caching.flightKey(it.req, parsed, it.cache)
	}
}

// pause sleeps unless ctx ends first.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}

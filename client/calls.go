package client

import (
	"context"
	"errors"
	"iter"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// Send hands a request to the pipeline and returns its id once it is stored durably; the answer is to be had with
// [Client.Resume] or [Client.Wait], on any transport. On an error the request may have been stored all the same: send it
// again with the id, which is returned in any case. Over HTTP and for a tenant a request that nobody reads is cancelled
// after the door's ingest.detached_max.
func (c *Client) Send(ctx context.Context, request Request) (id string, err error) {
	r, err := c.prepare(&request)
	if err != nil {
		return "", err
	}
	err = c.way.send(ctx, r)
	return r.Identity.Request, err
}

// Stream sends a request and yields its events as they are committed. It ends after the last one, or with one error: the
// answer could not be finished, the request was refused, or ctx ended. Leaving early or ending ctx does not cancel the
// request: use [Client.Cancel] or go on with [Client.Resume]. A request that was sent before, under the same ID or
// IdempotencyKey, is not run again; its events are yielded from the first. Only when it had failed before its first event
// in a way that may pass, it is run again, under an id that the events tell.
func (c *Client) Stream(ctx context.Context, request Request) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		r, err := c.prepare(&request)
		if err != nil {
			yield(Event{}, err)
			return
		}
		c.way.stream(ctx, r)(yield)
	}
}

// Complete sends a request whose body does not ask for a stream and returns the whole answer. Like Stream it outlasts
// broken connections, and can be called again with the same ID or IdempotencyKey.
func (c *Client) Complete(ctx context.Context, request Request) (Event, error) {
	r, err := c.prepare(&request)
	if err != nil {
		return Event{}, err
	}
	if r.streams {
		return Event{}, schemas.Errorf(schemas.CodeInvalidValue, "the body asks for a stream: leave stream out, or use Stream").WithParam("stream")
	}
	var answer Event
	for event, err := range c.way.stream(ctx, r) {
		if err != nil {
			return Event{}, err
		}
		answer = event
	}
	if answer.Data == nil {
		return Event{}, schemas.AsError(errors.New("the request ended without an answer"))
	}
	return answer, nil
}

// Resume yields the events of a request that was sent before, from the index from on, and goes on with those to come. It
// ends as Stream does. A door answers stream_not_found for a request that it does not know; a trusted client waits for
// one that has not begun, also when it was never sent, so give ctx an end.
func (c *Client) Resume(ctx context.Context, tenant, id string, from uint64) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		identity, err := c.identity(tenant, id)
		if err != nil {
			yield(Event{}, err)
			return
		}
		c.way.resume(ctx, identity, from)(yield)
	}
}

// Result is the final record of a request: how it ended, what it cost, what was answered. It does not wait: the error is
// ErrNotFound while the request runs. A trusted client gets the whole record, with what was asked, every try and the
// events; a tenant gets what its door tells.
func (c *Client) Result(ctx context.Context, tenant, id string) (*schemas.Result, error) {
	identity, err := c.identity(tenant, id)
	if err != nil {
		return nil, err
	}
	return c.way.result(ctx, identity)
}

// The record is stored right after the terminal frame; when its writer died in between, whoever takes the request over
// stores it.
const (
	resultWait    = 5 * time.Millisecond
	resultWaitMax = time.Second
)

// Wait is Result for a request that has not ended: it returns when it has, or when ctx ends. A request that failed is a
// result, not an error. For a request that was never sent a trusted client waits too, so give ctx an end.
func (c *Client) Wait(ctx context.Context, tenant, id string) (*schemas.Result, error) {
	identity, err := c.identity(tenant, id)
	if err != nil {
		return nil, err
	}
	r, err := c.way.result(ctx, identity)
	if !errors.Is(err, ErrNotFound) {
		return r, err
	}
	if err := c.way.await(ctx, identity); err != nil {
		return nil, err
	}
	for wait := resultWait; ; wait = min(2*wait, resultWaitMax) {
		r, err := c.way.result(ctx, identity)
		if !errors.Is(err, ErrNotFound) {
			return r, err
		}
		if err := sleep(ctx, wait); err != nil {
			return nil, err
		}
	}
}

// Cancel ends a request. It returns nil when the request has ended, by this call or before, whichever processes are down;
// that takes at most little more than a second. The request then has a result, which says how it ended.
func (c *Client) Cancel(ctx context.Context, tenant, id string) error {
	identity, err := c.identity(tenant, id)
	if err != nil {
		return err
	}
	return c.way.cancel(ctx, identity)
}

// Tail yields results as they land, of a tenant or of all when tenant is empty, until ctx ends. With a time it begins with
// those that landed since; the zero time stands for now. Only a trusted client may.
func (c *Client) Tail(ctx context.Context, tenant string, since time.Time) iter.Seq2[*schemas.Result, error] {
	return c.results(ctx, tenant, since, true)
}

// History yields the results that landed since a time and ends, for a tenant or for all when tenant is empty. The bus keeps
// them for a day; the store of the sink keeps the rest. Only a trusted client may.
func (c *Client) History(ctx context.Context, tenant string, since time.Time) iter.Seq2[*schemas.Result, error] {
	return c.results(ctx, tenant, since, false)
}

func (c *Client) results(ctx context.Context, tenant string, since time.Time, follow bool) iter.Seq2[*schemas.Result, error] {
	if t, ok := c.way.(*trusted); ok {
		return t.bus.TailResults(ctx, tenant, since, follow)
	}
	return func(yield func(*schemas.Result, error) bool) {
		yield(nil, schemas.Errorf(schemas.CodeUnsupported, "only a trusted service can follow results: connect over NATS with credentials of the pipeline's account"))
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return context.Cause(ctx)
	}
}

package client

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// Result is the final record of a request: how it ended, what it cost, what was asked and answered. It does not wait:
// the error is ErrNotFound while the request runs.
func (c *Client) Result(ctx context.Context, tenant, id string) (*schemas.Result, error) {
	identity, err := identity(tenant, id)
	if err != nil {
		return nil, err
	}
	r, err := c.bus.Result(ctx, identity)
	if errors.Is(err, bus.ErrNotFound) {
		return nil, fmt.Errorf("%s: %w", identity, ErrNotFound)
	}
	return r, err
}

// The record is stored right after the terminal frame; when its writer died in between, whoever takes the request over
// stores it.
const (
	resultWait    = 5 * time.Millisecond
	resultWaitMax = time.Second
)

// Wait is Result for a request that has not ended: it returns when it has, or when ctx ends. A request that failed is a
// result, not an error. For a request that was never sent it waits too, so give ctx an end.
func (c *Client) Wait(ctx context.Context, tenant, id string) (*schemas.Result, error) {
	r, err := c.Result(ctx, tenant, id)
	if !errors.Is(err, ErrNotFound) {
		return r, err
	}
	identity, err := identity(tenant, id)
	if err != nil {
		return nil, err
	}
	for _, err := range c.bus.Read(ctx, identity, bus.ReadOptions{Tail: true}) {
		if err != nil {
			return nil, err
		}
	}
	for wait := resultWait; ; wait = min(2*wait, resultWaitMax) {
		r, err := c.Result(ctx, tenant, id)
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
	identity, err := identity(tenant, id)
	if err != nil {
		return err
	}
	return c.bus.CancelRequest(ctx, identity, schemas.Errorf(schemas.CodeCancelled, "the request was cancelled"))
}

// Tail yields results as they land, of a tenant or of all when tenant is empty, until ctx ends. With a time it begins with
// those that landed since; the zero time stands for now.
func (c *Client) Tail(ctx context.Context, tenant string, since time.Time) iter.Seq2[*schemas.Result, error] {
	return c.bus.TailResults(ctx, tenant, since, true)
}

// History yields the results that landed since a time and ends, for a tenant or for all when tenant is empty. The bus keeps
// them for a day; the store of the sink keeps the rest.
func (c *Client) History(ctx context.Context, tenant string, since time.Time) iter.Seq2[*schemas.Result, error] {
	return c.bus.TailResults(ctx, tenant, since, false)
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

package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// pieceLimits are those of the tenant in the layout with all pieces: fewer in flight than a cell sends, and the others
// only counted.
const pieceLimits = "tenants:\n  default: {max_in_flight: 5, max_queue_wait: 40s, requests_per_minute: 100000, tokens_per_minute: 100000000, budget: {tokens: 1000000000, window: month}}\n"

// againAtMost is how often an answer is asked for once more until it is the one that was kept: nobody waits for the
// cache to be written, which may fall into the election of its stream's leader.
const againAtMost = 10

// pieceTokens is the length of the answers, at pieceInterval milliseconds a token.
const pieceTokens, pieceInterval = 40, 40

// runPieces kills the NATS node that leads the streams of answers, and brings it back with its disk, in the middle of
// requests that use everything at once: three replicas, limits of their tenant, answers that are shared while they run
// and kept afterwards.
func runPieces(ctx context.Context, c *cluster, report *report) ([]*call, error) {
	serial := c.nextCell()
	calls := []*call{newCall(fmt.Sprintf("p%d-unary", serial), "echo", true, false, pieceTokens, pieceInterval)}
	for i := range callsPerKind {
		id := fmt.Sprintf("p%d-%d", serial, i)
		calls = append(calls, newCall(id+"-same", "echo", true, true, pieceTokens, pieceInterval),
			newCall(id+"-vary", "echo", false, true, pieceTokens, pieceInterval), keptCall(id+"-kept"))
	}
	if err := undisturbed(ctx, c, calls, serial, "echo", pieceTokens); err != nil {
		return nil, err
	}
	err := runCalls(ctx, c, calls, func(ctx context.Context) error {
		if err := wait(ctx, func(time.Duration) bool { return calls[1].seen.Load() >= 10 }); err != nil {
			return err
		}
		leader, err := c.leader(ctx, schemas.StreamReplies)
		if err != nil {
			return err
		}
		if err := c.kill(leader); err != nil {
			return err
		}
		pause(ctx, downtime)
		return errors.Join(c.start(leader), c.waitReady(ctx, leader))
	})
	if err != nil {
		return nil, fmt.Errorf("%s, kill -9 of the leader: %w", c.layout, err)
	}
	again, err := c.askAgain(ctx, serial, calls[0].want)
	calls = append(calls, again...)
	if err != nil {
		return nil, err
	}
	tally, err := checkCalls(ctx, c, calls)
	report.add(string(c.layout), "nats leader", fmt.Sprintf("mid-stream, back after %s", downtime), tally)
	return calls, errors.Join(err, c.checkPieces(ctx, calls))
}

// keptCall is a request whose answer may be shared, and kept.
func keptCall(id string) *call {
	c := newCall(id, "echo", true, true, pieceTokens, pieceInterval)
	c.cache = "on"
	return c
}

// askAgain asks for the answer that was kept until it is given.
func (c *cluster) askAgain(ctx context.Context, serial int, want string) (calls []*call, err error) {
	b, err := bus.Connect(ctx, bus.Config{URL: c.url(), Name: "chaos"})
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	for i := range againAtMost {
		call := keptCall(fmt.Sprintf("p%d-again-%d", serial, i))
		call.want, calls = want, append(calls, call)
		if err := runCalls(ctx, c, calls[i:], func(context.Context) error { return nil }); err != nil {
			return calls, err
		}
		result, err := await(ctx, func(ctx context.Context) (*schemas.Result, error) { return b.Result(ctx, call.identity()) })
		if err != nil {
			return calls, fmt.Errorf("%s has no result: %w", call.id, err)
		}
		if result.Cache == schemas.CacheHit {
			return calls, nil
		}
	}
	return calls, fmt.Errorf("an answer that was kept was not given again in %d tries", againAtMost)
}

// checkPieces makes sure that everything was in use: answers were shared, and callers told of the limits of their tenant.
// Whoever had to wait for long was told nothing, because the headers had gone by then.
func (c *cluster) checkPieces(ctx context.Context, calls []*call) (err error) {
	b, err := bus.Connect(ctx, bus.Config{URL: c.url(), Name: "chaos"})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, b.Close()) }()
	shared, limited := 0, 0
	for _, call := range calls {
		result, err := await(ctx, func(ctx context.Context) (*schemas.Result, error) { return b.Result(ctx, call.identity()) })
		if err != nil {
			return fmt.Errorf("%s has no result: %w", call.id, err)
		}
		if call.limited {
			limited++
		}
		if result.Cache == schemas.CacheCoalesced {
			shared++
		}
	}
	if shared == 0 || limited == 0 {
		return fmt.Errorf("%d answers were shared, and %d callers told of their limits: want some of both", shared, limited)
	}
	return nil
}

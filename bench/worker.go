package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync/atomic"
	"time"

	"github.com/oklog/ulid/v2"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

const (
	workerLimitMB   = 150.0
	workerInterval  = time.Second      // between two tokens of a stream
	workerSteady    = 10 * time.Second // after the last has begun
	workerTenants   = 32
	workerCallers   = 16
	workerFirstWait = 2 * time.Minute
)

// workerCommand measures the memory of a worker that is a process of its own, while it runs many slow streams.
func workerCommand(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := newFlags("worker", stderr)
	weir := weirFlag(flags)
	n := flags.Int("n", 2000, "streams")
	if err := flags.Parse(args); err != nil {
		return err
	}
	if *n < 1 {
		return fmt.Errorf("%d streams: use at least one", *n)
	}
	dir, program, remove, err := workplace(ctx, "", *weir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	mock, err := startMock(ctx, 2)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, mock.process.Close()) }()
	h, err := startHub(ctx, dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, h.close()) }()
	config := fmt.Sprintf("models:\n  %s:\n    backends:\n      - {name: mock, protocol: openai, url: \"http://%s/v1\", max_in_flight: %d}\n", benchModel, mock.addr, *n)
	worker, err := h.stage(ctx, program, "inference", config+"drain_timeout: 1s\n")
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, worker.process.Close()) }()
	held, err := h.slowStreams(ctx, worker, *n)
	if err != nil {
		return fmt.Errorf("%w\n%s", err, &worker.process.output)
	}
	fmt.Fprintf(stdout, "A worker with %d streams of a token every %s holds %.1f MB (heap %.1f, stacks %.1f); %.1f MB are resident.\n\n",
		*n, workerInterval, held.held()/1000, held.heap/1000, held.stacks/1000, held.resident/1000)
	return writeVerdict(stdout, []limit{
		{fmt.Sprintf("worker with %d slow streams, MB that it holds", *n), "at most 150", held.held() / 1000, "%.1f", held.held()/1000 <= workerLimitMB},
		{fmt.Sprintf("worker with %d slow streams, MB resident", *n), "at most 150", held.resident / 1000, "%.1f", held.resident/1000 <= workerLimitMB},
	}, false)
}

// slowStreams has the worker run n streams and returns what it holds once all of them have shown a token.
func (h *hub) slowStreams(ctx context.Context, worker *apart, n int) (footprint, error) {
	ctx, cancel := context.WithTimeout(ctx, workerFirstWait+time.Minute)
	defer cancel()
	var begun, next atomic.Int64
	errs := make(chan error, workerCallers)
	body := fmt.Appendf(nil, `{"model":%q,"messages":[{"role":"user","content":%q}],"stream":true,"mock":{"tokens":100000,"interval_us":%d}}`,
		benchModel, strings.Repeat("word ", 400), workerInterval.Microseconds())
	for range workerCallers {
		go func() { errs <- h.dispatch(ctx, n, body, &next, &begun) }()
	}
	for range workerCallers {
		if err := <-errs; err != nil {
			return footprint{}, err
		}
	}
	if !waitUntil(ctx, time.Now().Add(workerSteady)) {
		return footprint{}, ctx.Err()
	}
	return worker.highest(ctx)
}

// dispatch hands work items to the worker and waits for the first token of each.
func (h *hub) dispatch(ctx context.Context, n int, body []byte, next, begun *atomic.Int64) error {
	for i := next.Add(1); i <= int64(n); i = next.Add(1) {
		id := schemas.Identity{Tenant: fmt.Sprint("tenant-", i%workerTenants), Request: "req_" + ulid.Make().String()}
		work := &schemas.Work{Request: schemas.Request{Identity: id, ModelToken: benchModel, Op: schemas.OpChat, Body: body}, Dispatch: 1, Accepted: time.Now(), Cost: 1}
		work.Deadline = time.Now().Add(schemas.MaxRunTime)
		if _, err := h.bus.Dispatch(ctx, work); err != nil {
			return err
		}
		if err := h.firstToken(ctx, id); err != nil {
			return err
		}
		begun.Add(1)
	}
	return nil
}

func (h *hub) firstToken(ctx context.Context, id schemas.Identity) error {
	ctx, cancel := context.WithTimeout(ctx, workerFirstWait)
	defer cancel()
	for f, err := range h.bus.Read(ctx, id, bus.ReadOptions{}) {
		switch {
		case err != nil:
			return err
		case f.Kind == schemas.KindError:
			return fmt.Errorf("a stream failed: %.300s", f.Data)
		case f.Count > 0:
			return nil
		}
	}
	return errors.New("a stream ended before its first token")
}

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"
)

// idleStarts is how often `weir serve` is started to measure how fast it gets ready.
const idleStarts = 5

// idleFigures are of `weir serve` with its default durability and one model, before any request.
type idleFigures struct {
	readySeconds float64 // median, each on an empty store
	residentMB   float64 // highest, once quiet
}

// measureIdle starts weir so many times, each on an empty store under dir.
func measureIdle(ctx context.Context, weir, dir string, starts int) (*idleFigures, error) {
	var ready []float64
	figures := &idleFigures{}
	for i := range starts {
		store := filepath.Join(dir, fmt.Sprintf("idle-%d", i))
		if err := os.Mkdir(store, 0o700); err != nil {
			return nil, err
		}
		t, err := startWeir(ctx, weir, store, "127.0.0.1:1", "power")
		if err != nil {
			return nil, err
		}
		memory, err := t.residentOnceQuiet(ctx)
		if err = errors.Join(err, t.process.Close()); err != nil {
			return nil, err
		}
		ready = append(ready, t.ready.Seconds())
		figures.residentMB = max(figures.residentMB, megabytes(memory))
	}
	figures.readySeconds = median(ready)
	return figures, nil
}

func (t *target) residentOnceQuiet(ctx context.Context) (int64, error) {
	if !waitUntil(ctx, time.Now().Add(2*time.Second)) {
		return 0, ctx.Err()
	}
	if _, err := settle(ctx, t.process.pid(), 5*time.Second); err != nil {
		return 0, err
	}
	return residentBytes(t.process.pid())
}

func idleCommand(ctx context.Context, args []string, stdout, stderr io.Writer) (err error) {
	flags := newFlags("idle", stderr)
	weir := weirFlag(flags)
	if err := flags.Parse(args); err != nil {
		return err
	}
	dir, program, remove, err := workplace(ctx, "", *weir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, remove()) }()
	figures, err := measureIdle(ctx, program, dir, idleStarts)
	if err != nil {
		return err
	}
	return writeVerdict(stdout, judge(nil, figures, nil), false)
}

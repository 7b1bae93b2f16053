package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/weir-llm/weir/internal/telemetry"
)

// part is something that runs until its context ends and then drains: run returns when nothing is left to do.
type part struct {
	name string
	run  func(ctx context.Context) error
}

// leastDrain is what a part gets to stop in even when those before it have used up the limit.
const leastDrain = time.Second

// runParts runs all parts until ctx ends or one of them does. Then it stops them in the order given, which is that of the
// flow: each only after the one before it has drained, so that what is under way upstream still finds those downstream.
// A part that has not drained when the limit is over is left behind, which is as safe as a kill, and reported.
func runParts(ctx context.Context, parts []part, limit time.Duration, log *slog.Logger) error {
	running := make([]*runningPart, len(parts))
	ended := make(chan *runningPart, len(parts))
	for i, p := range parts {
		running[i] = startPart(context.WithoutCancel(ctx), p, ended)
	}
	var errs []error
	select {
	case <-ctx.Done():
		log.Info("stopping", telemetry.KeyReason, "asked to", "limit", limit)
	case p := <-ended:
		errs = append(errs, p.unexpected())
		log.Error("stopping", telemetry.KeyReason, "a stage ended", telemetry.KeyStage, p.name)
	}
	deadline := time.Now().Add(limit)
	for _, p := range running {
		errs = append(errs, p.stop(max(time.Until(deadline), leastDrain)))
	}
	return errors.Join(errs...)
}

type runningPart struct {
	part
	cancel context.CancelFunc
	done   chan struct{}
	err    error // once done is closed
	failed bool  // it ended before it was told to
}

func startPart(ctx context.Context, p part, ended chan<- *runningPart) *runningPart {
	ctx, cancel := context.WithCancel(ctx)
	r := &runningPart{part: p, cancel: cancel, done: make(chan struct{})}
	go func() { // stop waits for it
		r.err = p.run(ctx)
		close(r.done)
		ended <- r
	}()
	return r
}

// unexpected is the error of a part that ended by itself.
func (r *runningPart) unexpected() error {
	r.failed = true
	if r.err == nil {
		return fmt.Errorf("%s ended by itself", r.name)
	}
	return fmt.Errorf("%s: %w", r.name, r.err)
}

func (r *runningPart) stop(limit time.Duration) error {
	r.cancel()
	timer := time.NewTimer(limit)
	defer timer.Stop()
	select {
	case <-r.done:
	case <-timer.C:
		return fmt.Errorf("%s was not drained within the limit; what it left behind resumes elsewhere or at the next start", r.name)
	}
	if r.failed || r.err == nil || errors.Is(r.err, context.Canceled) {
		return nil
	}
	return fmt.Errorf("drain %s: %w", r.name, r.err)
}

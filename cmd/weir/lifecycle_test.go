package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/telemetry"
)

// journal records what happened in which order.
type journal struct {
	mu      sync.Mutex
	entries []string
}

func (j *journal) add(entry string) {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.entries = append(j.entries, entry)
}

// stage runs until its context ends and then drains for a while.
func (j *journal) stage(name string, drain time.Duration) part {
	return part{name, func(ctx context.Context) error {
		<-ctx.Done()
		j.add(name + " stopping")
		time.Sleep(drain)
		j.add(name + " drained")
		return nil
	}}
}

func TestStopsInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		ctx, stop := context.WithTimeout(t.Context(), time.Hour)
		defer stop()
		parts := []part{j.stage("ingest", 5*time.Second), j.stage("router", 0), j.stage("inference", 10*time.Second), j.stage("sink", time.Second)}
		began := time.Now()
		if err := runParts(ctx, parts, 30*time.Second, telemetry.Discard()); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took != time.Hour+16*time.Second {
			t.Errorf("it took %s", took)
		}
		want := []string{
			"ingest stopping", "ingest drained", "router stopping", "router drained",
			"inference stopping", "inference drained", "sink stopping", "sink drained",
		}
		if diff := cmp.Diff(want, j.entries); diff != "" {
			t.Error(diff)
		}
	})
}

func TestLeavesBehindWhatDoesNotDrain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var j journal
		ctx, stop := context.WithCancel(t.Context())
		stop()
		began := time.Now()
		err := runParts(ctx, []part{j.stage("ingest", time.Minute), j.stage("sink", leastDrain/2)}, 30*time.Second, telemetry.Discard())
		if err == nil || !strings.Contains(err.Error(), "ingest was not drained") || strings.Contains(err.Error(), "sink") {
			t.Errorf("error = %v", err)
		}
		if took := time.Since(began); took > 31*time.Second {
			t.Errorf("it took %s", took)
		}
		time.Sleep(time.Minute) // the stage that was left behind ends too, or the bubble would not
	})
}

func TestOneFailureStopsAll(t *testing.T) {
	broken := errors.New("disk on fire")
	for name, fail := range map[string]error{"with an error": broken, "without": nil} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var j journal
				parts := []part{j.stage("ingest", time.Second), {"sink", func(context.Context) error { time.Sleep(time.Minute); return fail }}}
				err := runParts(t.Context(), parts, 30*time.Second, telemetry.Discard())
				if err == nil || !strings.Contains(err.Error(), "sink") || fail != nil && !errors.Is(err, fail) {
					t.Errorf("error = %v", err)
				}
				if diff := cmp.Diff([]string{"ingest stopping", "ingest drained"}, j.entries); diff != "" {
					t.Error(diff)
				}
			})
		})
	}
}

func TestDrainErrorIsReported(t *testing.T) {
	ctx, stop := context.WithCancel(t.Context())
	stop()
	failing := part{"sink", func(ctx context.Context) error { <-ctx.Done(); return errors.New("flush failed") }}
	if err := runParts(ctx, []part{failing}, time.Second, telemetry.Discard()); err == nil || !strings.Contains(err.Error(), "drain sink: flush failed") {
		t.Errorf("error = %v", err)
	}
}

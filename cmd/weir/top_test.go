package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/schemas"
)

var topTime = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)

// heard is a board that has heard two workers and two routers, and a view of which rates are counted.
func heard(t *testing.T) *board {
	t.Helper()
	b := newBoard()
	worker := func(name string, used int, acme, other uint64) *schemas.Heartbeat {
		return &schemas.Heartbeat{V: 1, Worker: name, Models: []schemas.ModelBeat{{
			Model: "gpt-4=2E1", Slots: 4, Used: used, Finished: &schemas.ModelUsage{},
			Backends: []schemas.BackendBeat{{Name: "vllm-1", InFlight: used, Limit: 4}, {Name: "vllm-2", Limit: 0, State: "open"}},
		}}, Tenants: []schemas.TenantUsage{{Tenant: "acme", Running: used, Tokens: acme}, {Tenant: "other", Tokens: other}}}
	}
	b.worker(worker("w-1", 3, 1000, 50), topTime)
	b.worker(worker("w-2", 1, 70, 0), topTime)
	b.view(topTime)
	now := topTime.Add(2 * time.Second)
	b.worker(worker("w-1", 3, 1080, 50), now)
	b.worker(worker("w-2", 1, 90, 0), now)
	b.worker(&schemas.Heartbeat{V: 1, Worker: "w-1", Models: []schemas.ModelBeat{{Model: "gpt-4=2E1", Slots: 4, Used: 4}}}, now) // a take, without figures
	b.router(&schemas.RouterBeat{V: 1, Router: "r-1", Partitions: []int{0, 1, 2, 3}, Figures: &schemas.RouterFigures{
		Held: 9, Queued: 7, More: 2, Models: []schemas.ModelQueue{{Model: "gpt-4=2E1", Queued: 7, Outstanding: 1}},
		Tenants: []schemas.TenantQueue{{Tenant: "acme", Queued: 6, WaitingMS: 1200, PredictMS: 65_000, Limit: "tokens_per_minute"}, {Tenant: "late", Queued: 1, WaitingMS: 90}},
	}}, now)
	b.router(&schemas.RouterBeat{V: 1, Router: "r-1", Partitions: []int{0, 1, 2, 3}}, now)
	b.router(&schemas.RouterBeat{V: 1, Router: "r-2"}, now)
	return b
}

func TestTopView(t *testing.T) {
	t.Parallel()
	var text strings.Builder
	b := heard(t)
	v := b.view(topTime.Add(2 * time.Second))
	v.write(&text)
	const want = `7 queued  5 running  50 tokens/s  (2 more tenants wait)

TENANT  QUEUED  RUNNING  WAITING          TOKENS/S  LIMIT
acme    6       4        1.2s, then 1m5s  50        tokens_per_minute
late    1       0        0.1s             0         -

MODEL    WORKERS  SLOTS  USED  QUEUED  ON ITS WAY
gpt-4.1  2        8      5     7       1

WORKER  MODEL    SLOTS  USED  STATE    BACKENDS
w-1     gpt-4.1  4      4     serving  vllm-1 3/4, vllm-2 0/0 open
w-2     gpt-4.1  4      1     serving  vllm-1 1/4, vllm-2 0/0 open

ROUTER  PARTITIONS  HELD  QUEUED  STATE
r-1     0 1 2 3     9     7       active
r-2     -           0     0       standby
`
	_, got, _ := strings.Cut(text.String(), topTime.Add(2*time.Second).Local().Format(time.TimeOnly)+"  ")
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	v = b.view(topTime.Add(6 * time.Second))
	if v.Workers[0].State != "silent" || v.Routers[0].State != "silent" || v.Models[0].Slots != 0 || len(v.Tenants) != 0 {
		t.Errorf("after a silence: %+v", v)
	}
	text.Reset()
	b.view(topTime.Add(time.Minute)).write(&text)
	if !strings.Contains(text.String(), "start weir serve") {
		t.Errorf("after all are gone: %s", &text)
	}
}

// A worker that forgot a tenant counts it from the start again, which is no rate below nothing.
func TestTopCountsFromTheStartAgain(t *testing.T) {
	t.Parallel()
	b := newBoard()
	for i, tokens := range []uint64{500, 600, 10, 30} {
		now := topTime.Add(time.Duration(i) * time.Second)
		b.worker(&schemas.Heartbeat{V: 1, Worker: "w", Tenants: []schemas.TenantUsage{{Tenant: "acme", Running: 1, Tokens: tokens}}}, now)
		if got, want := b.view(now).Tenants[0].Rate, []float64{0, 100, 0, 20}[i]; got != want {
			t.Errorf("rate %v after %d tokens, want %v", got, tokens, want)
		}
	}
}

func TestTopDrawsInPlaceOnATerminal(t *testing.T) {
	t.Parallel()
	synctest.Test(t, testTopDraws)
}

func testTopDraws(t *testing.T) {
	for _, terminal := range []bool{true, false} {
		var out bytes.Buffer
		c := &cli{stdout: &out, terminal: terminal}
		ctx, cancel := context.WithTimeout(t.Context(), 2500*time.Millisecond)
		b := newBoard()
		for n := range 100 {
			b.router(&schemas.RouterBeat{V: 1, Router: fmt.Sprint("r-", n)}, time.Now())
		}
		b.worker(&schemas.Heartbeat{V: 1, Worker: "w", Models: []schemas.ModelBeat{{Model: "=1B=5B31m", Slots: 1}}}, time.Now())
		if err := c.followTop(ctx, b, topLeast); err != nil {
			t.Fatal(err)
		}
		cancel()
		got := out.String()
		if strings.Contains(got, "\x1b[31m") || !strings.Contains(got, `\x1b[31m`) {
			t.Errorf("a model's name commands the terminal: %q", got)
		}
		if !terminal {
			if strings.Contains(got, "\x1b") || strings.Count(got, "weir  ") < 2 {
				t.Errorf("not on a terminal: %q", got)
			}
			continue
		}
		if !strings.HasPrefix(got, screenOn) || !strings.HasSuffix(got, screenOff) {
			t.Errorf("the terminal is not left as it was: %q", got)
		}
		for view := range strings.SplitSeq(got, "\x1b[H") {
			if n := strings.Count(view, "\n"); n > 23 {
				t.Errorf("%d lines on a terminal of 24", n)
			}
		}
	}
}

func TestTopOfAServer(t *testing.T) {
	dir := t.TempDir()
	start(t, nil, "serve", "--data-dir", dir, "--nats", "127.0.0.1:0")
	becomes(t, "a view of all that is there", func() bool { // of what was heard while it listened
		out, stderr, err := call(t, "top", "--once", "--json", "--data-dir", dir)
		if err != nil {
			t.Fatalf("%v\n%s", err, stderr)
		}
		var v topView
		if err := json.Unmarshal([]byte(out), &v); err != nil {
			t.Fatalf("%v: %q", err, out)
		}
		t.Log(out)
		return len(v.Routers) == 1 && v.Routers[0].State == "active" && len(v.Routers[0].Partitions) == schemas.Partitions && len(v.Workers) == 1 &&
			v.Workers[0].Model == "echo" && len(v.Workers[0].Backends) == 1 && len(v.Models) == 1 && v.Models[0].Slots > 0
	})
	if _, _, err := call(t, "top", "--every", "1ms"); exitCode(err) != 2 {
		t.Errorf("--every 1ms: %v", err)
	}
}

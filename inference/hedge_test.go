package inference

import (
	"context"
	"iter"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// paced is a backend whose answers begin after a while, unless they fail then.
type paced struct {
	Backend
	name    string
	after   time.Duration
	fails   error
	panics  bool
	tokens  int // of an answer; default 1
	calls   atomic.Int32
	running atomic.Int32
}

func (b *paced) Name() string { return b.name }

func (b *paced) Generate(ctx context.Context, _ *GenerateRequest) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		b.calls.Add(1)
		b.running.Add(1)
		defer b.running.Add(-1)
		if failed := wait(ctx, b.after, nil); failed != nil {
			yield(Event{}, failed)
			return
		}
		if b.panics {
			panic("a bug")
		}
		if b.fails != nil {
			yield(Event{}, b.fails)
			return
		}
		for range max(b.tokens, 1) {
			if !yield(Event{Data: []byte(b.name), Chunk: &openai.Chunk{Usage: `{"completion_tokens":7}`}}, nil) {
				return
			}
			time.Sleep(time.Second)
		}
	}
}

// hedging is a model that hedges after 100 ms.
func hedging(t *testing.T, backends ...*paced) *model {
	t.Helper()
	config := Model{Hedge: Hedge{After: 100 * time.Millisecond}}
	for _, b := range backends {
		config.Backends = append(config.Backends, Slot{Backend: b, MaxInFlight: 4})
	}
	m, err := newModel("m", config)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

// asked runs one request and returns what it said.
func asked(ctx context.Context, models ...*model) (text string, tries []schemas.Try, err error) {
	r := &recovery{
		models: models, stream: true, record: func(_ *model, t schemas.Try) { tries = append(tries, t) },
		call: func(ctx context.Context, t *try) iter.Seq2[Event, error] {
			t.stream = true
			return t.heard(t.place.backend.Generate(ctx, &GenerateRequest{}))
		},
	}
	for event, e := range r.events(ctx) {
		if e != nil {
			return text, tries, e
		}
		text += string(event.Data)
	}
	return text, tries, nil
}

func TestHedge(t *testing.T) {
	t.Parallel()
	const slow = 10 * time.Second
	broken := answered(500)
	for name, test := range map[string]struct {
		a, b     *paced
		said     string
		code     schemas.Code
		path     string
		outcomes []schemas.Code
		begins   time.Duration // of the answer
	}{
		"the first is in time":      {&paced{after: 99 * time.Millisecond}, &paced{}, "a", "", "a", []schemas.Code{""}, 99 * time.Millisecond},
		"the second wins":           {&paced{after: slow}, &paced{after: 50 * time.Millisecond, tokens: 3}, "bbb", "", "a b/hedge", []schemas.Code{schemas.CodeCancelled, ""}, 150 * time.Millisecond},
		"the first wins":            {&paced{after: 200 * time.Millisecond}, &paced{after: slow}, "a", "", "b/hedge a", []schemas.Code{schemas.CodeCancelled, ""}, 200 * time.Millisecond},
		"the second fails":          {&paced{after: 200 * time.Millisecond}, &paced{fails: broken}, "a", "", "b/hedge a", []schemas.Code{schemas.CodeUpstreamError, ""}, 200 * time.Millisecond},
		"the first fails late":      {&paced{after: 200 * time.Millisecond, fails: broken}, &paced{after: 500 * time.Millisecond}, "b", "", "a b/hedge", []schemas.Code{schemas.CodeUpstreamError, ""}, 600 * time.Millisecond},
		"the first fails early":     {&paced{fails: broken}, &paced{after: 500 * time.Millisecond}, "b", "", "a b/failover", []schemas.Code{schemas.CodeUpstreamError, ""}, 500 * time.Millisecond},
		"the request is wrong":      {&paced{after: 200 * time.Millisecond, fails: answered(400)}, &paced{after: slow}, "", schemas.CodeUpstreamRejected, "b/hedge a", []schemas.Code{schemas.CodeCancelled, schemas.CodeUpstreamRejected}, 0},
		"the hedge finds it wrong":  {&paced{after: slow}, &paced{fails: answered(400)}, "", schemas.CodeUpstreamRejected, "a b/hedge", []schemas.Code{schemas.CodeCancelled, schemas.CodeUpstreamRejected}, 0},
		"both silent to their ends": {&paced{after: 200 * time.Millisecond, fails: fails(schemas.CodeUpstreamTimeout)}, &paced{after: 200 * time.Millisecond, fails: fails(schemas.CodeUpstreamTimeout)}, "", schemas.CodeUpstreamTimeout, "a b/hedge", []schemas.Code{schemas.CodeUpstreamTimeout, schemas.CodeUpstreamTimeout}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a, b := test.a, test.b
				a.name, b.name = "a", "b"
				m := hedging(t, a, b)
				began := time.Now()
				text, tries, err := asked(t.Context(), m)
				code := schemas.Code("")
				if err != nil {
					code = schemas.AsError(err).Code
				}
				if text != test.said || code != test.code || path(tries) != test.path || len(tries) != len(test.outcomes) {
					t.Fatalf("%q, %q by %s; want %q, %q by %s", text, code, path(tries), test.said, test.code, test.path)
				}
				for i, want := range test.outcomes {
					if tries[i].Outcome != want {
						t.Errorf("try %d: %q, want %q", i, tries[i].Outcome, want)
					}
				}
				if test.begins > 0 {
					last := tries[len(tries)-1]
					got := last.Started.Sub(began) + time.Duration(last.FirstTokenMS*float64(time.Millisecond))
					between(t, got, test.begins, test.begins)
				}
				if a.running.Load()+b.running.Load() != 0 || m.pool.Free() != 8 {
					t.Errorf("%d and %d calls run, %d places are free", a.running.Load(), b.running.Load(), m.pool.Free())
				}
			})
		})
	}
}

// A loser is cancelled at once, not when the winner has finished, and its usage is nobody's.
func TestHedgeCancelsTheLoser(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &paced{name: "a", after: time.Hour}, &paced{name: "b", tokens: 60}
		_, tries, err := asked(t.Context(), hedging(t, a, b))
		if err != nil || len(tries) != 2 {
			t.Fatalf("%v, %+v", err, tries)
		}
		if lost := tries[0]; lost.DurationMS != 100 || lost.Cause != errOutrun.Message || lost.Usage != nil {
			t.Errorf("the loser: %+v", lost)
		}
	})
}

func TestHedgeOfACancelledRequest(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(500*time.Millisecond, func() { cancel(fails(schemas.CodeCancelled)) })
		began := time.Now()
		a, b := &paced{name: "a", after: time.Hour}, &paced{name: "b", after: time.Hour}
		m := hedging(t, a, b)
		_, tries, err := asked(ctx, m)
		if schemas.AsError(err).Code != schemas.CodeCancelled || len(tries) != 2 || time.Since(began) != 500*time.Millisecond || m.pool.Free() != 8 {
			t.Errorf("%v after %v, %d tries", err, time.Since(began), len(tries))
		}
	})
}

// A reader that leaves ends both calls.
func TestHedgeOfALoopThatBreaks(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &paced{name: "a", after: time.Hour}, &paced{name: "b", tokens: 60}
		m := hedging(t, a, b)
		var tries []schemas.Try
		r := &recovery{
			models: []*model{m}, stream: true, record: func(_ *model, t schemas.Try) { tries = append(tries, t) },
			call: func(ctx context.Context, t *try) iter.Seq2[Event, error] {
				return t.heard(t.place.backend.Generate(ctx, nil))
			},
		}
		for range r.events(t.Context()) {
			break
		}
		if a.running.Load()+b.running.Load() != 0 || len(tries) != 2 || m.pool.Free() != 8 {
			t.Errorf("%d and %d calls run, tries %s", a.running.Load(), b.running.Load(), path(tries))
		}
	})
}

// A panic of a backend comes out where those of any backend do, and leaves nothing behind.
func TestHedgePanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b := &paced{name: "a", after: time.Hour}, &paced{name: "b", panics: true}
		m := hedging(t, a, b)
		defer func() {
			if recover() == nil || a.running.Load()+b.running.Load() != 0 || m.pool.Free() != 8 {
				t.Errorf("no panic, or %d and %d calls run, %d places are free", a.running.Load(), b.running.Load(), m.pool.Free())
			}
		}()
		_, _, _ = asked(t.Context(), m)
	})
}

// Hedges are a share of the requests, and come out of the retry budget too.
func TestHedgeShare(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := hedging(t, &paced{name: "a", after: 200 * time.Millisecond}, &paced{name: "b", after: 200 * time.Millisecond})
		hedges := 0
		for range 100 {
			_, tries, err := asked(t.Context(), m)
			if err != nil {
				t.Fatal(err)
			}
			hedges += len(tries) - 1
		}
		if hedges < 9 || hedges > 11 {
			t.Errorf("%d hedges for 100 requests, want a tenth and one", hedges)
		}
		for m.budget.spend() {
		}
		m.hedge.share.refund()
		if other := (&recovery{models: []*model{m}}).hedge(); other != nil {
			t.Error("hedged without a budget")
		}
	})
}

func TestHedgeAtP95(t *testing.T) {
	t.Parallel()
	h := newHedger(Hedge{P95: true})
	for i := range p95Every {
		if h.patience() != 0 {
			t.Fatalf("hedging after %d samples", i)
		}
		h.took(time.Duration(i+1) * time.Second)
	}
	if got := h.patience(); got != 20*time.Second {
		t.Errorf("p95 of 1 s to 20 s is %v", got)
	}
	for range 2 * p95Samples {
		h.took(time.Second)
	}
	if got := h.patience(); got != time.Second || len(h.samples) != p95Samples {
		t.Errorf("p95 of the last %d is %v", len(h.samples), got)
	}
	var none *hedger
	none.took(time.Second)
	if newHedger(Hedge{}) != nil {
		t.Error("the zero value hedges")
	}
}

// One backend may be a name for many: it is asked twice when there is no other.
func TestHedgeOnTheOnlyBackend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		only := &paced{name: "a", after: 200 * time.Millisecond}
		if _, tries, err := asked(t.Context(), hedging(t, only)); err != nil || path(tries) != "a/hedge a" || only.calls.Load() != 2 {
			t.Errorf("%s, %v", path(tries), err)
		}
	})
}

package inference

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/inference/balance"
	"github.com/weir-llm/weir/schemas"
)

var errPlain = errors.New("plain")

// fallen is a model whose backends are as scripted, one letter and one script each.
func fallen(t *testing.T, name string, change func(*Model), backends ...*scripted) *model {
	t.Helper()
	config := Model{}
	for _, b := range backends {
		config.Backends = append(config.Backends, Slot{Backend: b, MaxInFlight: 4})
	}
	if change != nil {
		change(&config)
	}
	m, err := newModel(name, config)
	if err != nil {
		t.Fatal(err)
	}
	return m
}

func failing3(name string, e error) *scripted {
	return &scripted{name: name, failures: []error{e, e, e, e, e, e}}
}

// path shows the calls: backend, model and mode of each.
func path(tries []schemas.Try) string {
	var all []string
	for _, t := range tries {
		s := t.Backend
		if t.Model != "" {
			s += "@" + t.Model
		}
		if t.Mode != "" {
			s += "/" + string(t.Mode)
		}
		all = append(all, s)
	}
	return strings.Join(all, " ")
}

// TestRecoveryOrder has a way through backends and models for each kind of failure.
func TestRecoveryOrder(t *testing.T) {
	t.Parallel()
	refused := answered(400)
	for name, test := range map[string]struct {
		a, b, large, small error // of the model's backends, the larger and the smaller fallback; nil answers
		path               string
		code               schemas.Code
	}{
		"all is well":        {path: "a"},
		"another backend":    {a: answered(500), path: "a b/failover"},
		"back to the first":  {a: answered(500), b: answered(500), path: "a b/failover a/retry l@large/fallback"},
		"a silent backend":   {a: fails(schemas.CodeUpstreamTimeout), b: answered(503), path: "a b/failover b/retry l@large/fallback"},
		"two silent ones":    {a: fails(schemas.CodeUpstreamTimeout), b: fails(schemas.CodeUpstreamTimeout), path: "a b/failover l@large/fallback"},
		"all silent":         {a: fails(schemas.CodeUpstreamTimeout), b: fails(schemas.CodeUpstreamTimeout), large: fails(schemas.CodeUpstreamTimeout), small: fails(schemas.CodeUpstreamTimeout), path: "a b/failover l@large/fallback s@small/fallback", code: schemas.CodeUpstreamTimeout},
		"too long":           {a: fails(schemas.CodeContextLength), path: "a l@large/fallback"},
		"too long for all":   {a: fails(schemas.CodeContextLength), large: fails(schemas.CodeContextLength), path: "a l@large/fallback", code: schemas.CodeContextLength},
		"too long, then ill": {a: fails(schemas.CodeContextLength), large: answered(503), path: "a l@large/fallback l@large/retry l@large/retry", code: schemas.CodeUpstreamError},
		"a refusal":          {a: refused, path: "a", code: schemas.CodeUpstreamRejected},
		"a late refusal":     {a: answered(500), b: refused, path: "a b/failover", code: schemas.CodeUpstreamRejected},
		"the filter":         {a: fails(schemas.CodeContentFilter), path: "a", code: schemas.CodeContentFilter},
		"the account":        {a: answered(401), path: "a", code: schemas.CodeUpstreamAuth},
		"the quota":          {a: answered(402), path: "a", code: schemas.CodeUpstreamAuth},
		"a fallback refuses": {a: answered(500), b: answered(500), large: refused, path: "a b/failover a/retry l@large/fallback s@small/fallback"},
		"all fallbacks refuse": {a: answered(500), b: answered(500), large: refused, small: refused,
			path: "a b/failover a/retry l@large/fallback s@small/fallback", code: schemas.CodeUpstreamError},
		"a fallback has no account": {a: answered(500), b: answered(500), large: answered(401),
			path: "a b/failover a/retry l@large/fallback", code: schemas.CodeUpstreamError},
		"a wrong address": {a: answered(404), path: "a b/failover"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				script := func(name string, e error) *scripted {
					if e == nil {
						return &scripted{name: name}
					}
					return failing3(name, e)
				}
				sized := func(n int) func(*Model) { return func(m *Model) { m.Context = n } }
				models := []*model{
					fallen(t, "m", sized(100), script("a", test.a), script("b", test.b)),
					fallen(t, "large", sized(200), script("l", test.large)),
					fallen(t, "small", sized(100), script("s", test.small)),
				}
				_, tries, err := recovered(t.Context(), &recovery{models: models})
				code := schemas.Code("")
				if err != nil {
					code = schemas.AsError(err).Code
				}
				if got := path(tries); got != test.path || code != test.code {
					t.Errorf("%s, then %q\nwant %s, then %q", got, code, test.path, test.code)
				}
				for _, m := range models {
					if slots := 4 * len(m.backends); m.guests != 0 || m.pool.Slots() != slots {
						t.Errorf("model %s has %d guests and %d of %d slots", m.name, m.guests, m.pool.Slots(), slots)
					}
				}
			})
		})
	}
}

// A failover and a fallback go at once: nobody there has said that it wants a pause.
func TestRecoveryPausesOnlyBeforeTheSameBackend(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a, b, f := failing3("a", answered(500)), failing3("b", answered(500)), &scripted{name: "f"}
		began := time.Now()
		_, tries, err := recovered(t.Context(), &recovery{models: []*model{fallen(t, "m", nil, a, b), fallen(t, "other", nil, f)}})
		if err != nil || len(tries) != 4 {
			t.Fatalf("%v after %d tries", err, len(tries))
		}
		between(t, b.times[0].Sub(began), 0, 0)
		between(t, a.times[1].Sub(began), 100*time.Millisecond, 300*time.Millisecond)
		between(t, f.times[0].Sub(a.times[1]), 0, 0)
	})
}

// Context lengths that are not configured compare with nothing.
func TestRecoveryOfUnknownContext(t *testing.T) {
	t.Parallel()
	long := fails(schemas.CodeContextLength)
	for name, test := range map[string]struct{ first, second int }{"neither": {0, 0}, "the model's": {0, 100}, "the fallback's": {100, 0}} {
		models := []*model{
			fallen(t, "m", func(m *Model) { m.Context = test.first }, failing3("a", long)),
			fallen(t, "other", func(m *Model) { m.Context = test.second }, &scripted{name: "f"}),
		}
		if _, tries, err := recovered(t.Context(), &recovery{models: models}); err == nil || len(tries) != 1 {
			t.Errorf("%s is unknown: %v after %d tries", name, err, len(tries))
		}
	}
}

// A model that asks for a longer pause than is configured is left for its fallback.
func TestRecoveryLeavesWhoWantsALongPause(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := fallen(t, "m", nil, failing3("a", fails(schemas.CodeRateLimit).WithRetryAfter(20*time.Second)))
		began := time.Now()
		_, tries, err := recovered(t.Context(), &recovery{models: []*model{m, fallen(t, "other", nil, &scripted{name: "f"})}})
		if err != nil || path(tries) != "a f@other/fallback" || time.Since(began) > 20*time.Millisecond {
			t.Errorf("%s after %v, %v", path(tries), time.Since(began), err)
		}
		// Everybody knows now: the next request does not even ask.
		_, tries, err = recovered(t.Context(), &recovery{models: []*model{m, fallen(t, "other", nil, &scripted{name: "f"})}})
		if err != nil || path(tries) != "f@other/fallback" {
			t.Errorf("the next: %s, %v", path(tries), err)
		}
		// Without a fallback the caller learns how long, at once.
		began = time.Now()
		_, tries, err = recovered(t.Context(), &recovery{models: []*model{m}})
		e := schemas.AsError(err)
		if e.Code != schemas.CodeUnavailable || e.RetryAfter < 15*time.Second || e.RetryAfter > 20*time.Second || len(tries) != 0 || time.Since(began) != 0 {
			t.Errorf("%v, retry after %v, %d tries, after %v", e, e.RetryAfter, len(tries), time.Since(began))
		}
	})
}

// A place that comes free is taken at once, and not waited for longer than a pause may be.
func TestRecoveryWaitsForAPlace(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := fallen(t, "m", func(m *Model) { m.Backends[0].MaxInFlight = 1 }, &scripted{name: "a"})
		hold := func(d time.Duration) {
			place, none := m.pick(false, balance.Ask{}, nil)
			if none != nil {
				t.Fatal(none)
			}
			time.AfterFunc(d, func() { place.release(balance.Outcome{}) })
		}
		hold(2 * time.Second)
		began := time.Now()
		if _, tries, err := recovered(t.Context(), &recovery{models: []*model{m}}); err != nil || len(tries) != 1 || tries[0].Started.Sub(began) != 2*time.Second {
			t.Errorf("%v after %v: %+v", err, time.Since(began), tries)
		}
		hold(time.Minute)
		began = time.Now()
		_, tries, err := recovered(t.Context(), &recovery{models: []*model{m}})
		if e := schemas.AsError(err); e.Code != schemas.CodeUnavailable || e.RetryAfter == 0 || len(tries) != 0 || time.Since(began) != 5*time.Second {
			t.Errorf("%v after %v and %d tries", err, time.Since(began), len(tries))
		} else if want := `model "m" cannot answer at the moment: every backend is busy; try again in 1s`; e.Message != want {
			t.Errorf("the caller is told %q, want %q", e.Message, want)
		}
		began = time.Now()
		other := fallen(t, "other", nil, &scripted{name: "f"})
		if _, tries, err = recovered(t.Context(), &recovery{models: []*model{m, other}}); err != nil || path(tries) != "f@other/fallback" {
			t.Errorf("%s, %v", path(tries), err)
		}
		if waited := tries[0].Started.Sub(began); waited != 200*time.Millisecond {
			t.Errorf("waited %v although another model could answer", waited)
		}
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(fails(schemas.CodeCancelled)) })
		if _, _, err := recovered(ctx, &recovery{models: []*model{m}}); schemas.AsError(err).Code != schemas.CodeCancelled {
			t.Errorf("cancelled while waiting: %v", err)
		}
	})
}

// TestBudget has the worst that can happen: every call fails at once. The extra calls are a tenth, and the floor.
func TestBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBudget(defaultBudget, budgetFloor, budgetEvery)
		const requests = 1000
		extra := 0
		for range requests {
			b.request()
			for b.spend() {
				extra++
			}
		}
		if want := budgetFloor + requests/10; extra > want || extra < want-1 { // the first pays into a full account
			t.Errorf("%d extra calls for %d requests, want %d", extra, requests, want)
		}
		time.Sleep(10 * budgetEvery)
		extra = 0
		for b.spend() {
			extra++
		}
		if extra != 10 {
			t.Errorf("%d extra calls after a while without requests, want 10", extra)
		}
		time.Sleep(1000 * time.Hour)
		for extra = 0; b.spend(); extra++ {
		}
		if extra != budgetFloor {
			t.Errorf("%d extra calls after a long while, want %d", extra, budgetFloor)
		}
		b.refund()
		if !b.spend() || b.spend() {
			t.Error("a call that was put back can be made once")
		}
	})
}

// When the budget is spent a failure is final, whatever could still be tried.
func TestRecoveryStaysInItsBudget(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := fallen(t, "m", func(m *Model) { m.Retry.MaxTries = 2 }, failing3("a", answered(500)))
		for m.budget.spend() {
		}
		other := fallen(t, "other", nil, &scripted{name: "f"})
		began := time.Now()
		_, tries, err := recovered(t.Context(), &recovery{models: []*model{m, other}})
		if path(tries) != "a" || schemas.AsError(err).Code != schemas.CodeUpstreamError || time.Since(began) > 20*time.Millisecond {
			t.Errorf("%s, %v after %v", path(tries), err, time.Since(began))
		}
		m.budget.refund()
		if _, tries, err = recovered(t.Context(), &recovery{models: []*model{m, other}}); path(tries) != "a a/retry" || err == nil {
			t.Errorf("with one extra call: %s, %v", path(tries), err)
		}
	})
}

func TestFallbacksMustBeOtherModels(t *testing.T) {
	t.Parallel()
	slots := []Slot{{Backend: &scripted{}, MaxInFlight: 1}}
	for fallback, good := range map[string]bool{"": true, "other": true, "m": false, "nobody": false, "other other": false} {
		_, err := newModels(map[string]Model{"m": {Backends: slots, Fallback: strings.Fields(fallback)}, "other": {Backends: slots}})
		if (err == nil) != good {
			t.Errorf("fallback %q: %v", fallback, err)
		}
	}
	if _, err := newModels(map[string]Model{"m": {Backends: slots, Retry: Retry{Budget: 101}}}); err == nil {
		t.Error("a budget of 101 % passed")
	}
}

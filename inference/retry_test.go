package inference

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"iter"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/inference/balance"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// scripted is a backend whose calls fail as listed, one after the other, and succeed from then on.
type scripted struct {
	Backend
	name     string // default scripted
	failures []error
	visible  int // events before a failure
	calls    []GenerateRequest
	times    []time.Time
}

func (s *scripted) Name() string {
	if s.name == "" {
		return "scripted"
	}
	return s.name
}

func (s *scripted) Generate(_ context.Context, r *GenerateRequest) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		s.calls, s.times = append(s.calls, *r), append(s.times, time.Now())
		chunk := &openai.Chunk{}
		if len(s.calls) <= len(s.failures) {
			for range s.visible {
				if !yield(Event{Data: []byte("{}"), Chunk: chunk}, nil) {
					return
				}
			}
			yield(Event{}, s.failures[len(s.calls)-1])
			return
		}
		time.Sleep(10 * time.Millisecond)
		yield(Event{Data: []byte("{}"), Chunk: chunk}, nil)
	}
}

// retried runs a request through the recovery of a model with one backend.
func retried(ctx context.Context, p Retry, s *scripted, deadline time.Time) (events int, tries []schemas.Try, err error) {
	m, err := newModel("m", Model{Backends: []Slot{{Backend: s, MaxInFlight: 1}}, Retry: p})
	if err != nil {
		return 0, nil, err
	}
	return recovered(ctx, &recovery{models: []*model{m}, attempt: 4, deadline: deadline})
}

// recovered makes the calls of a recovery until there is an answer or none will be.
func recovered(ctx context.Context, r *recovery) (events int, tries []schemas.Try, err error) {
	r.record = func(_ *model, t schemas.Try) { tries = append(tries, t) }
	r.call = func(ctx context.Context, t *try) said {
		return t.heard(t.place.backend.Generate(ctx, &GenerateRequest{Try: t.number}))
	}
	for _, e := range r.events(ctx) {
		if e != nil {
			return events, tries, e
		}
		events++
	}
	return events, tries, nil
}

func fails(code schemas.Code) *schemas.Error { return schemas.Errorf(code, "it failed") }

func answered(status int) *schemas.Error { return openai.ReplyError(status, nil, nil) }

func TestRetryMendsWhatPasses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{failures: []error{fails(schemas.CodeUpstreamError), answered(429)}}
		events, tries, err := retried(t.Context(), Retry{}, s, time.Time{})
		if events != 1 || err != nil {
			t.Fatalf("%d events, %v", events, err)
		}
		if len(tries) != 3 || tries[0].Outcome != schemas.CodeUpstreamError || tries[1].HTTPStatus != 429 || tries[2].Outcome != "" {
			t.Errorf("tries %+v", tries)
		}
		if last := tries[2]; last.Attempt != 4 || last.Backend != "scripted" || last.FirstTokenMS != 10 || last.DurationMS != 10 || last.Started.IsZero() {
			t.Errorf("last try %+v", last)
		}
		for i, call := range s.calls {
			if call.Try != i+1 {
				t.Errorf("call %d says it is try %d", i, call.Try)
			}
		}
		between(t, s.times[1].Sub(s.times[0]), 100*time.Millisecond, 300*time.Millisecond)
		between(t, s.times[2].Sub(s.times[1]), time.Second, 1200*time.Millisecond) // a 429 that names no time
	})
}

func between(t *testing.T, got, least, most time.Duration) {
	t.Helper()
	if got < least || got > most+time.Microsecond {
		t.Errorf("waited %v, want %v to %v", got, least, most)
	}
}

func TestRetryHonoursRetryAfter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		s := &scripted{failures: []error{fails(schemas.CodeRateLimit).WithRetryAfter(20 * time.Second)}}
		if _, _, err := retried(t.Context(), Retry{Max: 20 * time.Second}, s, time.Now().Add(time.Minute)); err != nil {
			t.Fatal(err)
		}
		between(t, s.times[1].Sub(s.times[0]), 20*time.Second, 20*time.Second)
	})
}

func TestRetryGivesUpAtOnceWhenItWouldBeTooLate(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		limited := fails(schemas.CodeRateLimit).WithRetryAfter(20 * time.Second)
		_, tries, err := retried(t.Context(), Retry{Max: time.Minute}, &scripted{failures: []error{limited}}, began.Add(10*time.Second))
		if !errors.Is(err, limited) || len(tries) != 1 || time.Since(began) != 0 {
			t.Errorf("%v after %v and %d tries", err, time.Since(began), len(tries))
		}
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		if _, _, err := retried(ctx, Retry{Max: time.Minute}, &scripted{failures: []error{limited}}, time.Time{}); !errors.Is(err, limited) || time.Since(began) != 0 {
			t.Errorf("%v after %v", err, time.Since(began))
		}
		if _, tries, err := retried(t.Context(), Retry{}, &scripted{failures: []error{limited}}, time.Time{}); !errors.Is(err, limited) || len(tries) != 1 || time.Since(began) != 0 {
			t.Errorf("%v after %v and %d tries: a pause is at most retry.max", err, time.Since(began), len(tries))
		}
	})
}

func TestRetryStops(t *testing.T) {
	t.Parallel()
	for name, failure := range map[string]error{
		"the request is wrong":     fails(schemas.CodeUpstreamRejected),
		"it is too long":           fails(schemas.CodeContextLength),
		"the credentials":          fails(schemas.CodeUpstreamAuth),
		"cancelled":                fails(schemas.CodeCancelled),
		"too late":                 fails(schemas.CodeDeadline),
		"shutting down":            fails(schemas.CodeShutdown),
		"there is no such address": answered(404),
		"redirected":               answered(302),
		"a bug":                    errors.New("bug"),
	} {
		synctest.Test(t, func(t *testing.T) {
			s := &scripted{failures: []error{failure, failure, failure}}
			if _, tries, err := retried(t.Context(), Retry{}, s, time.Time{}); err == nil || len(tries) != 1 {
				t.Errorf("%s: %v after %d tries, want one", name, err, len(tries))
			}
		})
	}
}

func TestRetryCountsTries(t *testing.T) {
	t.Parallel()
	for limit, want := range map[int]int{0: 3, 1: 1, 5: 5} {
		synctest.Test(t, func(t *testing.T) {
			s := &scripted{failures: make([]error, 10)}
			for i := range s.failures {
				s.failures[i] = fails(schemas.CodeOverloaded)
			}
			p := Retry{MaxTries: limit, Initial: time.Second, Max: 2 * time.Second}
			_, tries, err := retried(t.Context(), p, s, time.Time{})
			if e := schemas.AsError(err); e.Code != schemas.CodeOverloaded || len(tries) != want {
				t.Errorf("max_tries %d: %v after %d tries", limit, err, len(tries))
			}
			for i := 1; i < len(s.times); i++ {
				between(t, s.times[i].Sub(s.times[i-1]), 500*time.Millisecond, 3*time.Second)
			}
		})
	}
}

func TestRetryNeverRepeatsWhatWasSeen(t *testing.T) {
	t.Parallel()
	s := &scripted{failures: []error{fails(schemas.CodeUpstreamInterrupted)}, visible: 2}
	events, tries, err := retried(t.Context(), Retry{}, s, time.Time{})
	if events != 2 || len(tries) != 1 || schemas.AsError(err).Code != schemas.CodeUpstreamInterrupted {
		t.Errorf("%d events, %d tries, %v", events, len(tries), err)
	}
	if tries[0].FirstTokenMS < 0 || tries[0].Outcome != schemas.CodeUpstreamInterrupted {
		t.Errorf("try %+v", tries[0])
	}
}

func TestRetryEndsWithItsContext(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(50*time.Millisecond, func() { cancel(fails(schemas.CodeShutdown)) })
		began := time.Now()
		s := &scripted{failures: []error{fails(schemas.CodeUpstreamError)}}
		_, tries, err := retried(ctx, Retry{Initial: time.Hour, Max: time.Hour}, s, time.Time{})
		if schemas.AsError(err).Code != schemas.CodeShutdown || len(tries) != 1 || time.Since(began) != 50*time.Millisecond {
			t.Errorf("%v after %v", err, time.Since(began))
		}
	})
}

func TestRetryOfALoopThatBreaks(t *testing.T) {
	t.Parallel()
	s, tries := &scripted{name: "a", failures: []error{fails(schemas.CodeUpstreamError)}, visible: 3}, []schemas.Try(nil)
	m, err := newModel("m", Model{Backends: []Slot{{Backend: s, MaxInFlight: 1}}})
	if err != nil {
		t.Fatal(err)
	}
	r := &recovery{
		models: []*model{m}, record: func(_ *model, t schemas.Try) { tries = append(tries, t) },
		call: func(ctx context.Context, t *try) said { return t.heard(s.Generate(ctx, &GenerateRequest{})) },
	}
	for range r.events(t.Context()) {
		break
	}
	if _, busy := m.pick(false, balance.Ask{}, nil); busy != nil {
		t.Error("the place was not given back")
	}
	if len(tries) != 1 || tries[0].Outcome != schemas.CodeCancelled || len(s.calls) != 1 {
		t.Errorf("tries %+v", tries)
	}
}

func TestTryDoesNotQuoteTheServer(t *testing.T) {
	t.Parallel()
	refused := openai.ReplyError(400, nil, []byte(`{"error":{"message":"canary","code":"bad_thing"}}`))
	_, tries, err := retried(t.Context(), Retry{}, &scripted{failures: []error{refused}}, time.Time{})
	if schemas.AsError(err).Code != schemas.CodeUpstreamRejected || tries[0].HTTPStatus != 400 || tries[0].Cause != "model server: status 400, code bad_thing" {
		t.Errorf("%v, try %+v", err, tries[0])
	}
}

func TestContextError(t *testing.T) {
	t.Parallel()
	shutdown := fails(schemas.CodeShutdown)
	for want, cause := range map[schemas.Code]error{
		schemas.CodeShutdown: fmt.Errorf("wrapped: %w", shutdown), schemas.CodeCancelled: errors.New("gone"), schemas.CodeDeadline: context.DeadlineExceeded,
	} {
		ctx, cancel := context.WithCancelCause(t.Context())
		cancel(cause)
		if got := ContextError(ctx); got.Code != want {
			t.Errorf("%v: %s, want %s", cause, got.Code, want)
		}
	}
}

func TestSecretHides(t *testing.T) {
	t.Parallel()
	s := Secret("canary")
	data, err := json.Marshal(map[string]Secret{"key": s})
	yaml, _ := s.MarshalYAML()
	if shown := fmt.Sprintf("%v %+v %#v %s %q %s %v %v", s, s, s, s, s, data, yaml, s.LogValue()); err != nil || strings.Contains(shown, "canary") {
		t.Errorf("shown as %s", shown)
	}
	if Secret("").String() != "" {
		t.Error("a missing key looks set")
	}
}

package inference

import (
	"context"
	"iter"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/internal/openai"
)

// flapper is a backend that is down for a while, then up for as long, and so on.
type flapper struct {
	Backend
	name   string
	period time.Duration // 0 = it is always up
	began  time.Time

	mu    sync.Mutex
	calls int
}

func (f *flapper) Name() string { return f.name }

func (f *flapper) Generate(context.Context, *GenerateRequest) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		f.mu.Lock()
		f.calls++
		f.mu.Unlock()
		if f.period > 0 && int(time.Since(f.began)/f.period)%2 == 0 {
			yield(Event{}, answered(503))
			return
		}
		time.Sleep(100 * time.Millisecond)
		yield(Event{Data: []byte("{}"), Chunk: &openai.Chunk{}}, nil)
	}
}

// TestFlappingForAMinute has a backend that flaps for a whole minute, at twenty requests a second in simulated time. The calls
// beyond the first of each request stay within the budget, and the breaker keeps most of them away from the backend while it
// is down, yet finds out that it is back. Hardly a caller is left without an answer.
func TestFlappingForAMinute(t *testing.T) {
	t.Parallel()
	const minute, pace = time.Minute, 50 * time.Millisecond
	const fewest = 6 // of 1200: at the edge of the first second the budget may be spent just before the breaker opens
	for name, c := range map[string]struct {
		period time.Duration
		alone  bool
	}{
		"every second, with another backend":  {time.Second, false},
		"every 5 s, with another backend":     {5 * time.Second, false},
		"every 20 s, with another backend":    {20 * time.Second, false},
		"every second, with a fallback":       {time.Second, true},
		"every 5 s, with a fallback":          {5 * time.Second, true},
		"down for a minute, with a fallback":  {minute, true},
		"down for a minute, with another one": {minute, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				flapping, steady := &flapper{name: "flapping", period: c.period, began: time.Now()}, &flapper{name: "steady"}
				config := Model{Backends: []Slot{{Backend: flapping, MaxInFlight: 64}}, Retry: Retry{MaxTries: 1}}
				if !c.alone {
					config.Backends, config.Retry.MaxTries = append(config.Backends, Slot{Backend: steady, MaxInFlight: 64}), 2
				}
				m, err := newModel("m", config)
				if err != nil {
					t.Fatal(err)
				}
				models := []*model{m}
				if c.alone {
					other, err := newModel("other", Model{Backends: []Slot{{Backend: steady, MaxInFlight: 64}}})
					if err != nil {
						t.Fatal(err)
					}
					models = append(models, other)
				}
				requests, lost, asking := 0, atomic.Int64{}, sync.WaitGroup{}
				for began := time.Now(); time.Since(began) < minute; requests++ {
					asking.Go(func() {
						if events, _, err := recovered(t.Context(), &recovery{models: models}); err != nil || events != 1 {
							lost.Add(1)
						}
					})
					time.Sleep(pace)
				}
				asking.Wait()
				if n := lost.Load(); n > fewest {
					t.Errorf("%d of %d callers were left without an answer", n, requests)
				}
				most := requests + requests/10 + 20 + int(minute/(2*time.Second)) + 1
				if calls := flapping.calls + steady.calls; requests != int(minute/pace) || calls < requests || calls > most {
					t.Errorf("%d calls for %d requests, want at most %d", calls, requests, most)
				}
				if c.period < minute && flapping.calls < 20 || flapping.calls > requests*3/4 {
					t.Errorf("the flapping backend got %d of %d requests", flapping.calls, requests)
				}
			})
		})
	}
}

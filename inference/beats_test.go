package inference_test

import (
	"slices"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/schemas"
)

// beats collects the heartbeats of the workers.
type beats struct {
	mu  sync.Mutex
	all []*schemas.Heartbeat
}

func (p *pipe) beats() *beats {
	p.t.Helper()
	b := &beats{}
	stop, err := p.bus.OnBeat(func(h *schemas.Heartbeat) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.all = append(b.all, h)
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(stop)
	return b
}

// last is a worker's last heartbeat, or nil.
func (b *beats) last(worker string) *schemas.Heartbeat {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range slices.Backward(b.all) {
		if h.Worker == worker {
			return h
		}
	}
	return nil
}

// released counts how often an item was said to be released.
func (b *beats) released(sequence uint64) (n int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.all {
		for _, m := range h.Models {
			for _, released := range m.Released {
				if released == sequence {
					n++
				}
			}
		}
	}
	return n
}

// mostUsed is the largest number of slots that a worker said were in use.
func (b *beats) mostUsed() (most int) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, h := range b.all {
		for _, m := range h.Models {
			most = max(most, m.Used)
		}
	}
	return most
}

func TestBeats(t *testing.T) {
	t.Parallel()
	p := setup(t)
	beats := p.beats()
	held := stallAt(1, 1)
	p.worker("w1", &fake{words: three, gate: held.gate}, slots(3))
	told := func(want schemas.ModelBeat) {
		t.Helper()
		p.until("a beat", func() bool {
			b := beats.last("w1")
			if b == nil {
				return false
			}
			got := b.Models[0]
			got.Released, got.Backends, got.Finished = nil, nil, nil // figures come and go
			return cmp.Equal(got, want)
		})
	}
	told(schemas.ModelBeat{Model: "m", Slots: 3})
	first := p.dispatch(work("r1", 1, sampled))
	wait(t, "the call", held.reached)
	told(schemas.ModelBeat{Model: "m", Slots: 3, Used: 1, Held: []uint64{first}})
	second := p.dispatch(work("r2", 1, sampled))
	p.once(identity("r2"))
	told(schemas.ModelBeat{Model: "m", Slots: 3, Used: 1, Held: []uint64{first}})
	held.open()
	p.once(identity("r1"))
	told(schemas.ModelBeat{Model: "m", Slots: 3})
	for _, item := range []uint64{first, second} {
		p.until("the release", func() bool { return beats.released(item) > 0 })
		if n := beats.released(item); n != 1 {
			t.Errorf("item %d was released %d times", item, n)
		}
	}
}

// A worker says what another could go on with, and sums up what requests were taken for and what they took.
func TestBeatsTellFigures(t *testing.T) {
	t.Parallel()
	p := setup(t)
	beats := p.beats()
	held := stallAt(1, 1)
	usage := `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"one two three"},"finish_reason":"stop"}],` +
		`"usage":{"prompt_tokens":4,"completion_tokens":6,"total_tokens":10}}`
	p.worker("w1", &fake{words: three, gate: held.gate, deterministic: true, whole: []byte(usage)}, slots(3))
	first := p.dispatch(work("r1", 1, greedy))
	wait(t, "the call", held.reached)
	p.until("a beat that says so", func() bool {
		b := beats.last("w1")
		return b != nil && cmp.Equal(b.Models[0].Repeatable, []uint64{first})
	})
	counted := work("r2", 1, whole)
	counted.Cost = 500
	p.dispatch(counted)
	p.once(identity("r2"))
	want := &schemas.ModelUsage{Requests: 1, EstTokens: 500, Tokens: 10}
	p.until("the figures", func() bool {
		b := beats.last("w1")
		m := b.Models[0]
		tenant := slices.Contains(b.Tenants, schemas.TenantUsage{Tenant: identity("r1").Tenant, Running: 1, Tokens: 7})
		return cmp.Equal(m.Finished, want) && tenant && len(m.Backends) == 1 && m.Backends[0].InFlight == 1
	})
	held.open()
	p.once(identity("r1"))
	p.until("nothing to go on with", func() bool { return len(beats.last("w1").Models[0].Repeatable) == 0 })
}

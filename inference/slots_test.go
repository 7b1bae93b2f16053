package inference

import (
	"context"
	"testing"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/inference/balance"
	"github.com/weir-llm/weir/schemas"
)

func roomOf(m *model) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.room()
}

// breakDown makes so many calls fail that the only backend of the model is out of service.
func breakDown(t *testing.T, m *model) {
	t.Helper()
	for range 20 {
		place, none := m.pick(false, balance.Ask{}, nil)
		if none != nil {
			t.Fatal(none)
		}
		place.release(balance.Outcome{Result: balance.Failed})
	}
}

func TestRoomFollowsTheBackends(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var changes []balance.Change
		m := fallen(t, "m", nil, &scripted{name: "a"})
		m.notify = func(_ *model, c balance.Change) { changes = append(changes, c) }
		if room := roomOf(m); room != 4 {
			t.Fatalf("room for %d, want 4", room)
		}
		m.hold(1) // it has no call yet, and will want one
		if room := roomOf(m); room != 3 {
			t.Errorf("room for %d beside an item, want 3", room)
		}
		place, _ := m.pick(false, balance.Ask{}, nil) // its call
		if room := roomOf(m); room != 3 {
			t.Errorf("room for %d beside an item with a call, want 3", room)
		}
		place.release(balance.Outcome{})
		m.letGo(1)
		breakDown(t, m)
		if beat := m.beat(true); beat.Slots != 0 || beat.Backends[0].State != "open" || beat.OutMS < 4000 || beat.OutMS > 6000 {
			t.Errorf("the heartbeat says %+v", beat)
		}
		if len(changes) != 1 || changes[0].To != balance.Open {
			t.Errorf("told of %+v", changes)
		}
		other := fallen(t, "other", nil, &scripted{name: "b"})
		m.fallback = append(m.fallback, other)
		if room := roomOf(m); room != 4 {
			t.Errorf("room for %d while the fallback stands in, want 4", room)
		}
		if beat := m.beat(true); beat.OutMS != 0 {
			t.Errorf("it is out for %d ms although the fallback stands in", beat.OutMS)
		}
		m.fallback = nil
		time.Sleep(6 * time.Second)
		if room, err := m.waitFree(t.Context()); err != nil || room != 3 {
			t.Errorf("room for %d probes, want 3: %v", room, err)
		}
	})
}

// TestWaitFreeSeesTheBackendComeBack waits for room that nothing but time brings.
func TestWaitFreeSeesTheBackendComeBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		m := fallen(t, "m", nil, &scripted{name: "a"})
		breakDown(t, m)
		began := time.Now()
		if _, err := m.waitFree(t.Context()); err != nil {
			t.Fatal(err)
		}
		if waited := time.Since(began); waited < 5*time.Second || waited > 7*time.Second {
			t.Errorf("waited %s for a breaker that is open for 5 to 6s", waited)
		}
	})
}

func TestPrefix(t *testing.T) {
	t.Parallel()
	const first = `{"model":"m","messages":[{"role":"system","content":"be brief"},{"role":"user","content":"one"}`
	conversation := prefixOf([]byte(first + `]}`))
	for body, same := range map[string]bool{
		first + `,{"role":"assistant","content":"x"},{"role":"user","content":"two"}],"stream":true}`: true,
		`{"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"two"}]}`:       false,
		`{"messages":[{"role":"user","content":"one"}]}`:                                              false,
		first + `],"prompt_cache_key":"k"}`:                                                           false,
	} {
		if got := prefixOf([]byte(body)); (got == conversation) != same || got == 0 {
			t.Errorf("%s: the same conversation: %t, want %t", body, got == conversation, same)
		}
	}
	if a, b := prefixOf([]byte(`{"prompt_cache_key":"k","messages":[]}`)), prefixOf([]byte(first+`],"prompt_cache_key":"k"}`)); a != b {
		t.Error("the caller's key does not tell conversations apart")
	}
	if got := prefixOf([]byte(`{"input":"x"}`)); got != 0 {
		t.Errorf("a body without a conversation has prefix %d", got)
	}
}

func TestHealthOutcome(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		err  error
		want balance.Result
	}{
		"well":            {nil, balance.Neutral},
		"no such path":    {answered(404), balance.Neutral},
		"cannot be":       {fails(schemas.CodeUpstreamError), balance.Failed},
		"answers 503":     {answered(503), balance.Failed},
		"does not answer": {fails(schemas.CodeUpstreamTimeout), balance.Failed},
	} {
		if got := healthOutcome(c.err).Result; got != c.want {
			t.Errorf("%s: %v, want %v", name, got, c.want)
		}
	}
}

// ill is a backend whose health can be asked.
type ill struct {
	*scripted
	err   error
	asked int
}

func (i *ill) Health(context.Context) error { i.asked++; return i.err }

func TestHealthIsAskedOfThoseThatMayBeBack(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		backend := &ill{scripted: &scripted{name: "a"}, err: answered(503)}
		m, err := newModel("m", Model{Backends: []Slot{{Backend: backend, MaxInFlight: 4}}})
		if err != nil {
			t.Fatal(err)
		}
		h := newHealth(&Worker{models: []*model{m}})
		h.check(t.Context()) // it works
		breakDown(t, m)
		h.check(t.Context()) // it is known not to work
		if backend.asked != 0 {
			t.Errorf("asked %d times without need", backend.asked)
		}
		time.Sleep(6 * time.Second)
		h.check(t.Context())
		if out := m.pool.OutFor(); backend.asked != 1 || out < 10*time.Second {
			t.Errorf("asked %d times, and out for %s although it said no", backend.asked, out)
		}
		backend.err = nil
		time.Sleep(12 * time.Second)
		h.check(t.Context())
		if free := m.pool.Free(); backend.asked != 2 || free != 3 {
			t.Errorf("asked %d times, and %d probes may go although it is there, want 3", backend.asked, free)
		}
	})
}

package inference_test

import (
	"context"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/balance"
	"github.com/weir-llm/weir/schemas"
)

// sick is a backend that fails, until it is cured.
type sick struct {
	fake
	cured atomic.Bool
}

// TestBackendOutOfService has a backend fail until it gets no more calls, and be back: seen from LLM_EVENTS, the metrics and
// the heartbeat.
func TestBackendOutOfService(t *testing.T) {
	t.Parallel()
	p := setup(t)
	beats := p.beats()
	told := p.events(t)
	s := &sick{}
	s.words = three
	s.gate = func(context.Context, int, int) error {
		if s.cured.Load() {
			return nil
		}
		return schemas.Errorf(schemas.CodeUpstreamError, "sick")
	}
	w := p.worker("w1", s, model(func(m *inference.Model) {
		m.Retry.MaxTries = 1
		m.Balance.Breaker = balance.Breaker{MinRequests: 4, Open: 300 * time.Millisecond, Probes: 1}
	}))
	for i := range 4 {
		id := fmt.Sprint("bad", i)
		p.dispatch(work(id, 1, sampled))
		p.ended(identity(id))
	}
	p.until("the heartbeat to say so", func() bool {
		b := beats.last("w1")
		return b != nil && len(b.Models[0].Backends) == 1 && b.Models[0].Backends[0].State != ""
	})
	s.cured.Store(true)
	p.dispatch(work("good", 1, sampled))
	if result := p.ended(identity("good")); result.Status != schemas.StatusCompleted {
		t.Errorf("the probe ended as %s", result.Status)
	}
	p.until("the breaker to be closed", func() bool {
		b := beats.last("w1")
		return b != nil && len(b.Models[0].Backends) == 1 && b.Models[0].Backends[0].State == ""
	})
	opened, closed := <-told, <-told
	if opened.State != "open" || opened.Worker != "w1" || opened.Model != "m" || opened.Backend != "fake" || opened.ForMS < 300 || closed.State != "closed" {
		t.Errorf("told of %+v and %+v", opened, closed)
	}
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]float64{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			seen[f.GetName()] += m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	if seen["weir_inference_breaker_changes_total"] < 2 || seen["weir_inference_backend_limit"] == 0 || seen["weir_inference_backend_breaker_state"] != 0 {
		t.Errorf("the metrics say %v", seen)
	}
}

// events are those of backends, as they come.
func (p *pipe) events(t *testing.T) <-chan *schemas.BackendEvent {
	t.Helper()
	conn, err := nats.Connect("", nats.InProcessServer(p.server), nats.UserInfo(p.server.Username(), p.server.Password()), nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	told := make(chan *schemas.BackendEvent, 16)
	if _, err := conn.Subscribe(schemas.EventSubject(schemas.EventBackend), func(m *nats.Msg) {
		if e, err := schemas.DecodeBackendEvent(m.Data); err == nil {
			told <- e
		}
	}); err != nil {
		t.Fatal(err)
	}
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	return told
}

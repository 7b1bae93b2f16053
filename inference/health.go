package inference

import (
	"context"
	"sync"
	"time"

	"github.com/weir-llm/weir/inference/balance"
	"github.com/weir-llm/weir/schemas"
)

const (
	// checkEvery is how often a backend that may be back is asked how it is, so that it need not be a request that finds out.
	checkEvery = 5 * time.Second

	checkTimeout = 5 * time.Second
)

// backendChange is a backend that went out of service, or came back.
type backendChange struct {
	model  *model
	change balance.Change
}

// health tells what becomes of the backends, and looks after those that are out of service.
type health struct {
	w       *Worker
	changes chan backendChange
}

func newHealth(w *Worker) *health { return &health{w: w, changes: make(chan backendChange, 64)} }

// changed takes note of a change. It does not block: when there are more than can be told, some are not.
func (h *health) changed(m *model, c balance.Change) {
	select {
	case h.changes <- backendChange{m, c}:
	default:
	}
}

func (h *health) run(ctx context.Context) {
	ticker := time.NewTicker(checkEvery)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case c := <-h.changes:
			h.tell(c)
		case <-ticker.C:
			h.check(ctx)
		}
	}
}

// tell logs a change, and says it to the router and to whoever reads LLM_EVENTS.
func (h *health) tell(c backendChange) {
	h.w.beats.soon()
	name := c.model.backends[c.change.Member].Backend.Name()
	h.w.meters.breakers.WithLabelValues(c.model.name, name, c.change.To.String()).Inc()
	if c.change.To == balance.Open {
		h.w.log.Warn("a backend is out of service: too many of its calls failed", "model", c.model.name, "backend", name, "for", c.change.For)
	} else {
		h.w.log.Info("a backend is back in service", "model", c.model.name, "backend", name)
	}
	event := &schemas.BackendEvent{
		V: schemas.Version, Worker: h.w.cfg.Name, Model: c.model.name, Backend: name, State: c.change.To.String(),
		ForMS: c.change.For.Milliseconds(), Time: time.Now().UTC(),
	}
	h.w.bus.Event(schemas.EventBackend, event.Encode())
}

// check asks every backend that waits for probes. One that cannot be reached stays out of service; one that can is left to
// real calls, since a server may list its models and still fail to run them.
func (h *health) check(ctx context.Context) {
	var checks sync.WaitGroup
	defer checks.Wait()
	for _, m := range h.w.models {
		for i := range m.backends {
			call := m.pool.Probe(i)
			if call == nil {
				continue
			}
			checks.Go(func() {
				ctx, cancel := context.WithTimeout(ctx, checkTimeout)
				defer cancel()
				call.Done(healthOutcome(m.backends[i].Backend.Health(ctx)))
			})
		}
	}
}

// healthOutcome is what an answer to a question about health tells. An answer that refuses the question is one: not every
// server knows it.
func healthOutcome(err error) balance.Outcome {
	if err == nil {
		return balance.Outcome{}
	}
	e := schemas.AsError(err)
	if status := httpStatus(e); e.Code == schemas.CodeCancelled || status >= 300 && status < 500 {
		return balance.Outcome{}
	}
	return balance.Outcome{Result: balance.Failed}
}

package inference

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// model is a served model: its slots and what holds them.
type model struct {
	name, token string
	backends    []Slot
	retry       Retry
	price       *schemas.Price // nil: none
	total       time.Duration
	overdue     *schemas.Error // of a request that ran longer than total; shared and never changed
	slots       int
	freed       chan struct{} // capacity 1: a slot may be free

	mu       sync.Mutex
	busy     map[string]int // calls by backend
	held     []uint64       // LLM_WORK sequences that run
	released []uint64       // sequences let go since the last beat
}

func newModel(name string, m Model) (*model, error) {
	token, err := schemas.EncodeModel(name)
	if err != nil {
		return nil, fmt.Errorf("inference: model %q: %w", name, err)
	}
	if len(m.Backends) == 0 {
		return nil, fmt.Errorf("inference: model %q has no backends", name)
	}
	served := &model{
		name: name, token: token, backends: m.Backends, retry: m.Retry, price: m.Price, total: m.Total,
		freed: make(chan struct{}, 1), busy: map[string]int{},
	}
	if served.total <= 0 || served.total > schemas.MaxRunTime {
		served.total = schemas.MaxRunTime
	}
	served.overdue = schemas.Errorf(schemas.CodeUpstreamTimeout, "the request ran longer than %s, the model's total time", served.total)
	for _, slot := range m.Backends {
		if slot.MaxInFlight < 1 {
			return nil, fmt.Errorf("inference: backend %q of model %q: max_in_flight is %d, use at least 1", slot.Backend.Name(), name, slot.MaxInFlight)
		}
		served.slots += slot.MaxInFlight
	}
	return served, nil
}

// serve takes work while slots are free until ctx ends, and returns when nothing runs any more. Runs live in work.
func (w *Worker) serve(ctx, work context.Context, m *model) {
	puller := w.bus.Work(m.token)
	var running sync.WaitGroup
	defer running.Wait()
	defer puller.Close()
	for {
		free, err := m.waitFree(ctx)
		if err != nil {
			return
		}
		batch, err := puller.Fetch(ctx, free)
		if err != nil {
			if ctx.Err() == nil {
				w.log.Error("taking work failed", "model", m.name, "error", err)
			}
			return
		}
		for _, d := range batch {
			backend := m.take(d.Sequence)
			w.beats.soon()
			running.Go(func() {
				defer w.beats.soon()
				defer m.release(d.Sequence, backend)
				w.handle(work, m, backend, d)
			})
		}
	}
}

// waitFree blocks until a slot is free and returns how many are.
func (m *model) waitFree(ctx context.Context) (int, error) {
	for {
		m.mu.Lock()
		free := m.slots - len(m.held)
		m.mu.Unlock()
		if free > 0 {
			return free, nil
		}
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-m.freed:
		}
	}
}

// take gives an item the backend with the largest free share.
func (m *model) take(sequence uint64) Backend {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = append(m.held, sequence)
	best := slices.MinFunc(m.backends, func(a, b Slot) int {
		return m.busy[a.Backend.Name()]*b.MaxInFlight - m.busy[b.Backend.Name()]*a.MaxInFlight
	})
	m.busy[best.Backend.Name()]++
	return best.Backend
}

func (m *model) release(sequence uint64, backend Backend) {
	m.mu.Lock()
	m.busy[backend.Name()]--
	if i := slices.Index(m.held, sequence); i >= 0 {
		m.held = slices.Delete(m.held, i, i+1)
	}
	if !slices.Contains(m.held, sequence) { // a copy that was dropped leaves the item held
		m.released = append(m.released, sequence)
	}
	m.mu.Unlock()
	select {
	case m.freed <- struct{}{}:
	default:
	}
}

// beat is the model's part of a heartbeat.
func (m *model) beat() schemas.ModelBeat {
	m.mu.Lock()
	defer m.mu.Unlock()
	beat := schemas.ModelBeat{Model: m.token, Slots: m.slots, Used: len(m.held), Held: slices.Clone(m.held), Released: m.released}
	m.released = nil
	return beat
}

// handle runs one delivery and settles it. It is the one place where a panic of a run is caught.
func (w *Worker) handle(ctx context.Context, m *model, backend Backend, d *bus.Delivery) {
	outcome := bus.Silent
	defer func() {
		if p := recover(); p != nil {
			w.recovered(p, d)
		}
		d.Settle(outcome)
	}()
	release := d.Hold(ctx)
	defer release()
	outcome = w.run(ctx, m, backend, d)
}

package inference

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/weir-llm/weir/inference/balance"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// model is a served model: its slots and what holds them.
type model struct {
	name, token string
	backends    []Slot
	pool        *balance.Pool // of the backends, in their order
	fallback    []*model
	context     int // tokens that it takes; 0 = unknown
	retry       Retry
	midstream   Midstream
	budget      *budget
	hedge       *hedger               // nil: no request is hedged
	price       func() *schemas.Price // gives nil when there is none
	total       time.Duration
	overdue     *schemas.Error // of a request that ran longer than total; shared and never changed
	affinity    bool
	freed       chan struct{}                // capacity 1: a slot may be free
	notify      func(*model, balance.Change) // of a backend that went out of service or came back; optional
	closed      func() bool                  // the worker takes nothing at the moment; optional

	mu       sync.Mutex
	guests   int      // calls for requests of other models
	held     []uint64 // LLM_WORK sequences that run
	repeat   []uint64 // those of them that another worker can go on with, whatever is visible
	released []uint64 // sequences let go since the last beat
	finished schemas.ModelUsage
}

func newModel(name string, m Model) (*model, error) {
	token, err := schemas.EncodeModel(name)
	if err != nil {
		return nil, fmt.Errorf("inference: model %q: %w", name, err)
	}
	if len(m.Backends) == 0 {
		return nil, fmt.Errorf("inference: model %q has no backends", name)
	}
	if err := m.Retry.Validate(); err != nil {
		return nil, fmt.Errorf("inference: model %q: %w", name, err)
	}
	if err := errors.Join(m.Hedge.Validate(), m.Midstream.Validate()); err != nil {
		return nil, fmt.Errorf("inference: model %q: %w", name, err)
	}
	retry := m.Retry.withDefaults()
	served := &model{
		name: name, token: token, backends: m.Backends, context: m.Context, retry: retry, price: m.Price, total: m.Total,
		affinity: m.Balance.Affinity,
		budget:   newBudget(retry.Budget, budgetFloor, budgetEvery), hedge: newHedger(m.Hedge), midstream: m.Midstream.withDefaults(), freed: make(chan struct{}, 1),
	}
	if served.price == nil {
		served.price = func() *schemas.Price { return nil }
	}
	if served.total <= 0 || served.total > schemas.MaxRunTime {
		served.total = schemas.MaxRunTime
	}
	served.overdue = schemas.Errorf(schemas.CodeUpstreamTimeout, "the request ran longer than %s, the model's total time", served.total)
	for _, slot := range m.Backends {
		if slot.MaxInFlight < 1 {
			return nil, fmt.Errorf("inference: backend %q of model %q: max_in_flight is %d, use at least 1", slot.Backend.Name(), name, slot.MaxInFlight)
		}
	}
	if served.pool, err = newPool(m, served.changed); err != nil {
		return nil, fmt.Errorf("inference: model %q: %w", name, err)
	}
	return served, nil
}

func (m *model) changed(c balance.Change) {
	if m.notify != nil {
		m.notify(m, c)
	}
}

// request counts one request in what the model may spend on further calls.
func (m *model) request() {
	m.budget.request()
	if m.hedge != nil {
		m.hedge.share.request()
	}
}

// newModels makes the models of a worker, and lets each know those that may stand in for it.
func newModels(config map[string]Model) ([]*model, error) {
	byName, all := make(map[string]*model, len(config)), make([]*model, 0, len(config))
	for name, m := range config {
		served, err := newModel(name, m)
		if err != nil {
			return nil, err
		}
		byName[name], all = served, append(all, served)
	}
	for _, m := range all {
		for _, name := range config[m.name].Fallback {
			other := byName[name]
			if other == nil || other == m || slices.Contains(m.fallback, other) {
				return nil, fmt.Errorf("inference: model %q: fallback %q is not another model of this worker, or is named twice", m.name, name)
			}
			m.fallback = append(m.fallback, other)
		}
	}
	return all, nil
}

// serve takes work while slots are free until ctx ends, and returns when nothing runs any more. Runs live in work.
func (w *Worker) serve(ctx, work context.Context, m *model) {
	var running sync.WaitGroup
	defer running.Wait()
	for {
		taking, stop, err := w.solitude.taking(ctx)
		if err != nil {
			return
		}
		err = w.take(taking, work, m, &running)
		stop()
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			w.log.Error("taking work failed", "model", m.name, "error", err)
			return
		}
	}
}

// take takes work while slots are free until ctx ends, and gives back what was on its way. Runs live in work.
func (w *Worker) take(ctx, work context.Context, m *model, running *sync.WaitGroup) error {
	puller := w.bus.Work(m.token)
	defer puller.Close()
	for {
		free, err := m.waitFree(ctx)
		if err != nil {
			return nil
		}
		batch, err := puller.Fetch(ctx, free)
		if ctx.Err() != nil {
			err = nil
		}
		if err != nil || len(batch) == 0 {
			return err
		}
		for _, d := range batch {
			m.hold(d.Sequence)
			w.beats.soon()
			running.Add(1)
			w.crew.do(func() {
				defer running.Done()
				w.handle(work, m, d)
			})
		}
	}
}

// hold gives an item a slot.
func (m *model) hold(sequence uint64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = append(m.held, sequence)
}

// letGo ends the hold of an item.
func (m *model) letGo(sequence uint64) {
	m.mu.Lock()
	if i := slices.Index(m.held, sequence); i >= 0 {
		m.held = slices.Delete(m.held, i, i+1)
	}
	if i := slices.Index(m.repeat, sequence); i >= 0 {
		m.repeat = slices.Delete(m.repeat, i, i+1)
	}
	if !slices.Contains(m.held, sequence) { // a copy that was dropped leaves the item held
		m.released = append(m.released, sequence)
	}
	m.mu.Unlock()
	m.slotFreed()
}

// handle runs one delivery and settles it. It is the one place where a panic of a run is caught.
func (w *Worker) handle(ctx context.Context, m *model, d *bus.Delivery) {
	outcome := bus.Silent
	defer func() {
		if p := recover(); p != nil {
			w.recovered(p, d)
		}
		d.Settle(outcome)
		m.letGo(d.Sequence)
		w.beats.soon()
	}()
	if !w.solitude.enter() {
		outcome = bus.Nak
		return
	}
	defer w.solitude.leave()
	release := d.Hold(ctx)
	defer release()
	outcome = w.run(ctx, m, d)
}

package inference

import (
	"errors"
	"slices"

	"github.com/weir-llm/weir/inference/balance"
	"github.com/weir-llm/weir/schemas"
)

// place is a backend of a model that has room for one call, until it is released. It is owned by one goroutine.
type place struct {
	model   *model
	backend Backend
	call    *balance.Call
	guest   bool // the call is for a request of another model
	free    bool // it was given back
}

// pick takes a place at the backend that should have the next call, of those that are not excluded.
func (m *model) pick(guest bool, ask balance.Ask, excluded func(Backend) bool) (*place, *balance.UnavailableError) {
	if excluded != nil {
		ask.Not = func(i int) bool { return excluded(m.backends[i].Backend) }
	}
	call, err := m.pool.Pick(ask)
	if none, ok := errors.AsType[*balance.UnavailableError](err); ok {
		return nil, none
	}
	if guest {
		m.mu.Lock()
		m.guests++
		m.mu.Unlock()
	}
	return &place{model: m, backend: m.backends[call.Member()].Backend, call: call, guest: guest}, nil
}

// release gives the place back and says how the call ended. Only the first time counts.
func (p *place) release(o balance.Outcome) {
	p.call.Done(o)
	if !p.guest || p.free {
		return
	}
	p.free = true
	p.model.mu.Lock()
	p.model.guests--
	p.model.mu.Unlock()
	p.model.slotFreed()
}

// newPool balances the calls of a model over its backends.
func newPool(m Model, notify func(balance.Change)) (*balance.Pool, error) {
	members := make([]balance.Member, len(m.Backends))
	for i, slot := range m.Backends {
		members[i] = balance.Member{
			Name: slot.Backend.Name(), Weight: slot.Weight, MaxInFlight: slot.MaxInFlight, SlowStart: m.Balance.SlowStart,
		}
	}
	return balance.New(balance.Config{
		Members: members, Affinity: balance.Affinity{On: m.Balance.Affinity}, Breaker: m.Balance.Breaker, Adaptive: m.Balance.Adaptive,
		Notify: notify,
	})
}

// ask is what a call of the request needs.
func (r *run) ask() balance.Ask {
	ask := balance.Ask{Prompt: int64(len(r.request.Body)) * 10 / 36} // bytes / 3.6, as the router estimates
	if ask.Tokens = r.work.Cost; ask.Tokens == 0 {
		ask.Tokens = ask.Prompt + int64(r.request.MaxTokens)
	}
	if r.m.affinity {
		ask.Prefix = prefixOf(r.request.Body)
	}
	return ask
}

// outcomeOf is what the end of a call says about the backend. What only the request is to blame for says nothing. A backend
// that refuses the operator's account, or does not know the model, is no use to anyone: since it fails fast it would
// otherwise look idle, and get all the calls.
func outcomeOf(t *try, e *schemas.Error) balance.Outcome {
	switch {
	case t.stopped || !t.called:
		return balance.Outcome{}
	case e == nil:
		return balance.Outcome{Result: balance.Success}
	}
	switch e.Code {
	case schemas.CodeRateLimit, schemas.CodeSlowDown:
		return balance.Outcome{Result: balance.TooMany, RetryAfter: e.RetryAfter}
	case schemas.CodeUpstreamTimeout:
		if t.first.IsZero() && silent(e) {
			return balance.Outcome{Result: balance.FirstTokenTimeout}
		}
		return balance.Outcome{Result: balance.Failed}
	case schemas.CodeOverloaded, schemas.CodeUnavailable, schemas.CodeUpstreamError, schemas.CodeUpstreamInterrupted,
		schemas.CodeUpstreamAuth, schemas.CodeModelNotFound:
		return balance.Outcome{Result: balance.Failed}
	}
	return balance.Outcome{}
}

// excluding excludes two lists.
func excluding(not, only []Backend) func(Backend) bool {
	if len(not) == 0 && only == nil {
		return nil
	}
	return func(b Backend) bool { return slices.Contains(not, b) || only != nil && !slices.Contains(only, b) }
}

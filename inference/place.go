package inference

import "time"

// busyRetry is how soon a model all of whose places are taken is looked at again.
const busyRetry = 50 * time.Millisecond

// place is a backend of a model that has room for one call, until it is released.
type place struct {
	model   *model
	backend Backend
	guest   bool // the call is for a request of another model
}

// busyError says that a model has no place.
type busyError struct {
	after time.Duration // when one may be free; 0 = never
}

// pick takes a place at the backend with the largest free share, of those that are not excluded.
func (m *model) pick(guest bool, excluded func(Backend) bool) (*place, *busyError) {
	m.mu.Lock()
	defer m.mu.Unlock()
	var best *Slot
	busy := &busyError{}
	for i := range m.backends {
		slot := &m.backends[i]
		switch {
		case excluded(slot.Backend):
		case m.busy[slot.Backend.Name()] >= slot.MaxInFlight:
			busy.after = busyRetry
		case best == nil || m.busy[slot.Backend.Name()]*best.MaxInFlight < m.busy[best.Backend.Name()]*slot.MaxInFlight:
			best = slot
		}
	}
	if best == nil {
		return nil, busy
	}
	m.busy[best.Backend.Name()]++
	if guest {
		m.guests++
	}
	return &place{model: m, backend: best.Backend, guest: guest}, nil
}

// release gives the place back.
func (p *place) release() {
	m := p.model
	m.mu.Lock()
	m.busy[p.backend.Name()]--
	if p.guest {
		m.guests--
	}
	m.mu.Unlock()
	if p.guest {
		m.slotFreed()
	}
}

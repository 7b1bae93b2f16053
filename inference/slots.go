package inference

import (
	"context"
	"slices"
	"time"

	"github.com/weir-llm/weir/inference/balance"
	"github.com/weir-llm/weir/schemas"
)

// lookAgain is how often a model without room is looked at although nothing has told of a change.
const lookAgain = time.Second

// used is how many slots are, those of the guests among them. The caller holds mu.
func (m *model) used() int { return len(m.held) + m.guests }

// room is how many more items the model may take: as many as calls may start, less the items that have none at the
// moment and will want one; none while a request must run alone. While its backends are out of service the room of its fallbacks counts, which will answer.
// The caller holds mu.
func (m *model) room() int {
	if m.closed != nil && m.closed() {
		return 0
	}
	free, slots := m.pool.Free(), m.pool.Slots()
	room := min(free, slots-m.used())
	if free > 0 || m.pool.OutFor() == 0 {
		return max(0, room)
	}
	for _, other := range m.fallback {
		room += other.pool.Free()
	}
	return max(0, room)
}

// maxOut is the longest time for which a model is said to be out: of one that is drained nobody knows.
const maxOut = time.Minute

// outFor is how long still neither the model nor a fallback makes any call; 0 = one may.
func (m *model) outFor() time.Duration {
	soonest := min(m.pool.OutFor(), maxOut)
	for _, other := range m.fallback {
		soonest = min(soonest, other.pool.OutFor())
	}
	return soonest
}

// waitFree blocks until there is room and returns how much.
func (m *model) waitFree(ctx context.Context) (int, error) {
	look := func() int {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.room()
	}
	if room := look(); room > 0 {
		return room, nil
	}
	timer := time.NewTimer(lookAgain)
	defer timer.Stop()
	for {
		changed := m.pool.Changed()
		if room := look(); room > 0 {
			return room, nil
		}
		timer.Reset(m.until())
		select {
		case <-ctx.Done():
			return 0, context.Cause(ctx)
		case <-m.freed:
		case <-changed:
		case <-timer.C:
		}
	}
}

// until is after how long there may be room although nothing changes.
func (m *model) until() time.Duration {
	if again := m.pool.Again(); again > 0 {
		return min(again, lookAgain)
	}
	return lookAgain
}

func (m *model) slotFreed() {
	select {
	case m.freed <- struct{}{}:
	default:
	}
}

// beat is the model's part of a heartbeat, with figures or without.
func (m *model) beat(figures bool) schemas.ModelBeat {
	m.mu.Lock()
	defer m.mu.Unlock()
	used := m.used()
	beat := schemas.ModelBeat{
		Model: m.token, Slots: used + m.room(), Used: used,
		Held: slices.Clone(m.held), Repeatable: slices.Clone(m.repeat), Released: m.released,
	}
	m.released = nil
	if beat.Slots == used { // it may be out
		beat.OutMS = m.outFor().Milliseconds()
	}
	if figures {
		finished := m.finished
		beat.Finished, beat.Backends = &finished, m.backendBeats()
	}
	return beat
}

func (m *model) backendBeats() (all []schemas.BackendBeat) {
	for _, s := range m.pool.State() {
		beat := schemas.BackendBeat{Name: s.Name, InFlight: s.InFlight, Limit: s.Limit}
		switch {
		case s.Drained:
			beat.State = "drained"
		case s.Refused:
			beat.State = "refusing"
		case s.Breaker != balance.Closed:
			beat.State = s.Breaker.String()
		}
		all = append(all, beat)
	}
	return all
}

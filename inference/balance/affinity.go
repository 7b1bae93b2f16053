package balance

import (
	"errors"
	"math"
	"time"
)

// Affinity sends the calls of a conversation to the same member, which may still hold what it computed for how the
// conversation begins. The zero value is off.
type Affinity struct {
	On bool

	// Factor is how much busier than all together, in relation to what may run on it, a member may be and still be
	// preferred; default 1.25. Below a quarter of what may run on it a member is never too busy.
	Factor float64
}

func (a Affinity) withDefaults() (Affinity, error) {
	if a.Factor == 0 {
		a.Factor = 1.25
	}
	if !(a.Factor >= 1 && a.Factor <= 100) {
		return a, errors.New("factor must be 1 to 100; 1.25 is the default")
	}
	return a, nil
}

// Validate reports a setting that cannot be meant.
func (a Affinity) Validate() error {
	_, err := a.withDefaults()
	return err
}

// attached is the member that the conversation prefers among those that are not too busy, or -1: rendezvous hashing with
// bounded loads. A member that comes or goes moves only the conversations that it has.
func (p *Pool) attached(ask Ask, now time.Duration) int {
	if !p.affinity.On || ask.Prefix == 0 {
		return -1
	}
	running, room := 1, 0
	for i := range p.members {
		if m := &p.members[i]; !m.drained {
			running, room = running+m.inFlight, room+m.limit(now)
		}
	}
	busy := p.affinity.Factor * float64(running) / float64(max(room, 1))
	best, highest := -1, math.Inf(-1)
	for i := range p.members {
		m := &p.members[i]
		limit := float64(m.limit(now))
		if m.free(now) == 0 || float64(m.inFlight+1) > max(1, limit/4, busy*limit) || ask.Not != nil && ask.Not(i) {
			continue
		}
		if score := m.rendezvous(ask.Prefix); score > highest {
			best, highest = i, score
		}
	}
	return best
}

// rendezvous is the member's score for a conversation: the highest has it. Each gets conversations by its weight.
func (m *member) rendezvous(prefix uint64) float64 {
	x := (prefix ^ m.hash) + 0x9e3779b97f4a7c15 // SplitMix64
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	x ^= x >> 31
	return -m.weight / math.Log((float64(x>>11)+0.5)/(1<<53))
}

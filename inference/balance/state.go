package balance

import (
	"math"
	"time"
)

// Free is how many more calls could start now.
func (p *Pool) Free() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, free := p.now(), 0
	for i := range p.members {
		free += p.members[i].free(now)
	}
	return free
}

// Slots is how many calls could run now: those in flight and those that are free.
func (p *Pool) Slots() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, slots := p.now(), 0
	for i := range p.members {
		slots += p.members[i].inFlight + p.members[i].free(now)
	}
	return slots
}

// Again is after how long more calls may be possible although nothing changes; 0 = only after a change.
func (p *Pool) Again() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, soonest := p.now(), time.Duration(0)
	for i := range p.members {
		if again := p.members[i].again(now); again > 0 && (soonest == 0 || again < soonest) {
			soonest = again
		}
	}
	return soonest
}

// MemberState is a member at one moment.
type MemberState struct {
	Name     string
	InFlight int
	Tokens   int64         // of the calls in flight
	Limit    int           // calls that may run on it; 0 while it is drained or closed
	Breaker  BreakerState  // Closed is the good one
	Until    time.Duration // how long it still gets no calls at all; 0 = it may get some
	Drained  bool
	Refused  bool          // it said 429 and is left alone
	Latency  time.Duration // to first token, recent; 0 = not known
}

// State is what is known of the members, in the order of [Config.Members].
func (p *Pool) State() []MemberState {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	states := make([]MemberState, len(p.members))
	for i := range p.members {
		m := &p.members[i]
		s := MemberState{
			Name: m.name, InFlight: m.inFlight, Tokens: m.tokens, Breaker: m.breaker.state(now), Drained: m.drained,
			Refused: m.gate.closed(now), Latency: m.latency.value,
		}
		if s.Breaker == Open || s.Refused {
			s.Until = m.again(now)
		} else if !s.Drained {
			s.Limit = m.limit(now)
			if s.Breaker == HalfOpen {
				s.Limit = min(s.Limit, m.breaker.Probes)
			}
		}
		states[i] = s
	}
	return states
}

// OutFor is how long still no member gets any call at all, whatever ends meanwhile; 0 = some may, if it has room.
func (p *Pool) OutFor() time.Duration {
	p.mu.Lock()
	defer p.mu.Unlock()
	now, soonest := p.now(), time.Duration(math.MaxInt64)
	for i := range p.members {
		m := &p.members[i]
		switch {
		case m.drained:
		case m.breaker.opened(now) || m.gate.closed(now):
			soonest = min(soonest, m.again(now))
		default:
			return 0
		}
	}
	return soonest
}

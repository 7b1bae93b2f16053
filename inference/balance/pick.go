package balance

import "time"

// Ask is what a call needs.
type Ask struct {
	Tokens int64  // that the member will have to work through, prompt and answer, as estimated; at least 1 counts
	Prompt int64  // tokens of the prompt alone; 0 = Tokens
	Prefix uint64 // hash of how the conversation begins, for affinity; 0 = none

	// Not excludes members, such as those that were tried; optional. It must not use the pool.
	Not func(member int) bool
}

// Reason is why no member can take a call.
type Reason int

// The reasons, from the most hopeful.
const (
	Busy    Reason = iota // one that works has no room
	Refused               // all that are left said 429
	Broken                // all that are left are cut off by their breaker
	Nobody                // all are drained or excluded
)

// String says it in words.
func (r Reason) String() string {
	return [...]string{
		"every backend is busy", "every backend asks to wait", "every backend is failing", "there is no backend left to try",
	}[r]
}

// UnavailableError says why no call may start. It has nothing to do with the request.
type UnavailableError struct {
	Reason Reason

	// Again is after how long it is worth asking again; 0 = when the pool changes, and never for Nobody.
	Again time.Duration
}

func (e *UnavailableError) Error() string { return e.Reason.String() }

// Pick starts a call on the member with the least outstanding tokens in relation to its weight; among equals, on the one
// whose first tokens come soonest; among equals again, on the one that had least of its share lately. With affinity, the
// calls of a conversation go to the same member as long as that is not much busier than the others. The caller must
// end the call with [Call.Done]. The error is an [UnavailableError].
func (p *Pool) Pick(ask Ask) (*Call, error) {
	ask.Tokens = max(ask.Tokens, 1)
	if ask.Prompt <= 0 {
		ask.Prompt = ask.Tokens
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	i := p.attached(ask, now)
	if i < 0 {
		i = p.least(ask, now)
	}
	if i < 0 {
		return nil, p.why(ask, now)
	}
	return p.start(i, ask, now), nil
}

// Probe starts a call on a member whose breaker is half-open, if one more may go, to find out how it does without a
// request. It returns nil otherwise. The caller must end the call with [Call.Done].
func (p *Pool) Probe(member int) *Call {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := p.now()
	m := &p.members[member]
	if m.breaker.state(now) != HalfOpen || m.free(now) == 0 {
		return nil
	}
	return p.start(member, Ask{Tokens: 1, Prompt: 1}, now)
}

func (p *Pool) start(i int, ask Ask, now time.Duration) *Call {
	m := &p.members[i]
	p.fade(now)
	m.inFlight++
	m.tokens += ask.Tokens
	m.recent += ask.Tokens
	m.limiter.started(m.inFlight)
	return &Call{pool: p, member: i, tokens: ask.Tokens, prompt: ask.Prompt, began: now, term: m.breaker.term, probe: m.breaker.start()}
}

// fade halves what members remember of their shares, all of them at once.
func (p *Pool) fade(now time.Duration) {
	age := int64(now / forget)
	if age == p.age {
		return
	}
	for i := range p.members {
		p.members[i].recent >>= min(age-p.age, 63)
	}
	p.age = age
}

// least is the member that should have the next call, or -1.
func (p *Pool) least(ask Ask, now time.Duration) int {
	best := -1
	for i := range p.members {
		m := &p.members[i]
		if m.free(now) == 0 || ask.Not != nil && ask.Not(i) {
			continue
		}
		if best < 0 || m.before(&p.members[best], ask.Tokens, now) {
			best = i
		}
	}
	return best
}

// before reports whether m rather than o should have the next call.
func (m *member) before(o *member, tokens int64, now time.Duration) bool {
	idle := m.tokens == 0 && o.tokens == 0
	if a, b := m.load(tokens, now), o.load(tokens, now); !idle && !near(a, b, 1./16) {
		return a < b
	}
	if a, b := m.latency.fading(now), o.latency.fading(now); !near(float64(a), float64(b), 1./4) {
		return a < b
	}
	return float64(m.recent)/m.weight < float64(o.recent)/o.weight
}

// near reports whether two numbers differ by no more than a part of the larger.
func near(a, b, part float64) bool { return max(a, b)-min(a, b) <= part*max(a, b) }

// why finds out why nobody takes the call.
func (p *Pool) why(ask Ask, now time.Duration) *UnavailableError {
	e := &UnavailableError{Reason: Nobody}
	for i := range p.members {
		m := &p.members[i]
		reason := Busy
		switch {
		case m.drained || ask.Not != nil && ask.Not(i):
			continue
		case m.breaker.cut:
			reason = Broken
		case m.gate.closed(now):
			reason = Refused
		}
		e.Reason = min(e.Reason, reason)
		if again := m.again(now); again > 0 && (e.Again == 0 || again < e.Again) {
			e.Again = again
		}
	}
	return e
}

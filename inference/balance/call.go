package balance

import "time"

// Result is how a call ended, as far as it tells something about the member.
type Result int

// The results.
const (
	// Neutral tells nothing: the request was to blame (4xx), or it was cancelled.
	Neutral Result = iota

	// Success is a whole answer.
	Success

	// Failed is a fault of the member: no connection, 5xx, a stream that broke.
	Failed

	// FirstTokenTimeout is a member that kept silent too long. It counts as Failed and as a first token that late.
	FirstTokenTimeout

	// TooMany is a 429: the member works but wants no more calls for a while. It does not count for the breaker.
	TooMany
)

// Outcome is the end of a call.
type Outcome struct {
	Result     Result
	RetryAfter time.Duration // with TooMany, as the member said; 0 = it did not
}

// Call is one call of a member, owned by the goroutine that makes it.
type Call struct {
	pool   *Pool
	member int
	tokens int64
	prompt int64
	began  time.Duration
	term   uint32 // of the breaker
	probe  bool   // and not yet judged
	first  bool   // the first token came
	done   bool
}

// Member is the index of the member in [Config.Members].
func (c *Call) Member() int { return c.member }

// FirstToken notes that the answer has begun. Only the first time counts; it is optional, and not for answers in one piece.
func (c *Call) FirstToken() {
	if c.first || c.done {
		return
	}
	c.first = true
	p := c.pool
	p.mu.Lock()
	now := p.now()
	m := &p.members[c.member]
	m.latency.add(now-c.began, now)
	m.limiter.sample(now-c.began, c.prompt, now)
	closed := c.prove(m, now)
	p.unlock(c.member, closed, m, now)
}

// Done ends the call and gives its place back. Only the first time counts, so that it may be deferred as well.
func (c *Call) Done(o Outcome) {
	if c.done {
		return
	}
	c.done = true
	p := c.pool
	p.mu.Lock()
	now := p.now()
	m := &p.members[c.member]
	m.inFlight--
	m.tokens -= c.tokens
	changed := c.settle(m, o, now)
	wake := p.changed()
	p.unlock(c.member, changed, m, now)
	ring(wake)
}

// settle takes in what the outcome tells, and reports whether the breaker opened or closed.
func (c *Call) settle(m *member, o Outcome, now time.Duration) bool {
	failed := o.Result == Failed || o.Result == FirstTokenTimeout
	m.limiter.ended(failed || o.Result == TooMany, now)
	if o.Result == FirstTokenTimeout && !c.first {
		m.latency.add(now-c.began, now)
		m.limiter.sample(now-c.began, c.prompt, now)
	}
	switch o.Result {
	case TooMany:
		m.gate.refuse(c.began, now, o.RetryAfter)
		m.warmUp(m.gate.until)
	case Success:
		m.gate.accepted(c.began)
		if c.probe {
			return c.prove(m, now)
		}
	}
	if c.probe {
		if c.probe = false; !m.breaker.judged(c.term) {
			return false
		}
		if failed {
			m.breaker.open(now)
		}
		return failed
	}
	if o.Result != Success && !failed || c.term != m.breaker.term || m.breaker.cut {
		return false
	}
	return m.breaker.count(failed, now)
}

// prove counts a probe as passed, and reports whether that closes the breaker. A first token is enough: the whole answer
// may take minutes.
func (c *Call) prove(m *member, now time.Duration) bool {
	if !c.probe {
		return false
	}
	c.probe = false
	if !m.breaker.judged(c.term) || !m.breaker.pass(now) {
		return false
	}
	m.warmUp(now)
	return true
}

// unlock ends a critical section and tells of a breaker that changed in it.
func (p *Pool) unlock(i int, changed bool, m *member, now time.Duration) {
	if !changed || p.notify == nil {
		p.mu.Unlock()
		return
	}
	change := Change{Member: i, To: Closed}
	if m.breaker.cut {
		change.To, change.For = Open, m.breaker.until-now
	}
	p.mu.Unlock()
	p.notify(change)
}

// Package balance decides which backend of a model gets the next call, and whether any should.
//
// A [Pool] holds what is known of the backends of one model: what runs on each, how fast its first tokens come, how its calls
// ended. [Pool.Pick] takes the one with the least work in relation to its weight. What may run on a member at once is
// bounded by the first of these that says no:
//
//   - it is drained;
//   - its circuit breaker is open, because too many of its calls failed: it gets a few probes after a while;
//   - it asked to be left alone with a 429, until Retry-After is over;
//   - it is back from one of these and is warming up (slow start);
//   - the limit that adapts to its time to first token, when that is configured;
//   - MaxInFlight, always.
//
// The package knows nothing of models, requests or networks, and never waits: who is told no decides what to do about it.
// A pick, its first token and its end cost less than 2 µs together (BenchmarkCall).
package balance

import (
	"errors"
	"fmt"
	"hash/fnv"
	"math/rand/v2"
	"sync"
	"time"
)

// MaxWeight is the largest weight of a member.
const MaxWeight = 1000

// DefaultSlowStart is how long a member warms up that says nothing else.
const DefaultSlowStart = 5 * time.Second

// Config of a pool.
type Config struct {
	Members  []Member  // required: one at least, with different names
	Affinity Affinity  // default off
	Breaker  Breaker   // the zero value is the default
	Adaptive *Adaptive // nil = MaxInFlight alone bounds a member

	// Notify is told when a breaker opens or closes; optional. It runs on the goroutine whose call had that effect and must
	// not block.
	Notify func(Change)

	Rand func() float64 // in [0,1), for the jitter of open breakers; default math/rand
}

// Member is a backend.
type Member struct {
	Name        string        // required; with affinity it says which conversations the member gets
	Weight      int           // share of the work in relation to the others, 1 to MaxWeight; default 1
	MaxInFlight int           // required: calls that may run at once, at least 1
	SlowStart   time.Duration // how long it takes to get its whole share after an outage; default DefaultSlowStart
}

// Pool is the backends of one model. Its methods never block and are safe for concurrent use.
type Pool struct {
	born     time.Time // what the durations below count from
	affinity Affinity
	notify   func(Change)

	mu      sync.Mutex
	members []member
	age     int64         // half-lives since born, for what members remember of their share
	wake    chan struct{} // closed at the next change; nil while nobody waits
}

// New checks the configuration. It starts nothing.
func New(c Config) (*Pool, error) {
	if len(c.Members) == 0 {
		return nil, errors.New("balance: no members; name at least one")
	}
	breaker, err := c.Breaker.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("balance: breaker: %w", err)
	}
	affinity, err := c.Affinity.withDefaults()
	if err != nil {
		return nil, fmt.Errorf("balance: affinity: %w", err)
	}
	random := c.Rand
	if random == nil {
		random = rand.Float64
	}
	p := &Pool{born: time.Now(), affinity: affinity, notify: c.Notify, members: make([]member, len(c.Members))}
	names := map[string]bool{}
	for i, m := range c.Members {
		if names[m.Name] {
			return nil, fmt.Errorf("balance: there are two members %q; give each its own name", m.Name)
		}
		names[m.Name] = true
		if m, err = m.withDefaults(); err != nil {
			return nil, err
		}
		limiter, err := newLimiter(c.Adaptive, m.MaxInFlight)
		if err != nil {
			return nil, fmt.Errorf("balance: adaptive: %w", err)
		}
		p.members[i] = member{
			name: m.Name, hash: hashOf(m.Name), weight: float64(m.Weight), most: m.MaxInFlight, slowStart: m.SlowStart,
			warmed: true, limiter: limiter, breaker: breakerState{Breaker: breaker, random: random},
		}
	}
	return p, nil
}

func (m Member) withDefaults() (Member, error) {
	if m.Weight == 0 {
		m.Weight = 1
	}
	if m.SlowStart == 0 {
		m.SlowStart = DefaultSlowStart
	}
	switch {
	case m.Name == "":
		return m, errors.New("balance: a member has no name")
	case m.Weight < 0 || m.Weight > MaxWeight:
		return m, fmt.Errorf("balance: weight of %q is %d; use 1 to %d", m.Name, m.Weight, MaxWeight)
	case m.MaxInFlight < 1:
		return m, fmt.Errorf("balance: max_in_flight of %q is %d; use at least 1", m.Name, m.MaxInFlight)
	case m.SlowStart < 0:
		return m, fmt.Errorf("balance: slow start of %q is negative; leave it out for %s", m.Name, DefaultSlowStart)
	}
	return m, nil
}

// hashOf is the same in every process, so that all workers send a conversation to the same member.
func hashOf(name string) uint64 {
	h := fnv.New64a()
	_, _ = h.Write([]byte(name))
	return h.Sum64()
}

func (p *Pool) now() time.Duration { return time.Since(p.born) }

// Drain takes a member out, whose calls run on, or back in, when it warms up first.
func (p *Pool) Drain(member int, out bool) {
	p.mu.Lock()
	m := &p.members[member]
	if m.drained && !out {
		m.warmUp(p.now())
	}
	m.drained = out
	wake := p.changed()
	p.mu.Unlock()
	ring(wake)
}

// Changed returns a channel that is closed when calls may be possible that were not before. Ask for it before looking at
// what is free, so that no change is missed. What comes by itself with time, it does not tell: see [Pool.Again].
func (p *Pool) Changed() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.wake == nil {
		p.wake = make(chan struct{})
	}
	return p.wake
}

// changed takes the channel that is to be closed, which the caller does without the lock.
func (p *Pool) changed() chan struct{} {
	wake := p.wake
	p.wake = nil
	return wake
}

func ring(wake chan struct{}) {
	if wake != nil {
		close(wake)
	}
}

package balance

import (
	"errors"
	"math"
	"time"
)

// Breaker says when a member is cut off because its calls fail. A zero field is its default.
type Breaker struct {
	Window      time.Duration // calls that count are not older; default 10s, in ten buckets
	MinRequests int           // calls in the window below which nothing is concluded; default 20
	FailureRate float64       // part of them that failed from which on the breaker opens, or MinRequests that failed in a row; default 0.5
	Open        time.Duration // how long it stays open; twice as long each time in a row; default 5s
	MaxOpen     time.Duration // but never longer; default 60s. Up to a fifth is added at random
	Probes      int           // calls that must succeed, one after another or at once, before it closes; default 3
}

func (b Breaker) withDefaults() (Breaker, error) {
	if b.Window == 0 {
		b.Window = 10 * time.Second
	}
	if b.MinRequests == 0 {
		b.MinRequests = 20
	}
	if b.FailureRate == 0 {
		b.FailureRate = 0.5
	}
	if b.Open == 0 {
		b.Open = 5 * time.Second
	}
	if b.MaxOpen == 0 {
		b.MaxOpen = max(time.Minute, b.Open)
	}
	if b.Probes == 0 {
		b.Probes = 3
	}
	switch {
	case b.Window < buckets*time.Millisecond:
		return b, errors.New("window is too short; use at least 10ms, 10s is the default")
	case b.MinRequests < 1 || b.Probes < 1:
		return b, errors.New("min_requests and probes must be at least 1; leave them out for 20 and 3")
	case !(b.FailureRate > 0 && b.FailureRate <= 1):
		return b, errors.New("the failures that open it must be above 0 and at most all calls; half is the default")
	case b.Open < 0 || b.MaxOpen < b.Open:
		return b, errors.New("open must be positive and not longer than max_open; 5s and 60s are the defaults")
	}
	return b, nil
}

// Validate reports a setting that cannot be meant.
func (b Breaker) Validate() error {
	_, err := b.withDefaults()
	return err
}

// BreakerState is whether a member is cut off.
type BreakerState int

// The states of a breaker.
const (
	Closed   BreakerState = iota // calls go through
	HalfOpen                     // a few probes go through
	Open                         // none does
)

// String is the state as metrics and events show it.
func (s BreakerState) String() string { return [...]string{"closed", "half-open", "open"}[s] }

// Change is a breaker that opened or closed.
type Change struct {
	Member int
	To     BreakerState  // Open or Closed
	For    time.Duration // how long it stays open
}

const buckets = 10

// breakerState is the breaker of one member. gobreaker does not fit: see docs/adr/0017.
type breakerState struct {
	Breaker
	random func() float64

	cut    bool          // open or half-open
	until  time.Duration // when probes may go, while cut
	row    int           // how often it opened in a row
	closed time.Duration // when it closed last
	term   uint32        // counts openings: what began in an earlier one says nothing about this
	inRow  int           // calls that failed one after another, at most a window long
	since  time.Duration // when the first of them did
	probes int           // in flight and not yet judged
	passed int           // probes that succeeded

	counts [buckets]struct{ requests, failures int }
	at     int64 // the bucket of now, counted from the beginning
}

func (b *breakerState) opened(now time.Duration) bool { return b.cut && now < b.until }

func (b *breakerState) state(now time.Duration) BreakerState {
	switch {
	case !b.cut:
		return Closed
	case now < b.until:
		return Open
	}
	return HalfOpen
}

// allows is how many more calls may start.
func (b *breakerState) allows(now time.Duration) int {
	switch b.state(now) {
	case Closed:
		return math.MaxInt
	case HalfOpen:
		return max(0, b.Probes-b.passed-b.probes)
	}
	return 0
}

// start notes a call and returns whether it is a probe.
func (b *breakerState) start() bool {
	if b.cut {
		b.probes++
	}
	return b.cut
}

// judged notes that a probe is one no more, and reports whether it was of this term.
func (b *breakerState) judged(term uint32) bool {
	if term != b.term || !b.cut {
		return false
	}
	b.probes--
	return true
}

// pass notes a probe that succeeded and reports whether that closes the breaker.
func (b *breakerState) pass(now time.Duration) bool {
	b.passed++
	if b.passed < b.Probes {
		return false
	}
	b.cut, b.closed, b.inRow = false, now, 0
	b.counts, b.at = [buckets]struct{ requests, failures int }{}, b.bucket(now)
	return true
}

// count notes how a call of this term ended while the breaker was closed, and reports whether that opens it.
func (b *breakerState) count(failed bool, now time.Duration) bool {
	b.rotate(now)
	c := &b.counts[b.at%buckets]
	c.requests++
	if !failed {
		b.inRow = 0
		return false
	}
	if b.inRow == 0 || now-b.since >= b.Window {
		b.inRow, b.since = 0, now
	}
	b.inRow++
	c.failures++
	requests, failures := 0, 0
	for _, c := range b.counts {
		requests, failures = requests+c.requests, failures+c.failures
	}
	// One that has just gone down failed none of the many calls before: they are not waited for.
	if b.inRow < b.MinRequests && (requests < b.MinRequests || float64(failures) < b.FailureRate*float64(requests)) {
		return false
	}
	if now-b.closed > b.Window {
		b.row = 0 // it did well for a while
	}
	b.open(now)
	return true
}

// open cuts the member off, for longer each time in a row.
func (b *breakerState) open(now time.Duration) {
	pause := b.Open
	for range b.row {
		if pause *= 2; pause >= b.MaxOpen {
			pause = b.MaxOpen
			break
		}
	}
	b.row++
	b.cut, b.term, b.probes, b.passed = true, b.term+1, 0, 0
	b.until = now + pause + time.Duration(b.random()*float64(pause)/5)
}

func (b *breakerState) bucket(now time.Duration) int64 { return int64(now / (b.Window / buckets)) }

// rotate empties the buckets whose time is over.
func (b *breakerState) rotate(now time.Duration) {
	at := b.bucket(now)
	for i := b.at + 1; i <= at && i <= b.at+buckets; i++ {
		b.counts[i%buckets] = struct{ requests, failures int }{}
	}
	b.at = at
}

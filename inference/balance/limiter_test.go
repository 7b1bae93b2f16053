package balance

import (
	"testing"
	"testing/synctest"
	"time"
)

// adaptive makes a pool of one member whose limit adapts, which begins at a quarter of most.
func adaptive(t *testing.T, most int) (*Pool, *limiter) {
	t.Helper()
	p := pool(t, Config{Members: one(most), Adaptive: &Adaptive{Ceiling: time.Second, Floor: 50 * time.Millisecond}})
	return p, p.members[0].limiter
}

// begin starts n calls together, whose first tokens come after so long.
func begin(t *testing.T, p *Pool, n int, first time.Duration) []*Call {
	t.Helper()
	calls := make([]*Call, n)
	for i := range calls {
		calls[i] = pick(t, p, Ask{})
	}
	time.Sleep(first)
	for _, c := range calls {
		c.FirstToken()
	}
	return calls
}

func finish(calls []*Call) {
	for _, c := range calls {
		c.Done(Outcome{Result: Success})
	}
}

// seen makes calls together, whose first tokens come after so long, and lets the time of a look pass.
func (l *limiter) seen(t *testing.T, p *Pool, n int, first time.Duration) {
	t.Helper()
	finish(begin(t, p, n, first))
	time.Sleep(shortLook)
}

// First tokens that come late lower the limit while every answer still runs: an answer may take minutes.
func TestLimiterSamplesAtFirstToken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := adaptive(t, 400)
		for range 3 {
			l.seen(t, p, minSamples, 100*time.Millisecond)
		}
		if l.limit != 100 {
			t.Fatalf("the limit is %d before first tokens are late", l.limit)
		}
		calls := begin(t, p, 60, 400*time.Millisecond)
		if l.limit >= 100 || p.State()[0].InFlight != 60 {
			t.Errorf("with %d answers under way the limit is %d", p.State()[0].InFlight, l.limit)
		}
		lowered := l.limit
		time.Sleep(time.Minute)
		finish(calls)
		if l.limit != lowered {
			t.Errorf("the ends of the answers made the limit %d, from %d", l.limit, lowered)
		}
	})
}

// A place is taken until the answer ends: a model that has begun one still works on it.
func TestLimiterGivesThePlaceBackAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := adaptive(t, 16)
		calls := begin(t, p, l.limit, 100*time.Millisecond)
		refused(t, p, UnavailableError{Reason: Busy})
		calls[0].Done(Outcome{Result: Success})
		calls[0].Done(Outcome{Result: Success}) // counts once
		calls[0] = pick(t, p, Ask{})
		refused(t, p, UnavailableError{Reason: Busy})
		finish(calls)
		if s := p.State()[0]; s.InFlight != 0 || p.Free() != l.limit {
			t.Errorf("%d in flight and %d free, of %d", s.InFlight, p.Free(), l.limit)
		}
	})
}

// What is usual is no excuse: first tokens beyond the ceiling lower the limit although they were never any faster, down to
// one call, and it does not rise before they come within it.
func TestLimiterCeiling(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := adaptive(t, 40)
		last := l.limit
		for range 40 {
			calls := begin(t, p, l.limit, 1100*time.Millisecond)
			finish(calls)
			if l.limit > last {
				t.Fatalf("the limit rose from %d to %d", last, l.limit)
			}
			last = l.limit
		}
		if last != 1 {
			t.Errorf("the limit is %d", last)
		}
		for range 40 {
			l.seen(t, p, 1, 900*time.Millisecond)
		}
		if l.limit < 2 {
			t.Error("within the ceiling the limit does not rise")
		}
	})
}

// An overload does not become usual: while first tokens are late, and while the member is crowded, nothing is learned but
// faster ones.
func TestLimiterBaselineIsFrozen(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const fast = 100 * time.Millisecond
		p, l := adaptive(t, 400)
		for range 5 {
			l.seen(t, p, minSamples, fast)
		}
		usual := func() time.Duration {
			return time.Duration(l.usual[0].seconds * float64(time.Second)).Round(time.Millisecond)
		}
		if usual() != fast {
			t.Fatalf("%s is usual, after first tokens of %s", usual(), fast)
		}
		for range 20 { // late by as much as there is too much of
			n := l.limit
			finish(begin(t, p, n, max(fast, fast*time.Duration(n)/25)))
			time.Sleep(shortLook)
		}
		if usual() > fast*11/10 {
			t.Errorf("after an overload %s is usual", usual())
		}
		for range 20 { // not too late, and crowded
			finish(begin(t, p, l.limit, fast*14/10))
			time.Sleep(shortLook)
		}
		if usual() > fast*11/10 {
			t.Errorf("after a crowd %s is usual", usual())
		}
		for range 200 { // the same with room to spare is how it is now
			l.seen(t, p, minSamples, fast*14/10)
		}
		if usual() < fast*13/10 {
			t.Errorf("after a long time with room to spare %s is usual", usual())
		}
	})
}

// A 429 lowers the limit, since the member has too much, and leaves the breaker closed, since it works.
func TestLimiterTakesRefusals(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p, l := adaptive(t, 400)
		for range 5 {
			time.Sleep(shortLook)
			before := l.limit
			var calls []*Call
			for range 50 {
				calls = append(calls, pick(t, p, Ask{}))
			}
			for _, c := range calls {
				c.Done(Outcome{Result: TooMany, RetryAfter: 2 * time.Second})
			}
			if s := p.State()[0]; s.Breaker != Closed || !s.Refused || s.Until <= 0 {
				t.Fatalf("after refusals: %+v", s)
			}
			if l.limit >= before {
				t.Errorf("the limit is %d, before the refusals %d", l.limit, before)
			}
			refused(t, p, UnavailableError{Reason: Refused, Again: 2 * time.Second})
			time.Sleep(2*time.Second + DefaultSlowStart)
			l.limit = 100
		}
		finish([]*Call{pick(t, p, Ask{})})
	})
}

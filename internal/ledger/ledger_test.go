package ledger

import (
	"fmt"
	"math"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/schemas"
)

var begin = time.Date(2026, 1, 31, 23, 59, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return begin.Add(d) }

func fixed(l Limits) func(string) *Limits { return func(string) *Limits { return &l } }

func request(n int) schemas.Identity {
	return schemas.Identity{Tenant: "acme", Request: fmt.Sprintf("r%d", n)}
}

func tokens(n int64) *schemas.Reserve { return &schemas.Reserve{Requests: 1, Input: n} }

func used(n int64) *schemas.Charge { return &schemas.Charge{Requests: 1, Tokens: n} }

func (l *Ledger) settle(id schemas.Identity, c *schemas.Charge, now time.Time) {
	l.Settle(&Settled{Identity: id, Sequence: l.applied + 1, At: now, Charge: c}, now)
}

// TestWaitIsExact asks again a moment before the time that was told, and at it.
func TestWaitIsExact(t *testing.T) {
	for _, perMinute := range []int64{1, 7, 60, 61, 600, 999_983, 1_000_000_000_000} {
		l := New(fixed(Limits{TokensPerMinute: perMinute}))
		l.Hold(request(0), tokens(perMinute), at(time.Hour), begin)
		l.settle(request(0), used(perMinute), begin)
		for n := 1; n <= 50; n++ {
			need := max(1, perMinute/int64(n))
			now := at(time.Duration(n) * time.Hour)
			l.Hold(request(n), tokens(perMinute), at(100*time.Hour), now)
			v := l.Check("acme", tokens(need), now)
			if v.Over != OverTokens || v.Wait <= 0 || v.Wait > time.Minute || v.Wait != v.Wait.Truncate(time.Millisecond) {
				t.Fatalf("%d a minute, empty, %d wanted: %+v", perMinute, need, v)
			}
			if early := l.Check("acme", tokens(need), now.Add(v.Wait-2*time.Millisecond)); early.Over == OverNothing && need > perMinute/1000 {
				t.Errorf("%d a minute, %d wanted: there after %s already", perMinute, need, v.Wait-2*time.Millisecond)
			}
			if late := l.Check("acme", tokens(need), now.Add(v.Wait)); late.Over != OverNothing {
				t.Errorf("%d a minute, %d wanted: not there after %s: %+v", perMinute, need, v.Wait, late)
			}
			l.settle(request(n), used(perMinute), now)
		}
	}
}

// TestRateOverLongRequests checks that a request that runs for long takes its tokens once, and not as long as it runs.
func TestRateOverLongRequests(t *testing.T) {
	l := New(fixed(Limits{RequestsPerMinute: 60}))
	for n := range 60 {
		l.Hold(request(n), tokens(1), at(time.Hour), begin)
	}
	if v := l.Check("acme", tokens(1), begin); v.Over != OverRequests || v.Wait != time.Second {
		t.Errorf("the 61st: %+v", v)
	}
	if v := l.Check("acme", tokens(1), at(time.Minute)); v.Over != OverNothing {
		t.Errorf("a minute later, while all run: %+v", v)
	}
	for n := range 60 {
		l.settle(request(n), used(1), at(2*time.Minute))
	}
	if got := l.Allowance("acme", at(2*time.Minute)).Requests; got.Remaining != 60 || got.Reset != 0 {
		t.Errorf("after they ended: %+v", got)
	}
}

func TestSettleAndRefund(t *testing.T) {
	l := New(fixed(Limits{TokensPerMinute: 1000}))
	left := func() int64 { return int64(math.Round(l.accounts["acme"].tokens.level)) }
	for _, step := range []struct {
		name string
		do   func()
		want int64
	}{
		{"reserved", func() { l.Hold(request(1), tokens(600), at(time.Hour), begin) }, 400},
		{"reserved twice", func() { l.Hold(request(1), tokens(600), at(time.Hour), begin) }, 400},
		{"used less", func() { l.settle(request(1), used(100), begin) }, 900},
		{"told again", func() { l.Settle(&Settled{Identity: request(1), Sequence: l.applied, Charge: used(100)}, begin) }, 900},
		{"never left", func() { l.Hold(request(2), tokens(50), at(time.Hour), begin); l.ReleaseUnsent(request(2), begin) }, 900},
		{"left, so it stays", func() {
			l.Hold(request(3), tokens(50), at(time.Hour), begin)
			l.Sent(request(3))
			l.ReleaseUnsent(request(3), begin)
		}, 850},
		{"failed before it ran", func() { l.settle(request(3), &schemas.Charge{}, begin) }, 900},
		{"used more: into debt", func() {
			l.Hold(request(4), tokens(900), at(time.Hour), begin)
			l.settle(request(4), used(1500), begin)
		}, -600},
		{"nobody reserved for it", func() { l.settle(request(5), used(10), begin) }, -610},
		{"erased, and counted before", func() { l.settle(request(5), &schemas.Charge{Tokens: 10, Of: 5}, begin) }, -610},
		{"result without a charge, and no reserve", func() { l.settle(request(6), nil, begin) }, -610},
		{"result without a charge", func() {
			l.Hold(request(7), tokens(40), at(time.Hour), begin)
			l.settle(request(7), nil, begin)
		}, -650},
		{"a backend that lies", func() { l.settle(request(8), used(math.MaxInt64), begin) }, -650 - maxUse},
	} {
		if step.do(); left() != step.want {
			t.Fatalf("%s: %d tokens are left, want %d", step.name, left(), step.want)
		}
	}
	if v := l.Check("acme", tokens(1), begin); v.Wait != maxWait {
		t.Errorf("such a debt is paid in %s", v.Wait)
	}
}

// TestMoreThanEverFits lets a request that is larger than the limit go when all is free, and leaves a debt that the rate pays.
func TestMoreThanEverFits(t *testing.T) {
	l := New(fixed(Limits{TokensPerMinute: 100}))
	if v := l.Check("acme", tokens(1000), begin); v.Over != OverNothing {
		t.Fatalf("it can never go: %+v", v)
	}
	l.Hold(request(1), tokens(1000), at(time.Hour), begin)
	if v := l.Check("acme", tokens(1), begin); v.Wait.Round(time.Second) != 541*time.Second {
		t.Errorf("the next goes after %s", v.Wait)
	}
}

func TestBudget(t *testing.T) {
	l := New(fixed(Limits{Budget: Budget{Tokens: 100, Money: 50, Window: Window{Month: true}}}))
	check := func(want Verdict, now time.Time) {
		t.Helper()
		if diff := cmp.Diff(want, l.Check("acme", tokens(30), now)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
	check(Verdict{}, begin)
	l.Hold(request(1), tokens(100), at(time.Hour), begin)
	check(Verdict{Over: OverReserved}, begin)
	l.settle(request(1), &schemas.Charge{Requests: 1, Tokens: 99, Money: 49}, begin)
	check(Verdict{}, begin)
	l.settle(request(2), &schemas.Charge{Money: 1}, begin)
	check(Verdict{Over: OverBudget, Wait: time.Minute, Spent: true}, begin) // the last minute of January
	if v := l.Check("acme", &schemas.Reserve{Requests: 1}, begin); v.Over != OverNothing {
		t.Errorf("a hit costs nothing, but %+v", v)
	}
	check(Verdict{}, at(time.Minute))
	check(Verdict{}, begin) // the clock of a server was set back: what is new stays new
	if got := l.Allowance("acme", at(time.Minute)).Tokens; got != (schemas.Quota{Limit: 100, Remaining: 100, Reset: 28 * 24 * time.Hour}) {
		t.Errorf("allowance %+v", got)
	}
}

func TestWindows(t *testing.T) {
	for _, c := range []struct {
		window     Window
		start, end time.Time
	}{
		{Window{Month: true}, time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)},
		{Window{Length: 24 * time.Hour}, time.Date(2026, 1, 31, 0, 0, 0, 0, time.UTC), time.Date(2026, 2, 1, 0, 0, 0, 0, time.UTC)},
		{Window{Length: time.Minute}, begin, at(time.Minute)},
		{Window{}, time.Unix(0, 0), time.Time{}},
	} {
		now := at(30 * time.Second).In(time.FixedZone("far", 14*3600))
		if start, end := c.window.start(now), c.window.end(now); !start.Equal(c.start) || !end.Equal(c.end) {
			t.Errorf("%+v: from %s to %s", c.window, start, end)
		}
	}
}

func TestInFlight(t *testing.T) {
	l := New(fixed(Limits{MaxInFlight: 2}))
	l.Hold(request(1), tokens(1), at(time.Hour), begin)
	l.Hold(request(2), &schemas.Reserve{Requests: 1}, at(time.Hour), begin) // a hit runs nowhere
	if v := l.Check("acme", tokens(1), begin); v.Over != OverNothing {
		t.Errorf("one runs: %+v", v)
	}
	l.Hold(request(3), tokens(1), at(time.Hour), begin)
	if v := l.Check("acme", tokens(1), begin); v != (Verdict{Over: OverInFlight}) {
		t.Errorf("two run: %+v", v)
	}
	if got := l.Allowance("acme", begin).Requests; got != (schemas.Quota{Limit: 2}) {
		t.Errorf("allowance %+v", got)
	}
	l.settle(request(1), used(1), begin)
	if v := l.Check("acme", tokens(1), begin); v.Over != OverNothing {
		t.Errorf("one has ended: %+v", v)
	}
}

// TestClockSteps sets the clock of the stream back and forth between routers.
func TestClockSteps(t *testing.T) {
	limits := fixed(Limits{TokensPerMinute: 60, Budget: Budget{Tokens: 1000, Window: Window{Length: time.Hour}}})
	l := New(limits)
	l.settle(request(1), used(60), begin)
	s := l.Snapshot(begin)
	back := Restore(limits, s, nil, nil, at(-10*time.Minute))
	if got := back.accounts["acme"].tokens.level; got != 0 {
		t.Errorf("a clock set back leaves %v tokens", got)
	}
	if back.fillTo(at(-9 * time.Minute)); back.accounts["acme"].tokens.level != 60 {
		t.Errorf("a minute later there are %v", back.accounts["acme"].tokens.level)
	}
	forth := Restore(limits, s, nil, nil, at(1000*time.Hour))
	if got := forth.Balances(at(1000 * time.Hour))[0].Tokens; got != 60 {
		t.Errorf("a clock set forward gives %v tokens, more than the limit", got)
	}
}

func (l *Ledger) fillTo(now time.Time) { l.account("acme", now) }

// TestLimitsThatChange takes a tenant's limits away while it has requests that run, and gives it others.
func TestLimitsThatChange(t *testing.T) {
	var limits *Limits
	l := New(func(string) *Limits { return limits })
	limits = &Limits{TokensPerMinute: 100, MaxInFlight: 1}
	l.Hold(request(1), tokens(100), at(time.Hour), begin)
	l.Sent(request(1))
	s := l.Snapshot(begin)

	limits = nil
	if v := l.Check("acme", tokens(1), begin); v.Over != OverNothing {
		t.Errorf("without limits: %+v", v)
	}
	l.Hold(request(2), tokens(5), at(time.Hour), begin)
	if l.Holds(request(2)) || len(Restore(l.limits, s, nil, nil, begin).holds) != 0 {
		t.Error("a tenant without limits has reserves")
	}
	limits = &Limits{TokensPerMinute: 10, MaxInFlight: 1}
	if v := l.Check("acme", tokens(1), begin); v.Over != OverNothing {
		t.Errorf("with new limits: %+v", v)
	}
	l.settle(request(1), used(4), begin)
	if b := l.Balances(begin)[0]; b.Tokens != 6 || b.InFlight != 0 || b.HeldTokens != 0 {
		t.Errorf("the request of before ended: %+v", b)
	}
	if got := Restore(l.limits, s, nil, nil, begin).accounts["acme"].tokens.level; got > 10 {
		t.Errorf("%v tokens are left of 10", got)
	}
}

// TestDoubtful looks for a result less and less often, and gives up after the deadline.
func TestDoubtful(t *testing.T) {
	l := New(fixed(Limits{MaxInFlight: 1}))
	l.Hold(request(1), tokens(1), at(30*time.Minute), begin)
	l.Hold(request(2), tokens(1), at(30*time.Minute), begin) // waits for room
	l.Sent(request(1))
	var looks []time.Duration
	for d := time.Duration(0); d < 31*time.Minute; d += time.Second {
		for _, id := range l.Doubtful(10, at(d)) {
			if id != request(1) {
				t.Fatalf("%s is looked for", id)
			}
			looks = append(looks, d)
		}
	}
	if len(looks) < 8 || len(looks) > 12 || looks[0] != 10*time.Second {
		t.Errorf("looked for at %v", looks)
	}
	if l.Holds(request(1)) || !l.Holds(request(2)) {
		t.Error("the reserve outlived its request, or that of a waiting one did not stay")
	}
}

// TestDoubtfulAtOnce looks at once for what a snapshot has reserved and nobody works on, and for what could not be looked for.
func TestDoubtfulAtOnce(t *testing.T) {
	l := New(fixed(Limits{MaxInFlight: 2}))
	for n := 1; n <= 2; n++ {
		l.Hold(request(n), tokens(1), at(time.Hour), begin)
		l.Sent(request(n))
	}
	works := Sent{Identity: request(1), Reserve: *tokens(1), At: begin, Until: at(time.Hour)}
	l = Restore(l.limits, l.Snapshot(begin), []Sent{works}, nil, begin)
	for _, step := range []struct {
		at   time.Duration
		want []schemas.Identity
	}{
		{0, []schemas.Identity{request(2)}},
		{time.Second, nil},
		{2 * time.Second, []schemas.Identity{request(2)}},
		{11 * time.Second, []schemas.Identity{request(1)}},
		{23 * time.Second, []schemas.Identity{request(2)}},
	} {
		if diff := cmp.Diff(step.want, l.Doubtful(10, at(step.at))); diff != "" {
			t.Errorf("after %s (-want +got):\n%s", step.at, diff)
		}
		if step.at == time.Second {
			l.Doubt(request(2))
		}
	}
}

// TestSnapshotBound keeps a snapshot within a message, however much is under way.
func TestSnapshotBound(t *testing.T) {
	l := New(fixed(Limits{TokensPerMinute: 1_000_000_000_000}))
	var sent []Sent
	for n := range maxHolds + 50 {
		id := schemas.Identity{Tenant: "acme", Request: fmt.Sprintf("req_%060d", n)}
		l.Hold(id, &schemas.Reserve{Requests: 1, Input: 1 << 19, Output: 1 << 19, Money: math.MaxInt32}, at(time.Hour), begin)
		l.Sent(id)
		sent = append(sent, Sent{Identity: id, Reserve: schemas.Reserve{Requests: 1, Input: 1 << 20}, At: begin, Until: at(time.Hour)})
	}
	s := l.Snapshot(begin)
	data, err := s.Encode()
	if err != nil || len(data) > 1<<20 {
		t.Fatalf("%d bytes, %v", len(data), err)
	}
	read, err := DecodeSnapshot(data)
	if err != nil {
		t.Fatal(err)
	}
	again := Restore(l.limits, read, sent, nil, begin)
	if want, got := l.Balances(begin)[0], again.Balances(begin)[0]; got.Tokens != want.Tokens || got.InFlight != want.InFlight {
		t.Errorf("%v tokens and %d in flight became %v and %d", want.Tokens, want.InFlight, got.Tokens, got.InFlight)
	}
}

func TestIdleAccountsGo(t *testing.T) {
	l := New(fixed(Limits{TokensPerMinute: 60}))
	l.Hold(request(1), tokens(60), at(time.Hour), begin)
	l.settle(request(1), &schemas.Charge{}, begin)
	l.Hold(request(2), tokens(60), at(time.Hour), begin)
	if s := l.Snapshot(at(30 * time.Second)); len(s.Accounts) != 1 {
		t.Errorf("half full: %+v", s.Accounts)
	}
	l.ReleaseUnsent(request(2), at(time.Minute))
	if s := l.Snapshot(at(time.Minute)); len(s.Accounts) != 0 || len(l.accounts) != 0 {
		t.Errorf("full: %+v", s.Accounts)
	}
}

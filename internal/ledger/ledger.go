package ledger

import (
	"time"

	"github.com/weir-llm/weir/schemas"
)

// Ledger is the balances of the tenants of a partition. It is not safe for concurrent use.
type Ledger struct {
	limits   func(tenant string) *Limits
	accounts map[string]*account
	holds    map[schemas.Identity]*hold
	applied  uint64 // the last sequence of LLM_RESULTS that was counted
}

// account is that of a tenant.
type account struct {
	limits           *Limits
	requests, tokens bucket

	window      time.Time // the beginning of the one that was spent in
	spentTokens int64
	spentMoney  schemas.Money

	heldTokens int64 // reserved by holds
	heldMoney  schemas.Money
	inFlight   int
}

// hold is a reserve of a request that has not ended.
type hold struct {
	account *account // that it counts in, unless the tenant has another by now
	reserve schemas.Reserve
	since   uint64    // what was counted when it began
	sent    bool      // its work item is stored, or may be
	until   time.Time // given up then, if nothing has been heard of it
	checked time.Time // when it was last looked for, or begun
	looks   int
}

// New is a ledger without a past: all balances are full. limits gives those of a tenant, or nil when it has none; it is
// asked on every use, so that a change takes effect at once.
func New(limits func(tenant string) *Limits) *Ledger {
	return &Ledger{limits: limits, accounts: make(map[string]*account), holds: make(map[schemas.Identity]*hold)}
}

// Applied is the last sequence of LLM_RESULTS that was counted.
func (l *Ledger) Applied() uint64 { return l.applied }

// account is that of a tenant at a time; nil when the tenant has no limits.
func (l *Ledger) account(tenant string, now time.Time) *account {
	limits := l.limits(tenant)
	if !limits.Any() {
		delete(l.accounts, tenant)
		return nil
	}
	a := l.accounts[tenant]
	if a == nil {
		a = &account{}
		l.accounts[tenant] = a
	}
	a.limits = limits
	a.requests.fill(limits.RequestsPerMinute, now)
	a.tokens.fill(limits.TokensPerMinute, now)
	if start := limits.Budget.Window.start(now); start.After(a.window) {
		a.window, a.spentTokens, a.spentMoney = start, 0, 0
	}
	return a
}

// reserve counts a hold among what is out, or with -1 no longer.
func (a *account) reserve(r *schemas.Reserve, sign int64) {
	a.heldTokens += sign * r.Tokens()
	a.heldMoney += schemas.Money(sign) * r.Money
	if r.Tokens() > 0 || r.Money > 0 { // a hit runs nowhere
		a.inFlight += int(sign)
	}
}

// Over is the limit that stands in a request's way.
type Over int

// The limits.
const (
	OverNothing  Over = iota
	OverRequests      // requests per minute
	OverTokens        // tokens per minute
	OverInFlight      // requests in flight
	OverReserved      // the budget is reserved by requests that run
	OverBudget        // the budget is used up
)

// Verdict says whether a request may go now.
type Verdict struct {
	Over Over // OverNothing: it may
	// Wait is how long it takes until the request may go if nothing else happens; 0 when that depends on what runs.
	Wait time.Duration
	// Spent says that nothing that happens can make the wait shorter: nothing runs that could give something back.
	Spent bool
}

// Check says whether a request with a reserve may go now. It changes nothing.
func (l *Ledger) Check(tenant string, r *schemas.Reserve, now time.Time) Verdict {
	a := l.account(tenant, now)
	if a == nil {
		return Verdict{}
	}
	limits, runs := a.limits, r.Tokens() > 0 || r.Money > 0
	requests, tokens := a.requests.wait(limits.RequestsPerMinute, r.Requests), a.tokens.wait(limits.TokensPerMinute, r.Tokens())
	switch {
	case runs && a.spent():
		wait := maxWait
		if end := limits.Budget.Window.end(now); !end.IsZero() {
			wait = min(ceil(end.Sub(now)), maxWait)
		}
		return Verdict{Over: OverBudget, Wait: wait, Spent: true}
	case runs && limits.MaxInFlight > 0 && a.inFlight >= limits.MaxInFlight:
		return Verdict{Over: OverInFlight}
	case runs && a.reserved():
		return Verdict{Over: OverReserved}
	case requests > 0 && requests >= tokens:
		return Verdict{Over: OverRequests, Wait: requests, Spent: a.inFlight == 0}
	case tokens > 0:
		return Verdict{Over: OverTokens, Wait: tokens, Spent: a.inFlight == 0}
	}
	return Verdict{}
}

func (a *account) spent() bool {
	b := &a.limits.Budget
	return b.Tokens > 0 && a.spentTokens >= b.Tokens || b.Money > 0 && a.spentMoney >= b.Money
}

// reserved reports whether the budget would be used up if what runs uses what it has reserved.
func (a *account) reserved() bool {
	b := &a.limits.Budget
	return b.Tokens > 0 && a.spentTokens+a.heldTokens >= b.Tokens || b.Money > 0 && a.spentMoney+a.heldMoney >= b.Money
}

// Hold reserves for a request, until a time after which it is given up. A request that has a reserve keeps that.
func (l *Ledger) Hold(id schemas.Identity, r *schemas.Reserve, until, now time.Time) {
	if l.holds[id] != nil {
		return
	}
	if a := l.account(id.Tenant, now); a != nil {
		a.reserve(r, 1)
		a.requests.give(a.limits.RequestsPerMinute, -r.Requests)
		a.tokens.give(a.limits.TokensPerMinute, -r.Tokens())
		l.holds[id] = &hold{account: a, reserve: *r, since: l.applied, until: until, checked: now}
	}
}

// Holds reports whether a request has a reserve.
func (l *Ledger) Holds(id schemas.Identity) bool { return l.holds[id] != nil }

// Sent says that the request's work item may be stored from now on, so that its reserve is for its result to end.
func (l *Ledger) Sent(id schemas.Identity) {
	if h := l.holds[id]; h != nil {
		h.sent = true
	}
}

// Unsent takes back [Ledger.Sent], for a work item that was certainly not stored.
func (l *Ledger) Unsent(id schemas.Identity) {
	if h := l.holds[id]; h != nil {
		h.sent = false
	}
}

// ReleaseUnsent releases a request that was not sent. It reports whether it did.
func (l *Ledger) ReleaseUnsent(id schemas.Identity, now time.Time) bool {
	h := l.holds[id]
	if h == nil || h.sent {
		return false
	}
	l.Release(id, now)
	return true
}

// Release gives the reserve of a request back, which never ran.
func (l *Ledger) Release(id schemas.Identity, now time.Time) {
	if l.holds[id] != nil {
		l.end(id, &schemas.Charge{}, now)
	}
}

// Settled is a result as the log tells of it. Without a charge it is one that nobody counted for.
type Settled struct {
	schemas.Identity
	Sequence uint64 // in LLM_RESULTS
	At       time.Time
	Charge   *schemas.Charge
}

// Settle counts a result, once: results come in the order of the log. It reports whether anything changed.
func (l *Ledger) Settle(s *Settled, now time.Time) (changed bool) {
	if s.Sequence <= l.applied {
		return false
	}
	l.applied = s.Sequence
	h := l.holds[s.Identity]
	switch charge := s.Charge; {
	case h != nil && charge != nil && charge.Of > 0 && charge.Of <= h.since:
		return false // the request was counted, and is here once more
	case h != nil && charge == nil: // whoever wrote it knew of no limits: what was reserved is the best guess
		l.end(s.Identity, &schemas.Charge{Requests: h.reserve.Requests, Tokens: h.reserve.Tokens(), Money: h.reserve.Money}, now)
	case h != nil:
		l.end(s.Identity, charge, now)
	case charge == nil || charge.Of > 0: // the record that a tombstone stands for was counted
		return false
	default:
		l.charge(s.Tenant, charge, now)
	}
	return true
}

// end replaces a reserve by what was used. What is given back and what is taken is one number, because a bucket that is full
// forgets what it is given.
func (l *Ledger) end(id schemas.Identity, used *schemas.Charge, now time.Time) {
	h := l.holds[id]
	delete(l.holds, id)
	a := l.account(id.Tenant, now)
	switch {
	case a == nil: // the tenant's limits are gone
	case a == h.account:
		a.reserve(&h.reserve, -1)
		a.use(used, &h.reserve)
	default:
		a.use(used, &schemas.Reserve{})
	}
}

// charge takes what was used without a reserve.
func (l *Ledger) charge(tenant string, used *schemas.Charge, now time.Time) {
	if a := l.account(tenant, now); a != nil {
		a.use(used, &schemas.Reserve{})
	}
}

// maxUse bounds what a single request may count for, whatever a backend says.
const (
	maxUse   = 1 << 40
	maxSpend = 1 << 53
)

func (a *account) use(used *schemas.Charge, reserved *schemas.Reserve) {
	tokens := min(used.Tokens, maxUse)
	a.requests.give(a.limits.RequestsPerMinute, reserved.Requests-used.Requests)
	a.tokens.give(a.limits.TokensPerMinute, reserved.Tokens()-tokens)
	a.spentTokens += tokens
	a.spentMoney += min(used.Money, maxSpend)
}

// Allowance is what a tenant may still do. Of several limits of a kind it is the nearest.
func (l *Ledger) Allowance(tenant string, now time.Time) schemas.Allowance {
	a := l.account(tenant, now)
	if a == nil {
		return schemas.Allowance{}
	}
	limits := a.limits
	allowance := schemas.Allowance{Requests: a.requests.quota(limits.RequestsPerMinute), Tokens: a.tokens.quota(limits.TokensPerMinute)}
	if limits.MaxInFlight > 0 {
		allowance.Requests = nearest(allowance.Requests, schemas.Quota{Limit: int64(limits.MaxInFlight), Remaining: int64(max(limits.MaxInFlight-a.inFlight, 0))})
	}
	if budget := limits.Budget.Tokens; budget > 0 {
		left := schemas.Quota{Limit: budget, Remaining: max(budget-a.spentTokens-a.heldTokens, 0)}
		if end := limits.Budget.Window.end(now); !end.IsZero() {
			left.Reset = ceil(end.Sub(now))
		}
		allowance.Tokens = nearest(allowance.Tokens, left)
	}
	return allowance
}

func nearest(a, b schemas.Quota) schemas.Quota {
	if a.Limit == 0 || b.Limit > 0 && b.Remaining < a.Remaining {
		return b
	}
	return a
}

// Balance is the state of a tenant's limits, for people to look at.
type Balance struct {
	Tenant              string
	Limits              Limits
	Requests, Tokens    float64 // left in the buckets; below zero when more was used than reserved
	SpentTokens         int64
	SpentMoney          schemas.Money
	HeldTokens          int64
	HeldMoney           schemas.Money
	InFlight            int
	WindowStart, Window time.Time // of the budget, and when it ends
}

// Balances gives those of all tenants that have used anything lately.
func (l *Ledger) Balances(now time.Time) (all []Balance) {
	for tenant := range l.accounts {
		a := l.account(tenant, now)
		if a == nil {
			continue
		}
		all = append(all, Balance{
			Tenant: tenant, Limits: *a.limits, Requests: a.requests.level, Tokens: a.tokens.level,
			SpentTokens: a.spentTokens, SpentMoney: a.spentMoney, HeldTokens: a.heldTokens, HeldMoney: a.heldMoney, InFlight: a.inFlight,
			WindowStart: a.window, Window: a.limits.Budget.Window.end(now),
		})
	}
	return all
}

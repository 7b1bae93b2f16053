package ledger

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// Snapshot is a ledger as it is stored: a record of the bucket LLM_LIMITS.
type Snapshot struct {
	V       int       `json:"v"`
	Writer  string    `json:"writer"` // the router, and which life of it
	Write   uint64    `json:"write"`  // number of the writer's write
	At      time.Time `json:"at"`     // of the balances, by the stream's clock
	Applied uint64    `json:"applied"`

	Accounts []AccountRecord `json:"accounts"`
	Holds    []HoldRecord    `json:"holds"`
}

// AccountRecord is what is stored of a tenant.
type AccountRecord struct {
	Tenant      string        `json:"tenant"`
	Requests    float64       `json:"requests"`
	Tokens      float64       `json:"tokens"`
	Window      time.Time     `json:"window"`
	SpentTokens int64         `json:"spent_tokens"`
	SpentMoney  schemas.Money `json:"spent_money"`
}

// HoldRecord is a reserve of a request that was dispatched.
type HoldRecord struct {
	Tenant  string `json:"t"`
	Request string `json:"r"`
	Reserve string `json:"n"`
	Until   int64  `json:"u"` // unix seconds
	Since   uint64 `json:"s"` // what was counted when it began
}

// maxHolds is how many reserves a snapshot has, so that it fits into a message. The others are found again in LLM_WORK.
const maxHolds = 6000

// Snapshot is the ledger at a time. What was reserved for requests that were never dispatched is given back in it: whoever
// reads it gets these requests anew. Accounts that have used nothing lately are dropped.
func (l *Ledger) Snapshot(now time.Time) *Snapshot {
	s := &Snapshot{V: schemas.Version, At: now.UTC(), Applied: l.applied, Accounts: []AccountRecord{}, Holds: []HoldRecord{}}
	back := make(map[*account]schemas.Reserve)
	for id, h := range l.holds {
		if h.sent && len(s.Holds) < maxHolds {
			s.Holds = append(s.Holds, HoldRecord{Tenant: id.Tenant, Request: id.Request, Reserve: h.reserve.String(), Until: h.until.Unix(), Since: h.since})
			continue
		}
		given := back[h.account]
		given.Requests += h.reserve.Requests
		given.Input += h.reserve.Tokens()
		back[h.account] = given
	}
	for tenant := range l.accounts {
		a := l.account(tenant, now)
		if a == nil {
			continue
		}
		if a.idle() {
			delete(l.accounts, tenant)
			continue
		}
		requests, tokens, given := a.requests, a.tokens, back[a]
		requests.give(a.limits.RequestsPerMinute, given.Requests)
		tokens.give(a.limits.TokensPerMinute, given.Input)
		s.Accounts = append(s.Accounts, AccountRecord{
			Tenant: tenant, Requests: requests.level, Tokens: tokens.level, Window: a.window, SpentTokens: a.spentTokens, SpentMoney: a.spentMoney,
		})
	}
	slices.SortFunc(s.Accounts, func(a, b AccountRecord) int { return cmp.Compare(a.Tenant, b.Tenant) })
	slices.SortFunc(s.Holds, func(a, b HoldRecord) int {
		return cmp.Or(cmp.Compare(a.Tenant, b.Tenant), cmp.Compare(a.Request, b.Request))
	})
	return s
}

// idle reports whether a new account would be the same.
func (a *account) idle() bool {
	full := func(b *bucket, limit int64) bool { return limit <= 0 || b.level >= float64(limit) }
	return a.inFlight == 0 && a.heldTokens == 0 && a.heldMoney == 0 && a.spentTokens == 0 && a.spentMoney == 0 &&
		full(&a.requests, a.limits.RequestsPerMinute) && full(&a.tokens, a.limits.TokensPerMinute)
}

// Encode writes the snapshot as JSON.
func (s *Snapshot) Encode() ([]byte, error) { return json.Marshal(s) }

// DecodeSnapshot reads what [Snapshot.Encode] wrote.
func DecodeSnapshot(data []byte) (*Snapshot, error) {
	s := &Snapshot{}
	if err := json.Unmarshal(data, s); err != nil {
		return nil, fmt.Errorf("decode a snapshot of balances: %w", err)
	}
	return s, nil
}

// Sent is a work item that is under way.
type Sent struct {
	schemas.Identity
	Reserve schemas.Reserve
	At      time.Time // when it was stored
	Until   time.Time
}

// Restore is the ledger that a snapshot, the work that is under way and the results since the snapshot make. Results come in
// the order of the log; those that the snapshot counts are ignored. A nil snapshot is a ledger without a past. A reserve without
// work that is under way is doubtful at once: its result may have been counted before it was reserved.
func Restore(limits func(string) *Limits, s *Snapshot, sent []Sent, settled []Settled, now time.Time) *Ledger {
	l := New(limits)
	if s != nil {
		l.load(s, now)
	}
	known := make(map[schemas.Identity]bool, len(l.holds)+len(sent))
	for id := range l.holds {
		known[id] = true
	}
	var events []event
	working := make(map[schemas.Identity]bool, len(sent))
	for _, w := range sent {
		working[w.Identity] = true
		if !known[w.Identity] {
			known[w.Identity] = true
			events = append(events, event{at: w.At, hold: &w})
		}
	}
	for _, r := range settled {
		if r.Sequence <= l.applied {
			continue
		}
		c := r.Charge
		if c != nil && !known[r.Identity] && (c.Of == 0 || c.Of > l.applied) {
			known[r.Identity] = true
			if c.Of > 0 { // the record that it stands for went before it was counted
				whole := *c
				whole.Of = 0
				r.Charge = &whole
			}
			if !c.Sent.IsZero() {
				events = append(events, event{at: c.Sent, hold: &Sent{Identity: r.Identity, Reserve: c.Reserve, At: c.Sent, Until: now}})
			}
		}
		events = append(events, event{at: r.At, settle: &r})
	}
	l.replay(events, now)
	for id, h := range l.holds {
		if !working[id] {
			h.checked = time.Time{}
		}
	}
	return l
}

// event is something that happened after the snapshot.
type event struct {
	at     time.Time
	hold   *Sent
	settle *Settled
}

// replay lets the events happen in the order of their times. Results keep the order of the log, whatever their times say.
func (l *Ledger) replay(events []event, now time.Time) {
	latest := time.Time{}
	for i := range events {
		if events[i].settle != nil {
			if events[i].at.Before(latest) {
				events[i].at = latest
			}
			latest = events[i].at
		}
	}
	slices.SortStableFunc(events, func(a, b event) int {
		if by := a.at.Compare(b.at); by != 0 {
			return by
		}
		return cmp.Compare(rank(a), rank(b))
	})
	for _, e := range events {
		at := e.at
		if at.After(now) {
			at = now
		}
		if e.hold != nil {
			l.Hold(e.hold.Identity, &e.hold.Reserve, e.hold.Until, at)
			l.Sent(e.hold.Identity)
			continue
		}
		l.Settle(e.settle, at)
	}
}

// rank puts a request's reserve before its result.
func rank(e event) int {
	if e.hold != nil {
		return 0
	}
	return 1
}

// load takes the balances as they were at the time of the snapshot.
func (l *Ledger) load(s *Snapshot, now time.Time) {
	l.applied = s.Applied
	at := s.At
	if at.After(now) { // a clock was set back
		at = now
	}
	for _, r := range s.Accounts {
		limits := l.limits(r.Tenant)
		if !limits.Any() {
			continue
		}
		l.accounts[r.Tenant] = &account{
			limits: limits, requests: bucket{r.Requests, at}, tokens: bucket{r.Tokens, at},
			window: r.Window, spentTokens: r.SpentTokens, spentMoney: r.SpentMoney,
		}
	}
	for _, r := range s.Holds {
		reserve, err := schemas.ParseReserve(r.Reserve)
		a := l.account(r.Tenant, at)
		if err != nil || reserve == nil || a == nil {
			continue
		}
		a.reserve(reserve, 1)
		l.holds[schemas.Identity{Tenant: r.Tenant, Request: r.Request}] = &hold{account: a, reserve: *reserve, since: r.Since, sent: true, until: time.Unix(r.Until, 0), checked: now}
	}
}

// How often a request whose result does not come is looked for.
const (
	lookAfter = 10 * time.Second
	lookLimit = 5 * time.Minute
)

// Doubtful gives requests, at most so many, whose result has not come for so long that it should be looked for, each again
// after twice the time. Those whose time is over are released.
func (l *Ledger) Doubtful(most int, now time.Time) (look []schemas.Identity) {
	for id, h := range l.holds {
		switch {
		case !h.sent:
		case now.After(h.until):
			l.Release(id, now)
		case len(look) < most && now.Sub(h.checked) >= min(lookAfter<<min(h.looks, 8), lookLimit):
			h.checked = now
			h.looks++
			look = append(look, id)
		}
	}
	return look
}

// Doubt has [Ledger.Doubtful] give a request again at once, because it could not be looked for.
func (l *Ledger) Doubt(id schemas.Identity) {
	if h := l.holds[id]; h != nil {
		h.checked, h.looks = time.Time{}, max(0, h.looks-1)
	}
}

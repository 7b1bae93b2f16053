// Package ledger keeps the balances of tenants with limits: what each may still do, what is reserved for its requests that
// run, and what it has used. It is pure: time comes with every call, and nothing here reads a clock, a network or a file.
//
// A request goes through three steps. [Ledger.Hold] reserves what it is taken to use. [Ledger.Settle] replaces the reserve by
// what it used, when its result is read from the log, or [Ledger.Release] gives the reserve back when it never left. Each is
// keyed by the request, so that repeating it changes nothing: a result that was counted is never counted again, and one
// that was never reserved for is charged in full.
//
// What a [Snapshot] holds, together with the work that is under way and the results after it, gives the same balances
// again ([Restore]). A Ledger is owned by one goroutine.
package ledger

import (
	"time"

	"github.com/weir-llm/weir/schemas"
)

// Limits of a tenant. A zero is no limit.
type Limits struct {
	RequestsPerMinute int64
	TokensPerMinute   int64
	MaxInFlight       int // requests between their dispatch and their result
	Budget            Budget
}

// Any reports whether there is a limit that needs a balance.
func (l *Limits) Any() bool {
	return l != nil && (l.RequestsPerMinute > 0 || l.TokensPerMinute > 0 || l.MaxInFlight > 0 || l.Budget.any())
}

// Budget is what a tenant may use in a window of time.
type Budget struct {
	Tokens int64
	Money  schemas.Money
	Window Window
}

func (b *Budget) any() bool { return b.Tokens > 0 || b.Money > 0 }

// Window is a span of time after which a budget begins anew: a calendar month, by UTC, or a length that is counted from
// 1970, so that a day begins at midnight UTC. The zero value never ends.
type Window struct {
	Month  bool
	Length time.Duration
}

// start of the window that a time is in.
func (w Window) start(now time.Time) time.Time {
	now = now.UTC()
	switch {
	case w.Month:
		return time.Date(now.Year(), now.Month(), 1, 0, 0, 0, 0, time.UTC)
	case w.Length > 0:
		since := now.Sub(time.Unix(0, 0))
		return now.Add(-(since % w.Length))
	}
	return time.Unix(0, 0).UTC()
}

// end of the window that a time is in; the zero time for a window that never ends.
func (w Window) end(now time.Time) time.Time {
	switch start := w.start(now); {
	case w.Month:
		return start.AddDate(0, 1, 0)
	case w.Length > 0:
		return start.Add(w.Length)
	}
	return time.Time{}
}

// bucket fills with a number of units a minute and holds at most as many. It goes below zero when more was used than was
// reserved, and fills from there.
type bucket struct {
	level float64
	at    time.Time // of the level
}

// slack lets a caller that waited exactly as long as it was told find what it was promised, whatever was rounded.
const slack = 1e-6

func (b *bucket) fill(limit int64, now time.Time) {
	if limit <= 0 {
		return
	}
	if b.at.IsZero() {
		b.level, b.at = float64(limit), now
	}
	if past := now.Sub(b.at); past > 0 {
		b.level += float64(limit) * past.Minutes()
		b.at = now
	}
	b.level = min(b.level, float64(limit))
}

// give adds n units, or with a negative n takes them.
func (b *bucket) give(limit, n int64) {
	if limit > 0 {
		b.level = min(b.level+float64(n), float64(limit))
	}
}

// wait is how long it takes until n units are there. Who wants more than there can ever be waits until all of it is.
func (b *bucket) wait(limit, n int64) time.Duration {
	if limit <= 0 || n <= 0 {
		return 0
	}
	return b.until(limit, float64(min(n, limit))-slack)
}

func (b *bucket) until(limit int64, level float64) time.Duration {
	missing := level - b.level
	if missing <= 0 {
		return 0
	}
	return ceil(time.Duration(min(missing/float64(limit)*float64(time.Minute), float64(maxWait))))
}

// maxWait bounds what is told; nobody waits that long.
const maxWait = 366 * 24 * time.Hour

// ceil rounds up to milliseconds, which is what callers are told.
func ceil(d time.Duration) time.Duration {
	return (d + time.Millisecond - 1).Truncate(time.Millisecond)
}

func (b *bucket) quota(limit int64) schemas.Quota {
	if limit <= 0 {
		return schemas.Quota{}
	}
	return schemas.Quota{Limit: limit, Remaining: int64(max(b.level+slack, 0)), Reset: b.until(limit, float64(limit)-slack)}
}

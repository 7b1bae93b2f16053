package router

import (
	"slices"
	"time"

	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/schemas"
)

// gate stands before the requests of tenants with limits.
type gate interface {
	limited(tenant string) bool
	// admit reserves for the first request of a share, and reports true; or it keeps the share, which it has the fair queue
	// take back when the limit allows. owed says that the share goes before more urgent ones, for the floor of its class.
	admit(f *fair, s *share, owed bool) bool
}

// throttle is a tenant that waits for its limits. Its shares, of which it has one for each model and class, are aside, so
// that its turns are others', and all of them wait for the first of the most urgent: none overtakes a request as urgent that
// needs more.
type throttle struct {
	limits *Limits
	aside  []aside
	head   *item // the first, when it was last looked at
	over   ledger.Over
	until  time.Time // when that may go; zero when something has to happen
}

type aside struct {
	fair  *fair
	share *share
	owed  bool
}

// first is the request that the share waits with.
func (a aside) first() *item { return a.share.items.Front().Value.(*item) }

// before orders the shares of a tenant: those that are owed, and then the more urgent.
func (a aside) before(b aside) bool {
	if a.owed != b.owed {
		return a.owed
	}
	return !a.owed && a.first().class < b.first().class
}

// sort drops the shares that have emptied or gone back by themselves, and puts that which goes first in front.
func (t *throttle) sort() {
	t.aside = slices.DeleteFunc(t.aside, func(a aside) bool { return !a.share.aside || a.share.items.Len() == 0 })
	slices.SortStableFunc(t.aside, func(a, b aside) int {
		switch {
		case a.before(b):
			return -1
		case b.before(a):
			return 1
		}
		return 0
	})
}

// first is the request that the tenant waits with, or nil.
func (t *throttle) first() *item {
	if t.sort(); len(t.aside) == 0 {
		return nil
	}
	return t.aside[0].first()
}

func (b *books) limited(tenant string) bool { return b.limits(tenant).any() }

func (l *Limits) any() bool { return l != nil && l.Limits.Any() }

func (b *books) admit(f *fair, s *share, owed bool) bool {
	waits := aside{f, s, owed}
	it := waits.first()
	if it.reserve == nil { // its tenant had no limits when it came
		return true
	}
	book := b.of(it)
	t := b.throttled[it.req.Tenant]
	if t != nil && t.first() == nil {
		t = nil // everything that waited is gone
	}
	if book.ledger != nil && book.ledger.Holds(it.req.Identity) {
		return true
	}
	switch {
	case t != nil && !waits.before(t.aside[0]):
	case book.ledger != nil:
		v := book.check(it)
		if v.Over == ledger.OverNothing {
			b.hold(it)
			return true
		}
		if t == nil {
			t = b.throttle(it, v)
		} else {
			b.setWait(t, it, v)
		}
	case t == nil: // the balances are with another router, and so will the request be
		t = &throttle{limits: b.limits(it.req.Tenant)}
		b.throttled[it.req.Tenant] = t
	}
	t.aside = append(t.aside, waits)
	return false
}

// throttle begins to let a tenant wait.
func (b *books) throttle(it *item, v ledger.Verdict) *throttle {
	t := &throttle{limits: b.limits(it.req.Tenant)}
	b.throttled[it.req.Tenant] = t
	b.setWait(t, it, v)
	b.reached(it.req.Tenant)
	return t
}

func (b *books) setWait(t *throttle, head *item, v ledger.Verdict) {
	t.head, t.over, t.until = head, v.Over, time.Time{}
	if v.Wait > 0 {
		t.until = time.Now().Add(v.Wait)
		b.alarm(t.until)
	}
}

// alarm has the loop wake tenants at a time, if not before.
func (b *books) alarm(at time.Time) {
	if b.next.IsZero() || at.Before(b.next) {
		b.next = at
		b.timer.Reset(time.Until(at))
	}
}

// wakeDue wakes the tenants whose time has come.
func (b *books) wakeDue(now time.Time) {
	b.next = time.Time{}
	for tenant, t := range b.throttled {
		if t.until.IsZero() {
			continue
		}
		if !now.Before(t.until) {
			b.wake(tenant)
		}
		if t := b.throttled[tenant]; t != nil && !t.until.IsZero() {
			b.alarm(t.until)
		}
	}
}

// wake lets a tenant go on if its limits allow that now.
func (b *books) wake(tenant string) {
	t := b.throttled[tenant]
	if t == nil {
		return
	}
	it := t.first()
	if it == nil {
		delete(b.throttled, tenant)
		return
	}
	book := b.of(it)
	if book.ledger == nil {
		return
	}
	if !book.ledger.Holds(it.req.Identity) {
		if v := book.check(it); v.Over != ledger.OverNothing {
			b.setWait(t, it, v)
			return
		}
	}
	delete(b.throttled, tenant)
	models := make([]string, 0, len(t.aside))
	for _, a := range t.aside { // all of them before any goes, or what is taken back first would go before what is more urgent
		if a.share.aside {
			models = append(models, a.first().model())
			a.fair.takeBack(a.share)
		}
	}
	for _, model := range models {
		b.loop.pump(model)
	}
}

// renew has the tenants that wait go by what their limits are now.
func (b *books) renew() {
	for tenant, t := range b.throttled {
		if now := b.limits(tenant); now != t.limits {
			t.limits = now
			b.wake(tenant)
		}
	}
}

// overdue answers the requests that have waited for their tenant's limits as long as they may, and sees to those behind them.
func (b *books) overdue(now time.Time) {
	for tenant, t := range b.throttled {
		for _, it := range t.late(now, b.idleFor(t)) {
			book := b.of(it)
			if book.ledger == nil {
				continue
			}
			v := book.check(it)
			b.loop.unqueue(it)
			b.loop.answer(it, t.limits.refusal(v))
		}
		if t.first() != t.head { // what it waited for was answered, or cancelled
			b.wake(tenant)
		}
	}
}

// idleFor is how long nothing can happen to a throttle: until there is enough again, while nothing of its tenant runs.
func (b *books) idleFor(t *throttle) time.Duration {
	it := t.first()
	if it == nil || b.of(it).ledger == nil {
		return 0
	}
	if v := b.of(it).check(it); v.Spent {
		return v.Wait
	}
	return 0
}

// late is the requests that will have waited too long after a time, in which nothing can happen.
func (t *throttle) late(now time.Time, after time.Duration) (all []*item) {
	for _, a := range t.aside {
		if !a.share.aside {
			continue
		}
		for e := a.share.items.Front(); e != nil; e = e.Next() {
			it := e.Value.(*item)
			if now.Sub(it.arrived)+after < t.limits.maxWait() {
				break // they are in the order of arrival
			}
			all = append(all, it)
		}
	}
	return all
}

// forbid refuses a model that the tenant may not use.
func (b *books) forbid(it *item) *schemas.Error {
	if b == nil {
		return nil
	}
	limits := b.limits(it.req.Tenant)
	if limits == nil || len(limits.Models) == 0 {
		return nil
	}
	if name, err := schemas.DecodeModel(it.model()); err == nil && !limits.MayUse(name) {
		return modelRefused(it.model())
	}
	return nil
}

// refuse is the part of the policy that limits are: why the request may not run, or nil. A tenant whose policy is to reject
// has reserved for it afterwards.
func (b *books) refuse(it *item, now time.Time) *schemas.Error {
	if err := b.forbid(it); err != nil {
		return err
	}
	limits, book := b.limits(it.req.Tenant), b.of(it)
	if !limits.any() || !b.counts(it) {
		return nil
	}
	if book.ledger.Holds(it.req.Identity) {
		return nil
	}
	v := book.check(it)
	left := limits.maxWait() - now.Sub(it.arrived)
	running := v.Over == ledger.OverInFlight || v.Over == ledger.OverReserved
	settling := limits.Reject && running && left > 0
	left = min(left, it.deadline.Sub(b.loop.clock.at(now)))
	if v.Over != ledger.OverNothing && !settling && (limits.Reject || v.Spent && v.Wait > left) {
		b.reached(it.req.Tenant)
		return limits.refusal(v)
	}
	if limits.Reject && !settling {
		b.hold(it)
	}
	return nil
}

// gated reports whether the request has still to pass the gate.
func (b *books) gated(it *item) bool {
	return b.limited(it.req.Tenant) && b.counts(it) && !b.of(it).ledger.Holds(it.req.Identity)
}

// counts reports whether the request is one of a tenant with limits, and its balances are here. The limits may have come
// only after it was let in: then it goes on without.
func (b *books) counts(it *item) bool { return it.reserve != nil && b.of(it).ledger != nil }

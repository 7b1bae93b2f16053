package router

import (
	"container/list"
	"time"
)

const (
	// quantum is what a tenant of weight 1 may spend in a turn, in tokens. It only sets how finely turns alternate: an item
	// that costs more waits for as many turns as it needs.
	quantum = 512
	// MaxWeight bounds how much more one tenant may get than another.
	MaxWeight = 1000
)

// fair gives the requests of one model and class to tenants in turn, each as many tokens as its weight says, and each
// tenant's in order of arrival: deficit round robin (Shreedhar and Varghese, SIGCOMM 1995). While several tenants wait,
// none gets ahead of its share by more than one request and one turn, however many requests it sends and however large.
type fair struct {
	weight  func(tenant string) int
	gate    gate // nil when no tenant has limits
	tenants map[string]*share
	ring    list.List     // of *share, those that wait
	turn    *list.Element // whose turn it is; nil when nobody waits for one
	begun   bool          // the turn has been paid out

	tokens, weights int64 // of all that wait for a turn
}

// share is a tenant that waits.
type share struct {
	tenant  string
	weight  int64
	deficit int64     // what it may still spend, in tokens
	limited bool      // its requests pass the gate
	aside   bool      // it waits for the gate, and not for its turn
	items   list.List // of *item
	place   *list.Element
	tokens  int64 // of its items
}

func newFair(weight func(string) int) *fair {
	return &fair{weight: weight, tenants: make(map[string]*share)}
}

// empty reports whether nobody waits for a turn.
func (f *fair) empty() bool { return f.turn == nil }

func (f *fair) push(it *item) {
	s := f.share(it.req.Tenant)
	f.renew(s)
	it.place = s.items.PushBack(it)
	f.count(s, it.cost)
}

// count adds tokens to what a share waits with.
func (f *fair) count(s *share, tokens int64) {
	s.tokens += tokens
	if !s.aside {
		f.tokens += tokens
	}
}

// tokensOf is what a tenant waits with.
func (f *fair) tokensOf(tenant string) int64 {
	if s := f.tenants[tenant]; s != nil {
		return s.tokens
	}
	return 0
}

// unpop puts back an item that was popped, with what it cost.
func (f *fair) unpop(it *item) {
	s := f.share(it.req.Tenant)
	if s.aside { // what has passed the gate need not wait with the others
		f.takeBack(s)
	}
	s.deficit += it.cost
	it.place = s.items.PushFront(it)
	f.count(s, it.cost)
	f.turn, f.begun = s.place, true
}

// pop takes out the item whose turn it is, or gives nil when the gate lets nobody pass.
func (f *fair) pop() *item {
	for passed := 0; f.turn != nil; passed++ {
		if passed == f.ring.Len() {
			f.skipRounds()
			passed = 0
		}
		s := f.turn.Value.(*share)
		if !f.begun {
			s.deficit += quantum * s.weight
			f.begun = true
		}
		it := s.items.Front().Value.(*item)
		if it.cost > s.deficit {
			f.advance()
			continue
		}
		if s.limited && !f.gate.admit(f, s) {
			f.setAside(s)
			passed = -1 // the others get another round before anything is skipped
			continue
		}
		s.deficit -= it.cost
		f.remove(it)
		return it
	}
	return nil
}

// setAside gives the turns of a share to the others, and what it had not spent is lost.
func (f *fair) setAside(s *share) {
	f.leave(s)
	f.tokens -= s.tokens
	s.aside, s.deficit = true, 0
}

// takeBack lets a share that was aside have its turns again, behind all others.
func (f *fair) takeBack(s *share) {
	s.aside, s.place = false, f.ring.PushBack(s)
	f.tokens += s.tokens
	f.weights += s.weight
	if f.turn == nil {
		f.turn, f.begun = s.place, false
	}
}

// skipRounds pays out at once the rounds in which nobody could afford anything.
func (f *fair) skipRounds() {
	rounds := int64(-1)
	for e := f.ring.Front(); e != nil; e = e.Next() {
		s := e.Value.(*share)
		missing := s.items.Front().Value.(*item).cost - s.deficit
		if need := (missing - 1) / (quantum * s.weight); rounds < 0 || need < rounds {
			rounds = need
		}
	}
	for e := f.ring.Front(); e != nil; e = e.Next() {
		s := e.Value.(*share)
		s.deficit += rounds * quantum * s.weight
	}
}

// remove takes an item out, wherever it stands. A tenant that no longer waits keeps nothing of its deficit.
func (f *fair) remove(it *item) {
	s := f.tenants[it.req.Tenant]
	s.items.Remove(it.place)
	it.place = nil
	f.count(s, -it.cost)
	if s.items.Len() > 0 {
		return
	}
	if !s.aside {
		f.leave(s)
	}
	delete(f.tenants, s.tenant)
}

// leave takes a share out of the ring.
func (f *fair) leave(s *share) {
	if f.turn == s.place {
		f.advance()
	}
	if f.turn == s.place { // it was the only one
		f.turn = nil
	}
	f.ring.Remove(s.place)
	f.weights -= s.weight
}

func (f *fair) advance() {
	f.begun = false
	if f.turn = f.turn.Next(); f.turn == nil {
		f.turn = f.ring.Front()
	}
}

// share is that of a tenant, which joins behind all others when it did not wait before.
func (f *fair) share(tenant string) *share {
	if s := f.tenants[tenant]; s != nil {
		return s
	}
	s := &share{tenant: tenant, weight: f.weightOf(tenant), limited: f.gate != nil && f.gate.limited(tenant)}
	s.place = f.ring.PushBack(s)
	f.weights += s.weight
	f.tenants[tenant] = s
	if f.turn == nil {
		f.turn, f.begun = s.place, false
	}
	return s
}

// renew has a tenant wait with the weight and under the limits that it has now, however long it has been waiting.
func (f *fair) renew(s *share) {
	weight := f.configured(s.tenant)
	if !s.aside {
		f.weights += weight - s.weight
	}
	s.weight, s.limited = weight, f.gate != nil && f.gate.limited(s.tenant)
}

func (f *fair) configured(tenant string) int64 {
	return int64(min(max(f.weight(tenant), 1), MaxWeight))
}

// weightOf is the weight that a tenant waits with, or would.
func (f *fair) weightOf(tenant string) int64 {
	if s := f.tenants[tenant]; s != nil {
		return s.weight
	}
	return f.configured(tenant)
}

// since is the items that were queued at a time or before.
func (f *fair) since(at time.Time) (all []*item) {
	for _, s := range f.tenants {
		for e := s.items.Front(); e != nil; e = e.Next() {
			it := e.Value.(*item)
			if it.queued.After(at) {
				break // they are in the order of arrival
			}
			all = append(all, it)
		}
	}
	return all
}

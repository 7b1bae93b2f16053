package router

import (
	"container/heap"
	"container/list"
	"time"
)

// MaxWeight bounds how much more one tenant may get than another.
const MaxWeight = 1000

// fair gives the requests of one model and class to tenants by weight, counted in tokens, and each tenant's in order of
// arrival: start-time fair queueing (Goyal, Vin and Cheng, SIGCOMM 1996). Time is counted in rounds: in each, a tenant that
// waits gets a token for each unit of its weight. A request goes in the round in which its tenant has paid for all before it,
// so that one of a tenant that begins to wait goes after at most one request of each other, whatever they cost; and while
// tenants wait, none gets further ahead of another than by one request of either.
type fair struct {
	weight  func(tenant string) int
	gate    gate // nil when no tenant has limits
	tenants map[string]*share
	turns   turns   // of those that wait for one, and of those that owe
	round   float64 // that of the request which went last
	latest  float64 // that up to which anybody has been given tokens
	taken   uint64  // turns, which numbers them

	tokens, weights int64 // of all that wait for a turn
	due             int64 // tokens of the requests that go in this round
}

// share is a tenant that waits, or that got more than its share while others waited and still do.
type share struct {
	tenant  string
	weight  int64
	start   float64   // round in which its next request goes
	number  uint64    // the lower goes first in the same round
	index   int       // in the turns
	limited bool      // its requests pass the gate
	aside   bool      // it waits for the gate, and not for its turn
	items   list.List // of *item
	tokens  int64     // of its items
	due     int64     // of the first of them, when that goes in this round
}

func newFair(weight func(string) int) *fair {
	return &fair{weight: weight, tenants: make(map[string]*share)}
}

// empty reports whether nobody waits for a turn.
func (f *fair) empty() bool { return f.weights == 0 }

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
	f.look(s)
}

// look sees whether the first request of a share goes in this round.
func (f *fair) look(s *share) {
	f.due -= s.due
	s.due = 0
	if first := s.items.Front(); first != nil && !s.aside && s.start <= f.round {
		s.due = first.Value.(*item).cost
		f.due += s.due
	}
}

// begin begins a round, and looks at the shares that go in it: those at the top of the heap from i on.
func (f *fair) begin(round float64, i int) {
	f.round = round
	if i >= len(f.turns) || f.turns[i].start > round {
		return
	}
	f.look(f.turns[i])
	f.begin(round, 2*i+1)
	f.begin(round, 2*i+2)
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
	s.start -= s.rounds(it.cost)
	heap.Fix(&f.turns, s.index)
	it.place = s.items.PushFront(it)
	f.count(s, it.cost)
}

// rounds is in how many rounds a share gets so many tokens.
func (s *share) rounds(tokens int64) float64 { return float64(tokens) / float64(s.weight) }

// pop takes out the item whose turn it is, or gives nil when the gate lets nobody pass. owed says that a more urgent class
// waits while this one has its floor.
func (f *fair) pop(owed bool) *item {
	for !f.empty() {
		s := f.turns[0]
		if s.items.Len() == 0 { // it owes nothing any more
			f.forget(s)
			continue
		}
		if s.limited && !f.gate.admit(f, s, owed) {
			f.setAside(s)
			continue
		}
		if s.start > f.round {
			f.begin(s.start, 0)
		}
		it := s.items.Front().Value.(*item)
		s.start += s.rounds(it.cost)
		f.latest = max(f.latest, s.start)
		f.enter(s)
		f.remove(it)
		return it
	}
	return nil
}

// enter puts a share in its place among the turns, behind those of the same round.
func (f *fair) enter(s *share) {
	f.taken++
	s.number = f.taken
	if s.index < 0 {
		heap.Push(&f.turns, s)
	} else {
		heap.Fix(&f.turns, s.index)
	}
}

// setAside gives the turns of a share to the others.
func (f *fair) setAside(s *share) {
	heap.Remove(&f.turns, s.index)
	f.tokens -= s.tokens
	s.aside = true
	f.look(s)
	f.left(s)
}

// takeBack lets a share that was aside have its turns again, behind all others of this round.
func (f *fair) takeBack(s *share) {
	s.aside = false
	f.tokens += s.tokens
	f.join(s)
	f.look(s)
}

// join lets a share wait for its turn from now on. What it did not use before is lost, and what it owes is not.
func (f *fair) join(s *share) {
	s.start = max(s.start, f.round)
	f.weights += s.weight
	f.enter(s)
}

// left notes that a share waits for no turn any more. When nobody does, nobody owes anything: what a tenant got was not
// wanted by another.
func (f *fair) left(s *share) {
	if f.weights -= s.weight; f.weights > 0 {
		return
	}
	f.round = f.latest
	for len(f.turns) > 0 {
		f.forget(f.turns[len(f.turns)-1])
	}
}

// forget drops a share that waits with nothing.
func (f *fair) forget(s *share) {
	if s.index >= 0 {
		heap.Remove(&f.turns, s.index)
	}
	delete(f.tenants, s.tenant)
}

// remove takes an item out, wherever it stands. A tenant that neither waits nor owes is forgotten.
func (f *fair) remove(it *item) {
	s := f.tenants[it.req.Tenant]
	s.items.Remove(it.place)
	it.place = nil
	f.count(s, -it.cost)
	if s.items.Len() > 0 {
		return
	}
	if s.aside || s.start <= f.round {
		f.forget(s)
	}
	if !s.aside {
		f.left(s)
	}
}

// share is that of a tenant, which waits from now on if it did not before.
func (f *fair) share(tenant string) *share {
	s := f.tenants[tenant]
	if s == nil {
		s = &share{tenant: tenant, index: -1, weight: f.configured(tenant), limited: f.gate != nil && f.gate.limited(tenant)}
		f.tenants[tenant] = s
	}
	if s.items.Len() == 0 {
		f.join(s)
	}
	return s
}

// renew has a tenant wait with the weight and under the limits that it has now, however long it has been waiting.
func (f *fair) renew(s *share) {
	s.limited = f.gate != nil && f.gate.limited(s.tenant)
	weight := f.configured(s.tenant)
	if weight == s.weight {
		return
	}
	if s.start > f.round { // it owes the same tokens
		s.start = f.round + (s.start-f.round)*float64(s.weight)/float64(weight)
	}
	if !s.aside {
		f.weights += weight - s.weight
		heap.Fix(&f.turns, s.index)
	}
	s.weight = weight
}

func (f *fair) configured(tenant string) int64 {
	return int64(min(max(f.weight(tenant), 1), MaxWeight))
}

// weightOf is the weight that a tenant waits with, or would.
func (f *fair) weightOf(tenant string) int64 {
	if s := f.tenants[tenant]; s != nil && s.items.Len() > 0 {
		return s.weight
	}
	return f.configured(tenant)
}

// others is the weights of all that wait for a turn beside a tenant.
func (f *fair) others(tenant string) int64 {
	if s := f.tenants[tenant]; s != nil && s.items.Len() > 0 && !s.aside {
		return f.weights - s.weight
	}
	return f.weights
}

// before is how many tokens of others are likely to go before a request of a tenant that has own tokens before it: in each of
// the rounds that its tenant needs for those and for what it owes the others get their weights, and what goes in this round
// goes in any case, or half of that when the request itself does.
func (f *fair) before(tenant string, own int64) float64 {
	s := f.tenants[tenant]
	if s == nil {
		s = &share{}
	}
	due := float64(f.due - s.due)
	if s.due > 0 && own == 0 {
		due /= 2
	}
	rounds := max(s.start-f.round, 0) + float64(own)/float64(f.weightOf(tenant))
	return max(rounds*float64(f.others(tenant)), due)
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

// turns is a heap of shares, that which goes next first.
type turns []*share

func (t turns) Len() int { return len(t) }

func (t turns) Less(i, j int) bool {
	if t[i].start != t[j].start {
		return t[i].start < t[j].start
	}
	return t[i].number < t[j].number
}

func (t turns) Swap(i, j int) {
	t[i], t[j] = t[j], t[i]
	t[i].index, t[j].index = i, j
}

// Push is for package heap.
func (t *turns) Push(x any) {
	s := x.(*share)
	s.index = len(*t)
	*t = append(*t, s)
}

// Pop is for package heap.
func (t *turns) Pop() any {
	all := *t
	s := all[len(all)-1]
	all[len(all)-1] = nil
	s.index, *t = -1, all[:len(all)-1]
	return s
}

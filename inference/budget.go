package inference

import (
	"sync"
	"time"
)

// The floor of a retry budget: what a model may spend whose requests are few, and how fast it comes back.
const (
	budgetFloor = 20
	budgetEvery = 2 * time.Second
)

// defaultBudget is how many calls beyond the first of each request a model may make, per hundred requests.
const defaultBudget = 10

// oneCall is a call in the unit that a budget is counted in, so that a hundred hundredths are one.
const oneCall = int64(time.Second)

// budget bounds the calls of a model beyond the first of each request, so that a server in trouble does not get more load
// from its trouble. In any time they are at most a share of the requests, and a floor, and one at every interval. It is
// safe for concurrent use.
type budget struct {
	share int64         // what a request pays in
	floor int64         // it starts with so much, and holds no more
	every time.Duration // pays in one call; 0 = never

	mu    sync.Mutex
	saved int64
	since time.Time
}

func newBudget(percent, floor int, every time.Duration) *budget {
	b := &budget{share: int64(percent) * oneCall / 100, floor: int64(floor) * oneCall, every: every, since: time.Now()}
	b.saved = b.floor
	return b
}

// request pays in for one request.
func (b *budget) request() { b.pay(b.share) }

// refund puts back an extra call that was not made.
func (b *budget) refund() { b.pay(oneCall) }

func (b *budget) pay(amount int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.saved = min(b.saved+amount, b.floor)
}

// spend takes one extra call, or reports that there is none left.
func (b *budget) spend() bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.every > 0 {
		now := time.Now()
		passed := min(now.Sub(b.since), time.Hour) // what a longer time brings in is over the floor by far
		b.saved = min(b.saved+int64(float64(oneCall)*float64(passed)/float64(b.every)), b.floor)
		b.since = now
	}
	if b.saved < oneCall {
		return false
	}
	b.saved -= oneCall
	return true
}

package router

import (
	"iter"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// class is a priority class, the most urgent first.
type class int

const (
	classInteractive class = iota
	classNormal
	classBatch
	classCount
)

// floors is the least part of a model's tokens that a class gets while it waits, however much more urgent work there is.
// What the classes below leave is the least of the first.
var floors = [classCount]float64{classNormal: 0.20, classBatch: 0.05}

// ageAfter is how long a request waits before it counts as one of the next more urgent class.
const ageAfter = 30 * time.Second

func classOf(p schemas.Priority) class {
	switch p {
	case schemas.PriorityInteractive:
		return classInteractive
	case schemas.PriorityBatch:
		return classBatch
	}
	return classNormal
}

// priority is the class as requests name it.
func (c class) priority() schemas.Priority {
	return [...]schemas.Priority{schemas.PriorityInteractive, schemas.PriorityNormal, schemas.PriorityBatch}[c]
}

// owedFirst is how many tokens of its floor a class must be owed to go before a more urgent one.
const owedFirst = 512

// classes are the requests of one model by class. The most urgent goes first, unless a class below is owed of its floor.
type classes struct {
	lines [classCount]*fair
	owed  [classCount]float64 // tokens; negative when a class was given more at once than it was owed
	count int
}

func newClasses(weight func(string) int) *classes {
	c := &classes{}
	for i := range c.lines {
		c.lines[i] = newFair(weight)
	}
	return c
}

func (c *classes) push(it *item) {
	c.count++
	c.lines[it.class].push(it)
}

func (c *classes) unpop(it *item) {
	c.count++
	c.lines[it.class].unpop(it)
}

func (c *classes) remove(it *item) {
	c.count--
	c.lines[it.class].remove(it)
}

// pop takes out the request that goes next, or gives nil when none may go now.
func (c *classes) pop() *item {
	for !c.idle() {
		first := c.first()
		chosen := first
		for i := first + 1; i < classCount; i++ {
			if !c.lines[i].empty() && c.owed[i] >= owedFirst {
				chosen = i
				break
			}
		}
		if it := c.lines[chosen].pop(chosen != first); it != nil {
			c.count--
			c.pay(it.cost, first, chosen)
			return it
		}
	}
	return nil
}

// idle reports whether nobody waits for a turn.
func (c *classes) idle() bool {
	for _, line := range c.lines {
		if !line.empty() {
			return false
		}
	}
	return true
}

// pay settles what the classes are owed after one of them was given tokens.
func (c *classes) pay(cost int64, first, chosen class) {
	c.owed[first] = 0 // it goes first: it needs no floor
	for i := first + 1; i < classCount; i++ {
		if i == chosen {
			c.owed[i] -= float64(cost)
		}
		if i == chosen || !c.lines[i].empty() {
			c.owed[i] += floors[i] * float64(cost)
		}
	}
}

// first is the most urgent class that waits.
func (c *classes) first() class {
	for i, line := range c.lines {
		if !line.empty() {
			return class(i)
		}
	}
	return classCount - 1
}

// heads yields the requests that go next of their tenants.
func (c *classes) heads() iter.Seq[*item] {
	return func(yield func(*item) bool) {
		for _, line := range c.lines {
			for _, s := range line.tenants {
				if first := s.items.Front(); first != nil && !yield(first.Value.(*item)) {
					return
				}
			}
		}
	}
}

// age lets what has waited for long count as more urgent.
func (c *classes) age(now time.Time) {
	for i := classNormal; i < classCount; i++ {
		for _, it := range c.lines[i].since(now.Add(-ageAfter)) {
			c.lines[i].remove(it)
			it.class, it.queued = i-1, now
			c.lines[i-1].push(it)
		}
	}
}

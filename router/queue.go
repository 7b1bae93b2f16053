package router

import (
	"iter"
	"time"
)

// queue holds the requests that wait for room, by model. Which request of a model goes next is decided by its [classes] and,
// within a class, by [fair], and nowhere else.
type queue struct {
	weight func(tenant string) int
	gate   gate // nil when no tenant has limits
	models map[string]*classes
	count  int
}

func newQueue(weight func(tenant string) int) *queue {
	return &queue{weight: weight, models: make(map[string]*classes)}
}

// push adds a request that has just begun to wait.
func (q *queue) push(it *item) {
	it.begin()
	q.lane(it.model()).push(it)
	q.count++
}

// begin puts a request into the class that its caller asked for.
func (it *item) begin() { it.class, it.queued = classOf(it.req.Priority), time.Now() }

// unpop puts back a request that could not go, in front of the others of its tenant. It need not have waited before.
func (q *queue) unpop(it *item) {
	if it.queued.IsZero() {
		it.begin()
	}
	q.lane(it.model()).unpop(it)
	q.count++
}

// pop takes the request of a model that goes next, or nil.
func (q *queue) pop(model string) *item {
	lane := q.models[model]
	if lane == nil {
		return nil
	}
	it := lane.pop()
	if it != nil {
		q.left(model, lane)
	}
	return it
}

// remove takes a request out, wherever it stands. It reports whether the request was queued.
func (q *queue) remove(it *item) bool {
	if it.place == nil {
		return false
	}
	lane := q.models[it.model()]
	lane.remove(it)
	q.left(it.model(), lane)
	return true
}

func (q *queue) left(model string, lane *classes) {
	q.count--
	if lane.count == 0 {
		delete(q.models, model)
	}
}

// age lets what has waited for long count as more urgent.
func (q *queue) age(now time.Time) {
	for _, lane := range q.models {
		lane.age(now)
	}
}

// len is the number of requests that wait.
func (q *queue) len() int { return q.count }

// has reports whether a request of the model waits.
func (q *queue) has(model string) bool { return q.models[model] != nil }

// ready reports whether a request of the model waits for its turn, and not only for the limits of its tenant.
func (q *queue) ready(model string) bool {
	lane := q.models[model]
	return lane != nil && !lane.idle()
}

// waiting yields the models that have requests waiting.
func (q *queue) waiting() iter.Seq[string] {
	return func(yield func(string) bool) {
		for model := range q.models {
			if !yield(model) {
				return
			}
		}
	}
}

func (q *queue) lane(model string) *classes {
	lane := q.models[model]
	if lane == nil {
		lane = newClasses(q.weight)
		for _, line := range lane.lines {
			line.gate = q.gate
		}
		q.models[model] = lane
	}
	return lane
}

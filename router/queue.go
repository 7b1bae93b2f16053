package router

import (
	"container/list"
	"iter"
)

// queue holds the requests that wait for room, by model and in order of arrival over all tenants. Which request of a model
// goes next is decided in pop and nowhere else.
type queue struct {
	models map[string]*list.List
	count  int
}

func newQueue() *queue { return &queue{models: make(map[string]*list.List)} }

// push puts a request behind all others of its model.
func (q *queue) push(it *item) { it.place = q.lane(it.model()).PushBack(it); q.count++ }

// unpop puts back a request that was popped and could not go.
func (q *queue) unpop(it *item) { it.place = q.lane(it.model()).PushFront(it); q.count++ }

// pop takes the request of a model that goes next, or nil.
func (q *queue) pop(model string) *item {
	lane := q.models[model]
	if lane == nil {
		return nil
	}
	it := lane.Front().Value.(*item)
	q.remove(it)
	return it
}

// remove takes a request out, wherever it stands. It reports whether the request was queued.
func (q *queue) remove(it *item) bool {
	if it.place == nil {
		return false
	}
	lane := q.models[it.model()]
	lane.Remove(it.place)
	it.place = nil
	q.count--
	if lane.Len() == 0 {
		delete(q.models, it.model())
	}
	return true
}

// len is the number of requests that wait.
func (q *queue) len() int { return q.count }

// has reports whether a request of the model waits.
func (q *queue) has(model string) bool { return q.models[model] != nil }

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

func (q *queue) lane(model string) *list.List {
	lane := q.models[model]
	if lane == nil {
		lane = list.New()
		q.models[model] = lane
	}
	return lane
}

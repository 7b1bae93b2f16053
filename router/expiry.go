package router

import (
	"container/heap"
	"time"
)

// expiries orders the requests that wait by deadline.
type expiries []*item

func (e expiries) Len() int           { return len(e) }
func (e expiries) Less(i, j int) bool { return e[i].deadline.Before(e[j].deadline) }
func (e expiries) Swap(i, j int) {
	e[i], e[j] = e[j], e[i]
	e[i].alarm, e[j].alarm = i+1, j+1
}

// Push is for package heap; use add.
func (e *expiries) Push(x any) {
	it := x.(*item)
	*e = append(*e, it)
	it.alarm = len(*e)
}

// Pop is for package heap; use due.
func (e *expiries) Pop() any {
	last := len(*e) - 1
	it := (*e)[last]
	(*e)[last] = nil
	*e = (*e)[:last]
	it.alarm = 0
	return it
}

func (e *expiries) add(it *item) { heap.Push(e, it) }

func (e *expiries) remove(it *item) {
	if it.alarm > 0 {
		heap.Remove(e, it.alarm-1)
	}
}

// due takes out a request whose deadline has passed, or nil.
func (e *expiries) due(now time.Time) *item {
	if len(*e) == 0 || now.Before((*e)[0].deadline) {
		return nil
	}
	return heap.Pop(e).(*item)
}

package inference

import (
	"slices"
	"sync"

	"github.com/weir-llm/weir/schemas"
)

// runs are the requests that this process runs now, so that a cancel hint finds its run and a copy of an item that is
// already running is dropped.
type runs struct {
	mu       sync.Mutex
	items    map[uint64]struct{} // by LLM_WORK sequence
	watchers map[schemas.Identity][]*watcher
}

func newRuns() *runs {
	return &runs{items: map[uint64]struct{}{}, watchers: map[schemas.Identity][]*watcher{}}
}

// begin registers an item; it returns false when the item runs already.
func (r *runs) begin(sequence uint64) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, running := r.items[sequence]; running {
		return false
	}
	r.items[sequence] = struct{}{}
	return true
}

func (r *runs) end(sequence uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.items, sequence)
}

// watch has tell called for every cancel hint for the request, until unwatch. tell must not block. Two items of one request
// may be here at once, until one of them has lost its claim.
func (r *runs) watch(id schemas.Identity, tell func(cause error)) *watcher {
	w := &watcher{id, tell}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.watchers[id] = append(r.watchers[id], w)
	return w
}

// unwatch may be called more than once.
func (r *runs) unwatch(w *watcher) {
	r.mu.Lock()
	defer r.mu.Unlock()
	left := slices.DeleteFunc(r.watchers[w.id], func(other *watcher) bool { return other == w })
	if r.watchers[w.id] = left; len(left) == 0 {
		delete(r.watchers, w.id)
	}
}

// cancel ends the runs of a request, if it runs here.
func (r *runs) cancel(id schemas.Identity, by schemas.CancelledBy) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, w := range r.watchers[id] {
		w.tell(schemas.Cancelled(by))
	}
}

type watcher struct {
	id   schemas.Identity
	tell func(cause error)
}

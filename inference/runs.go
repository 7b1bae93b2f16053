package inference

import (
	"context"
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

// watch returns a context that a cancel hint for the request ends, and a function that stops watching. Two items of one
// request may be here at once, until one of them has lost its claim.
func (r *runs) watch(ctx context.Context, id schemas.Identity) (context.Context, func()) {
	ctx, stop := context.WithCancelCause(ctx)
	unwatch := r.listen(id, stop)
	return ctx, func() { unwatch(); stop(nil) }
}

// listen has tell called for every cancel hint for the request, until it is stopped. tell must not block.
func (r *runs) listen(id schemas.Identity, tell func(cause error)) (stop func()) {
	w := &watcher{tell}
	r.mu.Lock()
	r.watchers[id] = append(r.watchers[id], w)
	r.mu.Unlock()
	return func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		left := slices.DeleteFunc(r.watchers[id], func(other *watcher) bool { return other == w })
		if r.watchers[id] = left; len(left) == 0 {
			delete(r.watchers, id)
		}
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

type watcher struct{ tell func(cause error) }

package inference

import (
	"context"
	"sync"

	"github.com/weir-llm/weir/schemas"
)

// runs are the requests that this process runs now, so that a cancel hint finds its run and a copy of an item that is
// already running is dropped.
type runs struct {
	mu    sync.Mutex
	items map[uint64]struct{} // by LLM_WORK sequence
	stops map[schemas.Identity]context.CancelCauseFunc
}

func newRuns() *runs {
	return &runs{items: map[uint64]struct{}{}, stops: map[schemas.Identity]context.CancelCauseFunc{}}
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

// watch returns a context that a cancel hint for the request ends, and a function that stops watching.
func (r *runs) watch(ctx context.Context, id schemas.Identity) (context.Context, func()) {
	ctx, stop := context.WithCancelCause(ctx)
	r.mu.Lock()
	r.stops[id] = stop
	r.mu.Unlock()
	return ctx, func() {
		r.mu.Lock()
		delete(r.stops, id)
		r.mu.Unlock()
		stop(nil)
	}
}

// cancel ends the run of a request, if it runs here.
func (r *runs) cancel(id schemas.Identity) {
	r.mu.Lock()
	stop := r.stops[id]
	r.mu.Unlock()
	if stop != nil {
		stop(schemas.Errorf(schemas.CodeCancelled, "the request was cancelled"))
	}
}

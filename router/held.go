package router

import (
	"iter"
	"maps"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// held is every request that the router has not settled, on a wheel that comes round once per third of a lease: each turn
// gives the requests of one spoke, so that the renewals are spread over time and none is late.
type held struct {
	spokes []map[uint64]*item // by sequence in LLM_REQUESTS
	next   int                // the spoke whose turn it is
	named  map[schemas.Identity][]*item
	of     map[string]*load // by tenant
	load
}

// load is how much is held.
type load struct {
	count int
	bytes int64
}

func (l *load) add(count int, bytes int64) { l.count, l.bytes = l.count+count, l.bytes+bytes }

func newHeld(lease, tick time.Duration) *held {
	h := &held{spokes: make([]map[uint64]*item, max(1, int(lease/3/tick))), named: make(map[schemas.Identity][]*item), of: make(map[string]*load)}
	for i := range h.spokes {
		h.spokes[i] = make(map[uint64]*item)
	}
	return h
}

func (h *held) spoke(sequence uint64) map[uint64]*item {
	return h.spokes[sequence%uint64(len(h.spokes))]
}

// get is the request that was delivered with the sequence, or nil.
func (h *held) get(sequence uint64) *item { return h.spoke(sequence)[sequence] }

func (h *held) add(it *item) {
	h.spoke(it.sequence)[it.sequence] = it
	h.named[it.req.Identity] = append(h.named[it.req.Identity], it)
	h.load.add(1, it.size)
	h.tenant(it.req.Tenant).add(1, it.size)
}

// tenant is how much is held for a tenant.
func (h *held) tenant(name string) *load {
	of := h.of[name]
	if of == nil {
		of = &load{}
		h.of[name] = of
	}
	return of
}

func (h *held) remove(it *item) {
	delete(h.spoke(it.sequence), it.sequence)
	h.load.add(-1, -it.size)
	of := h.tenant(it.req.Tenant)
	if of.add(-1, -it.size); of.count == 0 {
		delete(h.of, it.req.Tenant)
	}
	id, kept := it.req.Identity, h.named[it.req.Identity][:0]
	for _, other := range h.named[id] {
		if other != it {
			kept = append(kept, other)
		}
	}
	if h.named[id] = kept; len(kept) == 0 {
		delete(h.named, id)
	}
}

// with is the requests that carry the identity: more than one when a caller used its id again.
func (h *held) with(id schemas.Identity) []*item { return h.named[id] }

// turn yields the requests whose lease is to be renewed now.
func (h *held) turn() iter.Seq[*item] {
	spoke := h.spokes[h.next]
	h.next = (h.next + 1) % len(h.spokes)
	return maps.Values(spoke)
}

// all yields every request.
func (h *held) all() iter.Seq[*item] {
	return func(yield func(*item) bool) {
		for _, spoke := range h.spokes {
			for _, it := range spoke {
				if !yield(it) {
					return
				}
			}
		}
	}
}

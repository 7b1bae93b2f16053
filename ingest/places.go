package ingest

import (
	"net/netip"
	"sync"

	"github.com/weir-llm/weir/schemas"
)

// places are taken by the requests being answered: so many in all, for one key, and for one address. Taking one never
// waits: a full house is told so (docs/adr/0012).
type places struct {
	all, perKey, perAddress int

	mu        sync.Mutex
	taken     int
	keys      map[string]int
	addresses map[netip.Addr]int
}

func newPlaces(all, perKey, perAddress int) *places {
	return &places{all: all, perKey: perKey, perAddress: perAddress, keys: make(map[string]int), addresses: make(map[netip.Addr]int)}
}

// take claims a place for a key, which is empty while none is needed, and an address, which is invalid when it is not
// known. A place that was claimed is given back with give.
func (p *places) take(key string, addr netip.Addr) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.taken >= p.all:
		return schemas.Errorf(schemas.CodeOverloaded, "%d requests are being answered already. Please try again in 1s.", p.all).WithRetryAfter(overloadedRetry)
	case key != "" && p.keys[key] >= p.perKey:
		return schemas.Errorf(schemas.CodeRateLimit, "%d requests with this API key are being answered already, as many as one key may have at once. Please try again in 1s, or when one has ended.", p.perKey).
			WithRetryAfter(overloadedRetry)
	case addr.IsValid() && p.addresses[addr] >= p.perAddress:
		return schemas.Errorf(schemas.CodeRateLimit, "%d requests from your address are being answered already, as many as one address may have at once. Please try again in 1s, or when one has ended.", p.perAddress).
			WithRetryAfter(overloadedRetry)
	}
	p.taken++
	if addr.IsValid() {
		p.addresses[addr]++
	}
	if key != "" {
		p.keys[key]++
	}
	return nil
}

// room is the limit that is nearest for a key and an address, and how many places are free under it.
func (p *places) room(key string, addr netip.Addr) (limit, free int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	limit, free = p.all, p.all-p.taken
	if left := p.perKey - p.keys[key]; key != "" && left < free {
		limit, free = p.perKey, left
	}
	if left := p.perAddress - p.addresses[addr]; addr.IsValid() && left < free {
		limit, free = p.perAddress, left
	}
	return limit, free
}

// give gives a place back.
func (p *places) give(key string, addr netip.Addr) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.taken--
	if addr.IsValid() {
		leave(p.addresses, addr)
	}
	if key != "" {
		leave(p.keys, key)
	}
}

// leave counts down and forgets who has nothing left, so that the map holds no more than what is taken.
func leave[K comparable](counts map[K]int, k K) {
	if counts[k]--; counts[k] == 0 {
		delete(counts, k)
	}
}

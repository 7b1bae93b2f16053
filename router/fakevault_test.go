package router

import (
	"context"
	"strings"
	"sync"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// fakeVault is a vault in memory.
type fakeVault struct {
	mu       sync.Mutex
	records  map[int]bus.Balances
	events   []string
	failures int               // of reads of records, to come
	counted  map[string]uint64 // sequence of the result, by request
	unseen   int               // looks for a result that fail, to come

	results chan bus.Charged
	next    uint64
}

func newFakeVault() *fakeVault {
	return &fakeVault{records: make(map[int]bus.Balances), counted: make(map[string]uint64), results: make(chan bus.Charged, 100)}
}

func (v *fakeVault) Balances(_ context.Context, partition int) (bus.Balances, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.failures > 0 {
		v.failures--
		return bus.Balances{}, context.DeadlineExceeded
	}
	return v.records[partition], nil
}

func (v *fakeVault) PutBalances(_ context.Context, partition int, value []byte, revision uint64) (uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.records[partition].Revision != revision {
		return 0, bus.ErrConflict
	}
	v.records[partition] = bus.Balances{Value: value, Revision: revision + 1, Stored: time.Now().Round(0)}
	return revision + 1, nil
}

// steal writes a partition's record as another router does.
func (v *fakeVault) steal(partition int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	r := v.records[partition]
	r.Revision++
	r.Value = []byte(strings.Replace(string(r.Value), `"writer":"`, `"writer":"other-`, 1))
	v.records[partition] = r
}

func (v *fakeVault) WorkUnderWay(context.Context) ([]*schemas.Work, error) { return nil, nil }
func (v *fakeVault) LastResult(context.Context) (uint64, error)            { return 0, nil }

func (v *fakeVault) ResultSequence(_ context.Context, id schemas.Identity) (uint64, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.unseen > 0 {
		v.unseen--
		return 0, context.DeadlineExceeded
	}
	if sequence := v.counted[id.Request]; sequence > 0 {
		return sequence, nil
	}
	return 0, bus.ErrNotFound
}

// count lets a request have a result, and blind lets some looks for results fail.
func (v *fakeVault) count(request string, sequence uint64) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.counted[request] = sequence
}

func (v *fakeVault) blind(looks int) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.unseen = looks
}

func (v *fakeVault) Charges(ctx context.Context, _ uint64, caught func(), fn func(bus.Charged) bool) error {
	if caught != nil {
		caught()
		<-ctx.Done()
		return context.Cause(ctx)
	}
	for {
		select {
		case c := <-v.results:
			if !fn(c) {
				return nil
			}
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

func (v *fakeVault) Event(kind string, data []byte) {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.events = append(v.events, kind+" "+string(data))
}

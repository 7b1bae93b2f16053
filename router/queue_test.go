package router

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/schemas"
)

func waiting(sequence uint64, tenant, model string) *item {
	return &item{sequence: sequence, cost: 500, req: &schemas.Request{Identity: schemas.Identity{Tenant: tenant, Request: schemas.SequenceID(sequence)}, ModelToken: model}}
}

func drainQueue(q *queue, model string) (sequences []uint64) {
	for it := q.pop(model); it != nil; it = q.pop(model) {
		sequences = append(sequences, it.sequence)
	}
	return sequences
}

func TestQueueKeepsModelsApart(t *testing.T) {
	t.Parallel()
	q := newQueue(func(string) int { return 1 })
	q.push(waiting(1, "acme", "a"))
	q.push(waiting(2, "acme", "b"))
	q.push(waiting(3, "other", "a"))
	q.push(waiting(4, "acme", "a"))
	if got := q.len(); got != 4 {
		t.Errorf("len = %d, want 4", got)
	}
	if diff := cmp.Diff([]string{"a", "b"}, slices.Sorted(q.waiting())); diff != "" {
		t.Errorf("waiting models (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uint64{1, 3, 4}, drainQueue(q, "a")); diff != "" {
		t.Errorf("order of model a (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]uint64{2}, drainQueue(q, "b")); diff != "" {
		t.Errorf("order of model b (-want +got):\n%s", diff)
	}
	if q.len() != 0 || q.has("a") || q.pop("a") != nil {
		t.Error("the queue is not empty after everything was popped")
	}
}

func TestQueueRemoveAndUnpop(t *testing.T) {
	t.Parallel()
	q := newQueue(func(string) int { return 1 })
	items := []*item{waiting(1, "acme", "a"), waiting(2, "acme", "a"), waiting(3, "acme", "a")}
	for _, it := range items {
		q.push(it)
	}
	if !q.remove(items[1]) || q.remove(items[1]) {
		t.Error("remove must report whether the request was queued")
	}
	first := q.pop("a")
	q.unpop(first)
	if diff := cmp.Diff([]uint64{1, 3}, drainQueue(q, "a")); diff != "" {
		t.Errorf("order (-want +got):\n%s", diff)
	}
}

func TestExpiriesGiveTheEarliestDeadlineFirst(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var e expiries
	var items []*item
	for i, after := range []time.Duration{5, 1, 4, 2, 3} {
		it := waiting(uint64(i), "acme", "a")
		it.deadline = now.Add(after * time.Second)
		items = append(items, it)
		e.add(it)
	}
	e.remove(items[2]) // 4 s
	e.remove(items[2]) // twice is once
	var got []time.Duration
	for it := e.due(now.Add(3 * time.Second)); it != nil; it = e.due(now.Add(3 * time.Second)) {
		got = append(got, it.deadline.Sub(now))
	}
	if diff := cmp.Diff([]time.Duration{time.Second, 2 * time.Second, 3 * time.Second}, got); diff != "" {
		t.Errorf("due (-want +got):\n%s", diff)
	}
	if len(e) != 1 {
		t.Errorf("%d requests wait, want the one of 5 s", len(e))
	}
}

func TestHeldRenewsEveryRequestOncePerRound(t *testing.T) {
	t.Parallel()
	h := newHeld(2*time.Second, tick)
	for sequence := range uint64(100) {
		h.add(waiting(sequence, "acme", "a"))
	}
	gone := h.get(17)
	h.remove(gone)
	renewed := make(map[uint64]int)
	for range h.spokes {
		for it := range h.turn() {
			renewed[it.sequence]++
		}
	}
	if round := time.Duration(len(h.spokes)) * tick; round > 2*time.Second/3 {
		t.Errorf("a round takes %v, more than a third of the lease", round)
	}
	for sequence := range uint64(100) {
		want := 1
		if sequence == 17 {
			want = 0
		}
		if renewed[sequence] != want {
			t.Errorf("request %d was renewed %d times, want %d", sequence, renewed[sequence], want)
		}
	}
	if h.count != 99 || len(h.with(gone.req.Identity)) != 0 {
		t.Errorf("count = %d, named = %v after one of 100 was removed", h.count, h.with(gone.req.Identity))
	}
}

// Package storetest defines what a sink.Store must do. Every engine runs it.
package storetest

import (
	"cmp"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	gocmp "github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/weir-llm/weir/schemas"
	"github.com/weir-llm/weir/sink"
)

// Open opens the same store each time it is called within one test, so that a test can close and open it again. The
// suite closes what it opens.
type Open func(t *testing.T) sink.Store

// Run checks the engine. newStore prepares an empty store for one test.
func Run(t *testing.T, newStore func(t *testing.T) Open) {
	t.Helper()
	for name, test := range map[string]func(*testing.T, Open){
		"what is put is got, whole":                  testRoundTrip,
		"metadata alone":                             testMetadataOnly,
		"what is committed survives a restart":       testRestart,
		"a redelivered record changes nothing":       testDuplicates,
		"an id used again is another record":         testReusedID,
		"a batch is all or nothing":                  testAtomicBatch,
		"an unknown record is not found":             testNotFound,
		"listing by tenant, time and status":         testListFilters,
		"listing in pages":                           testListPages,
		"listing stops when the caller does":         testListBreak,
		"reads go on while writing":                  testConcurrentReads,
		"concurrent writers keep one record":         testConcurrentWriters,
		"erase leaves a tombstone":                   testErase,
		"a tombstone that is put erases":             testPutTombstone,
		"a tombstone holds back what comes after it": testTombstoneFirst,
		"days are summed up":                         testDays,
		"close while busy":                           testCloseWhileBusy,
	} {
		t.Run(strings.ReplaceAll(name, " ", "_"), func(t *testing.T) {
			t.Parallel()
			test(t, newStore(t))
		})
	}
}

// Epoch is when the first record of a test was accepted.
var Epoch = time.Date(2026, 11, 24, 17, 0, 0, 0, time.UTC)

// Record is a complete result, accepted at seconds after [Epoch].
func Record(tenant, request string, at int) *schemas.Result {
	accepted := Epoch.Add(time.Duration(at) * time.Second)
	r := &schemas.Result{
		V: schemas.Version, Tenant: tenant, RequestID: request, Model: "gpt-4.1", Op: schemas.OpChat,
		Accepted: accepted, Started: accepted.Add(5 * time.Millisecond), Finished: accepted.Add(900 * time.Millisecond),
		Status: schemas.StatusCompleted, FinishReasons: []string{"stop"}, Attempts: 1, FirstTokenMS: 12.5, DurationMS: 895,
		Usage:    &schemas.Usage{PromptTokens: 10, CompletionTokens: 20, TotalTokens: 30},
		Cost:     &schemas.Cost{Amount: 250, Currency: "USD"},
		Tries:    []schemas.Try{{Attempt: 1, Backend: "echo", Started: accepted, DurationMS: 890}},
		Priority: schemas.PriorityNormal, Dispatch: 1, Worker: "worker-1", Cache: "MISS",
		Response: json.RawMessage(`{"choices":[{"message":{"content":"the answer of ` + request + `"}}]}`),
		Events:   &schemas.EventLog{Encoding: "zstd", Count: 1, Frames: []schemas.FrameMark{{Count: 1, AfterMS: 17, Attempt: 1}}, Data: []byte("packed")},
		Extra:    schemas.Extra{"later": json.RawMessage(`{"version":2}`)},
	}
	r.SetRequest([]byte(`{"model":"gpt-4.1","messages":[{"role":"user","content":"the question of ` + request + `"}]}`))
	return r
}

func testRoundTrip(t *testing.T, open Open) {
	s := start(t, open)
	whole := Record("acme", "whole", 0)
	failed := Record("acme", "failed", 1)
	failed.Status, failed.Error = schemas.StatusFailed, schemas.Errorf(schemas.CodeUpstreamError, "the model failed").Encode()
	failed.Usage, failed.Events, failed.Response, failed.Extra = nil, nil, nil, nil
	bare := &schemas.Result{V: 1, Tenant: "acme", RequestID: "bare", Accepted: Epoch, Status: schemas.StatusRejected, RequestRaw: []byte("\xff\x00 not JSON")}
	put(t, s, whole, failed, bare)
	for _, want := range []*schemas.Result{whole, failed, bare} {
		check(t, get(t, s, want.Identity()), want)
	}
	put(t, s) // an empty batch is none
}

func testMetadataOnly(t *testing.T, open Open) {
	s := start(t, open)
	want := sink.WithoutPayload(Record("acme", "private", 0))
	put(t, s, want)
	check(t, get(t, s, want.Identity()), want)
}

func testRestart(t *testing.T, open Open) {
	s := open(t)
	want := Record("acme", "kept", 0)
	put(t, s, want)
	if err := s.Close(); err != nil {
		t.Fatalf("close: %v", err)
	}
	s = start(t, open)
	check(t, get(t, s, want.Identity()), want)
	put(t, s, Record("acme", "next", 1))
	checkList(t, s, sink.Query{}, "kept", "next")
}

func testDuplicates(t *testing.T, open Open) {
	s := start(t, open)
	want := Record("acme", "once", 0)
	put(t, s, want, want)
	other := Record("acme", "once", 0)
	other.Status, other.Response = schemas.StatusFailed, json.RawMessage(`"another answer"`)
	put(t, s, other)
	check(t, get(t, s, want.Identity()), want)
	checkList(t, s, sink.Query{}, "once")
}

func testReusedID(t *testing.T, open Open) {
	s := start(t, open)
	first, second := Record("acme", "again", 0), Record("acme", "again", 86_400)
	put(t, s, second)
	put(t, s, first)
	check(t, get(t, s, first.Identity()), second)
	checkList(t, s, sink.Query{}, "again", "again")
}

func testAtomicBatch(t *testing.T, open Open) {
	s := start(t, open)
	batch := []*schemas.Result{Record("acme", "a", 0), Record("acme", "b", 1)}
	ctx := cancelled(t)
	if err := s.Put(ctx, batch); err == nil {
		t.Fatal("put succeeded although its context is done")
	}
	checkList(t, s, sink.Query{})
	put(t, s, batch...)
	checkList(t, s, sink.Query{}, "a", "b")
}

func testNotFound(t *testing.T, open Open) {
	s := start(t, open)
	put(t, s, Record("acme", "mine", 0))
	for _, id := range []schemas.Identity{{Tenant: "acme", Request: "other"}, {Tenant: "other", Request: "mine"}} {
		if r, err := s.Get(t.Context(), id); !errors.Is(err, sink.ErrNotFound) {
			t.Errorf("get %s = %v, %v, want ErrNotFound", id, r, err)
		}
		if err := s.Erase(t.Context(), id); !errors.Is(err, sink.ErrNotFound) {
			t.Errorf("erase %s: %v, want ErrNotFound", id, err)
		}
	}
}

func testListFilters(t *testing.T, open Open) {
	s := start(t, open)
	failed := Record("acme", "a3", 3)
	failed.Status = schemas.StatusFailed
	put(t, s, failed, Record("acme", "a1", 1), Record("bolt", "b2", 2), Record("acme", "a0", 0), Record("bolt", "b1", 1))
	at := func(seconds int) time.Time { return Epoch.Add(time.Duration(seconds) * time.Second) }

	checkList(t, s, sink.Query{}, "a0", "a1", "b1", "b2", "a3")
	checkList(t, s, sink.Query{Newest: true}, "a3", "b2", "b1", "a1", "a0")
	checkList(t, s, sink.Query{Tenant: "bolt"}, "b1", "b2")
	checkList(t, s, sink.Query{Tenant: "' OR 1=1 --"})
	checkList(t, s, sink.Query{Since: at(1), Until: at(3)}, "a1", "b1", "b2")
	checkList(t, s, sink.Query{Tenant: "acme", Since: at(1)}, "a1", "a3")
	checkList(t, s, sink.Query{Status: schemas.StatusFailed}, "a3")
	checkList(t, s, sink.Query{Limit: 2}, "a0", "a1")
	checkList(t, s, sink.Query{Limit: 1, Newest: true, Tenant: "acme"}, "a3")
	checkList(t, s, sink.Query{After: &sink.Position{Accepted: at(1), Identity: schemas.Identity{Tenant: "acme", Request: "a1"}}}, "b1", "b2", "a3")

	for _, payload := range []bool{false, true} {
		for r, err := range s.List(t.Context(), sink.Query{Tenant: "bolt", Limit: 1, Payload: payload}) {
			if err != nil {
				t.Fatal(err)
			}
			if sink.HasPayload(r) != payload {
				t.Errorf("payload %v: record has payload: %v", payload, !payload)
			}
		}
	}
}

func testListPages(t *testing.T, open Open) {
	s := start(t, open)
	var batch []*schemas.Result
	var want []string
	for i := range 600 {
		id := fmt.Sprintf("r%03d", i)
		want = append(want, id)
		batch = append(batch, Record("acme", id, i/7)) // several in one millisecond
	}
	put(t, s, batch...)
	checkList(t, s, sink.Query{}, want...)
	checkList(t, s, sink.Query{Tenant: "acme", Payload: true}, want...)
	checkList(t, s, sink.Query{Limit: 300}, want[:300]...)

	var got []string
	query := sink.Query{Limit: 101}
	for {
		page := list(t, s, query)
		for _, r := range page {
			got = append(got, r.RequestID)
		}
		if len(page) < query.Limit {
			break
		}
		query.After = sink.PositionOf(page[len(page)-1])
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("pages of 101 (-want +got):\n%s", diff)
	}
	slices.Reverse(want)
	checkList(t, s, sink.Query{Newest: true}, want...)
}

func testListBreak(t *testing.T, open Open) {
	s := start(t, open)
	put(t, s, Record("acme", "a", 0), Record("acme", "b", 1))
	for range 50 {
		for range s.List(t.Context(), sink.Query{}) {
			break
		}
	}
	put(t, s, Record("acme", "c", 2))
	for r, err := range s.List(cancelled(t), sink.Query{}) {
		if err == nil {
			t.Errorf("got %s although the context is done", r.RequestID)
		}
	}
}

func testErase(t *testing.T, open Open) {
	s := start(t, open)
	r, other := Record("acme", "gone", 0), Record("acme", "stays", 1)
	put(t, s, r, Record("acme", "gone", 5), other)
	if err := s.Erase(t.Context(), r.Identity()); err != nil {
		t.Fatalf("erase: %v", err)
	}
	put(t, s, r) // redelivered
	for _, got := range list(t, s, sink.Query{Payload: true}) {
		if got.RequestID == "stays" {
			check(t, got, other)
			continue
		}
		if got.Status != schemas.StatusDeleted || sink.HasPayload(got) || got.BodyHash != "" || got.Usage == nil {
			t.Errorf("after erase: %+v, want a tombstone with its usage", got)
		}
	}
	if err := s.Erase(t.Context(), r.Identity()); err != nil {
		t.Errorf("erase again: %v", err)
	}
}

func testPutTombstone(t *testing.T, open Open) {
	s := start(t, open)
	r, later := Record("acme", "gone", 0), Record("acme", "gone", 86_400)
	put(t, s, r, later)
	put(t, s, sink.Tombstone(r))
	put(t, s, sink.Tombstone(r), r)
	got := list(t, s, sink.Query{Payload: true})
	if len(got) != 2 || got[0].Status != schemas.StatusDeleted || sink.HasPayload(got[0]) {
		t.Fatalf("got %d records, the first %+v; want a tombstone and the later request", len(got), got[0])
	}
	check(t, got[1], later)
}

func testTombstoneFirst(t *testing.T, open Open) {
	s := start(t, open)
	r := Record("acme", "gone", 0)
	put(t, s, &schemas.Result{V: 1, Tenant: "acme", RequestID: "gone", Status: schemas.StatusDeleted, Finished: r.Finished})
	put(t, s, r)
	for _, got := range list(t, s, sink.Query{Payload: true}) {
		if got.Status != schemas.StatusDeleted || sink.HasPayload(got) {
			t.Errorf("got %+v, want tombstones alone", got)
		}
	}
	later := Record("acme", "gone", 60)
	put(t, s, later)
	check(t, get(t, s, later.Identity()), later)
}

// check compares all of got and want.
func check(t *testing.T, got, want *schemas.Result) {
	t.Helper()
	if diff := gocmp.Diff(want, got, cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("record %s (-want +got):\n%s", want.Identity(), diff)
	}
}

func checkList(t *testing.T, s sink.Store, query sink.Query, want ...string) {
	t.Helper()
	var got []string
	for _, r := range list(t, s, query) {
		got = append(got, r.RequestID)
	}
	if diff := gocmp.Diff(want, got); diff != "" {
		t.Errorf("list %+v (-want +got):\n%s", query, diff)
	}
}

func list(t *testing.T, s sink.Store, query sink.Query) []*schemas.Result {
	t.Helper()
	var results []*schemas.Result
	for r, err := range s.List(t.Context(), query) {
		if err != nil {
			t.Fatalf("list %+v: %v", query, err)
		}
		results = append(results, r)
	}
	return results
}

func get(t *testing.T, s sink.Store, id schemas.Identity) *schemas.Result {
	t.Helper()
	r, err := s.Get(t.Context(), id)
	if err != nil {
		t.Fatalf("get %s: %v", id, err)
	}
	return cmp.Or(r, &schemas.Result{})
}

func put(t *testing.T, s sink.Store, results ...*schemas.Result) {
	t.Helper()
	if err := s.Put(t.Context(), results); err != nil {
		t.Fatalf("put %d results: %v", len(results), err)
	}
}

// start opens the store until the end of the test.
func start(t *testing.T, open Open) sink.Store {
	t.Helper()
	s := open(t)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
	})
	return s
}

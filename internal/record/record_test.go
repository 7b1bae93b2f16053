package record_test

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/eventlog"
	"github.com/weir-llm/weir/internal/record"
	"github.com/weir-llm/weir/schemas"
)

var (
	accepted = time.Date(2026, 11, 24, 12, 0, 0, 0, time.UTC)
	body     = []byte(`{"model":"gpt-4.1","messages":[]}`)
)

func item() *schemas.Work {
	return &schemas.Work{
		Request: schemas.Request{
			Identity: schemas.Identity{Tenant: "acme", Request: "r-1"}, ModelToken: "gpt-4=2E1", Op: schemas.OpChat, Priority: schemas.PriorityNormal,
		},
		Dispatch: 2, Accepted: accepted,
	}
}

// chain gives frames the times and sequences that a stream would, ten milliseconds apart.
func chain(frames ...*schemas.Frame) *bus.Chain {
	for i, f := range frames {
		f.Sequence = uint64(100 + i)
		f.Time = accepted.Add(time.Duration(i+1) * 10 * time.Millisecond).In(time.FixedZone("elsewhere", 3600))
	}
	return &bus.Chain{Frames: frames}
}

func start(attempt int, worker string, index uint64) *schemas.Frame {
	return &schemas.Frame{Kind: schemas.KindStart, Attempt: attempt, Writer: worker, Index: index, Start: &schemas.Start{Mode: schemas.ModeFresh, Work: 7, Dispatch: 2, Worker: worker}}
}

func delta(attempt int, index uint64, events ...string) *schemas.Frame {
	return &schemas.Frame{Kind: schemas.KindDelta, Attempt: attempt, Writer: "w", Index: index, Count: len(events), Data: []byte(strings.Join(events, "\n"))}
}

func summary(attempts int) *schemas.Summary {
	return &schemas.Summary{
		Status: schemas.StatusCompleted, Attempts: attempts, FinishReasons: []string{"stop"},
		Usage: &schemas.Usage{PromptTokens: 3, CompletionTokens: 2, TotalTokens: 5},
		Tries: []schemas.Try{{Attempt: attempts, Backend: "echo", Started: accepted, DurationMS: 20}},
	}
}

func end(attempt int, index uint64) *schemas.Frame {
	return &schemas.Frame{Kind: schemas.KindEnd, Attempt: attempt, Writer: "w", Index: index, Data: summary(attempt).Encode()}
}

// wanted is what every record of the item has in common.
func wanted(status schemas.Status, attempts, frames int) *schemas.Result {
	return &schemas.Result{
		V: schemas.Version, Tenant: "acme", RequestID: "r-1", Model: "gpt-4.1", Op: schemas.OpChat, Priority: schemas.PriorityNormal,
		Dispatch: 2, Accepted: accepted, Finished: accepted.Add(time.Duration(frames) * 10 * time.Millisecond), DurationMS: float64(frames) * 10,
		Status: status, Attempts: attempts, BodyHash: schemas.BodyHash(body), Request: body,
	}
}

// events unpacks the events of a record and takes the log out of it, to compare the rest.
func events(t *testing.T, r *schemas.Result) (all []string, marks []schemas.FrameMark) {
	t.Helper()
	for f, err := range eventlog.Frames(r.Events, r.Accepted) {
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range f.Events() {
			all = append(all, string(event))
		}
	}
	if r.Events != nil {
		marks = r.Events.Frames
	}
	r.Events = nil
	return all, marks
}

func check(t *testing.T, want, got *schemas.Result) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestStreamedAnswer(t *testing.T) {
	t.Parallel()
	got := record.Build(item(), body, chain(start(1, "w-1", 0), delta(1, 0, `{"n":0}`), delta(1, 1, `{"n":1}`, `{"n":2}`), end(1, 3)), nil)
	all, marks := events(t, got)
	if diff := cmp.Diff([]string{`{"n":0}`, `{"n":1}`, `{"n":2}`}, all); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]schemas.FrameMark{{Count: 1, AfterMS: 20, Attempt: 1}, {Count: 2, AfterMS: 30, Attempt: 1}}, marks); diff != "" {
		t.Error(diff)
	}
	want := wanted(schemas.StatusCompleted, 1, 4)
	want.Worker, want.Started, want.FirstTokenMS = "w-1", accepted.Add(10*time.Millisecond), 20
	want.FinishReasons, want.Usage, want.Tries = summary(1).FinishReasons, summary(1).Usage, summary(1).Tries
	check(t, want, got)
}

func TestUnaryAnswer(t *testing.T) {
	t.Parallel()
	answer := &schemas.Frame{Kind: schemas.KindEnd, Attempt: 1, Writer: "w", Count: 1, Data: []byte(`{"choices":[]}`), Summary: summary(1).Encode()}
	got := record.Build(item(), body, chain(start(1, "w-1", 0), answer), nil)
	if got.Events != nil {
		t.Error("a unary answer has events")
	}
	want := wanted(schemas.StatusCompleted, 1, 2)
	want.Worker, want.Started, want.FirstTokenMS = "w-1", accepted.Add(10*time.Millisecond), 20
	want.FinishReasons, want.Usage, want.Tries = summary(1).FinishReasons, summary(1).Usage, summary(1).Tries
	want.Response = answer.Data
	check(t, want, got)
}

func TestFailedAnswers(t *testing.T) {
	t.Parallel()
	for code, status := range map[schemas.Code]schemas.Status{
		schemas.CodeUpstreamError: schemas.StatusFailed, schemas.CodeCancelled: schemas.StatusCancelled,
		schemas.CodeDeadline: schemas.StatusExpired, schemas.CodeModelNotFound: schemas.StatusRejected,
	} {
		reason := schemas.Errorf(code, "why")
		failed := &schemas.Frame{Kind: schemas.KindError, Attempt: 1, Writer: "w", Index: 1, Data: reason.Encode(), Summary: (&schemas.Summary{Status: status, Tries: summary(1).Tries}).Encode()}
		got := record.Build(item(), body, chain(start(1, "w-1", 0), delta(1, 0, "{}"), failed), nil)
		if all, _ := events(t, got); len(all) != 1 {
			t.Errorf("%s: %d events", code, len(all))
		}
		want := wanted(status, 1, 3)
		want.Worker, want.Started, want.FirstTokenMS = "w-1", accepted.Add(10*time.Millisecond), 20
		want.Error, want.Tries = reason.Encode(), summary(1).Tries
		prompt := int64(float64(len(body)) / 3.6)
		want.Usage = &schemas.Usage{PromptTokens: prompt, CompletionTokens: 1, TotalTokens: prompt + 1, Estimated: true}
		check(t, want, got)
	}
}

// What a model server told before the answer was ended by another is no estimate.
func TestCostThatWasToldOnTheWay(t *testing.T) {
	t.Parallel()
	told := delta(1, 0, "{}")
	told.Usage = `{"prompt_tokens":7,"completion_tokens":2,"total_tokens":9}`
	reason := schemas.Cancelled(schemas.CancelledByDisconnect)
	got := record.Build(item(), body, chain(start(1, "w-1", 0), told, delta(1, 1, "{}"), &schemas.Frame{
		Kind: schemas.KindError, Attempt: 1, Writer: "x", Index: 2, Data: reason.Encode(), Summary: (&schemas.Summary{Status: schemas.StatusCancelled, CancelledBy: reason.CancelledBy()}).Encode(),
	}), nil)
	if u := got.Usage; u == nil || u.PromptTokens != 7 || u.CompletionTokens != 2 || u.Estimated || got.CancelledBy != schemas.CancelledByDisconnect {
		t.Errorf("cancelled by %q, usage %+v", got.CancelledBy, got.Usage)
	}
}

// An answer that was never claimed: the router rejected it, or a canceller ended it.
func TestAnswerWithoutAnAttempt(t *testing.T) {
	t.Parallel()
	reason := schemas.Errorf(schemas.CodeQuota, "no budget is left")
	got := record.Build(item(), body, chain(&schemas.Frame{Kind: schemas.KindError, Writer: "router", Data: reason.Encode()}), nil)
	want := wanted(schemas.StatusRejected, 0, 1)
	want.Error = reason.Encode()
	check(t, want, got)
}

// After a take-over the record tells of all attempts, and names the worker of the last.
func TestTakenOverAnswer(t *testing.T) {
	t.Parallel()
	got := record.Build(item(), body, chain(
		&schemas.Frame{Kind: schemas.KindAccepted, Writer: "ingest", BodyHash: "h"},
		start(1, "w-1", 0), delta(1, 0, `"a"`), start(2, "w-2", 1), start(3, "w-3", 1), delta(3, 1, `"b"`), end(3, 2)), nil)
	all, marks := events(t, got)
	if diff := cmp.Diff([]string{`"a"`, `"b"`}, all); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff([]schemas.FrameMark{{Count: 1, AfterMS: 30, Attempt: 1}, {Count: 1, AfterMS: 60, Attempt: 3}}, marks); diff != "" {
		t.Error(diff)
	}
	want := wanted(schemas.StatusCompleted, 3, 7)
	want.Worker, want.Started, want.FirstTokenMS = "w-3", accepted.Add(20*time.Millisecond), 30
	want.FinishReasons, want.Usage, want.Tries = summary(3).FinishReasons, summary(3).Usage, summary(3).Tries
	check(t, want, got)
}

func TestOddInputs(t *testing.T) {
	t.Parallel()
	build := func(w *schemas.Work, body []byte, frames ...*schemas.Frame) *schemas.Result {
		return record.Build(w, body, chain(frames...), nil)
	}
	if r := build(item(), nil, end(1, 0)); r.Request != nil || r.RequestRaw != nil || r.BodyHash != "" {
		t.Errorf("a body that is not known: %+v", r)
	}
	if r := build(item(), []byte("not JSON"), end(1, 0)); string(r.RequestRaw) != "not JSON" || r.Request != nil {
		t.Errorf("a body that is not JSON: %+v", r)
	}
	early := item()
	early.Accepted = accepted.Add(time.Minute) // by another clock
	if r := build(early, body, delta(1, 0, "{}"), end(1, 1)); r.DurationMS != 0 || r.FirstTokenMS != 0 {
		t.Errorf("times before acceptance: %v, %v", r.DurationMS, r.FirstTokenMS)
	}
	unnamed := item()
	unnamed.ModelToken = "=zz"
	if r := build(unnamed, body, end(1, 0)); r.Model != "=zz" {
		t.Errorf("a token that is none: %q", r.Model)
	}
	// Anyone in the account can write a frame: the record must stay JSON.
	for name, f := range map[string]*schemas.Frame{
		"end":   {Kind: schemas.KindEnd, Data: []byte("{")},
		"unary": {Kind: schemas.KindEnd, Count: 1, Data: []byte("{"), Summary: []byte("{")},
		"error": {Kind: schemas.KindError, Data: []byte("{"), Summary: []byte("{")},
		"deep":  {Kind: schemas.KindEnd, Count: 1, Data: bytes.Repeat([]byte("["), schemas.MaxBodyBytes), Summary: []byte("{")},
	} {
		if r := build(item(), body, f); !json.Valid(r.Encode()) || r.Response != nil || r.Error != nil {
			t.Errorf("%s: %s", name, r.Encode())
		}
	}
	usage := delta(1, 0, "{}")
	usage.Usage = `{"details":` + strings.Repeat("[", 9999) + strings.Repeat("]", 9999) + "}" // a record of its own, and too deep for a member
	r := build(item(), body, usage, &schemas.Frame{Kind: schemas.KindError, Attempt: 1, Writer: "w", Index: 1, Data: []byte(`{"error":{}}`)})
	if _, err := schemas.DecodeResult(r.Encode()); err != nil {
		t.Error(err)
	}
}

// Who finds a finished chain writes what its owner would have written, payloads in the object store included.
func TestRecordIsTheSameWhoeverWritesIt(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	owner, finder := bustest.Connect(t, server, bus.Config{}), bustest.Connect(t, server, bus.Config{})
	large := `"` + strings.Repeat("x", schemas.InlineBytes) + `"`
	w, s := item(), summary(1)
	w.Accepted = time.Now().Truncate(time.Millisecond)
	last := uint64(0)
	for _, f := range []*schemas.Frame{start(1, "w-1", 0), delta(1, 0, `"small"`), delta(1, 1, large), end(1, 2)} {
		var err error
		if last, err = owner.Append(t.Context(), w.Identity, last, f); err != nil {
			t.Fatal(err)
		}
	}
	var built [][]byte
	for b, known := range map[*bus.Bus]*schemas.Summary{owner: s, finder: nil} {
		c, err := b.Chain(t.Context(), w.Identity)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 {
			built = append(built, record.Build(w, body, c, known).Encode())
		}
		if err := record.Ensure(t.Context(), b, w, body, c); err != nil {
			t.Fatal(err)
		}
	}
	stored, err := finder.Result(t.Context(), w.Identity)
	if err != nil {
		t.Fatal(err)
	}
	for i, r := range built {
		if !bytes.Equal(r, stored.Encode()) {
			t.Errorf("record %d differs from the one that is stored", i)
		}
	}
	if all, _ := events(t, stored); len(all) != 2 || all[1] != large {
		t.Errorf("%d events", len(all))
	}
}

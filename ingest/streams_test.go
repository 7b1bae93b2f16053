package ingest_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/eventlog"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/schemas"
)

func TestResumeAtEveryIndex(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(1, 3, 2))
	id := w.chat(streaming).wants(t, 200).id()
	w.resumesEverywhere(id, 6)
}

// resumesEverywhere reads a finished stream from the beginning and from behind each event, in every way to say so.
func (w *bench) resumesEverywhere(id string, events int) {
	w.t.Helper()
	path := "/v1/streams/" + id
	whole := w.ask("GET", path, "").wants(w.t, 200)
	if diff := cmp.Diff(sse(id, 0, events)+done, whole.body); diff != "" {
		w.t.Error(diff)
	}
	for last := range events {
		want := sse(id, last+1, events) + done
		for _, got := range []answer{
			w.ask("GET", fmt.Sprintf("%s?starting_after=%d", path, last), ""),
			w.ask("GET", fmt.Sprintf("%s?starting_after=%s.%d", path, id, last), ""),
			w.ask("GET", path+"?starting_after=0", "", "Last-Event-ID", fmt.Sprintf("%s.%d", id, last)),
		} {
			if got.wants(w.t, 200); got.body != want || got.id() != id {
				w.t.Errorf("after %d:\n%s", last, cmp.Diff(want, got.body))
			}
		}
	}
}

func TestResumeWhileItRuns(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	ids := make(chan string, 1)
	w := setup(t, func(j *job) {
		j.start()
		j.delta(2)
		j.delta(3)
		ids <- j.request.Request
		j.wait(gate)
		j.delta(4)
		j.end()
	})
	first := w.do(t.Context(), "POST", "/v1/chat/completions", streaming)
	id := <-ids
	var readers sync.WaitGroup
	for from := range 6 {
		path := "/v1/streams/" + id
		if from > 0 {
			path = fmt.Sprintf("%s?starting_after=%d", path, from-1)
		}
		readers.Go(func() {
			got := w.ask("GET", path, "")
			if want := sse(id, from, 9) + done; got.body != want {
				t.Errorf("from %d: %s", from, cmp.Diff(want, got.body))
			}
		})
	}
	w.ask("GET", "/v1/streams/"+id+"?starting_after=5", "").wants(t, 400, "invalid_value")
	w.ask("GET", "/v1/streams/"+id+"/result", "").wants(t, 202, `"status":"running"`)
	close(gate)
	readers.Wait()
	if got := read(first).body; got != sse(id, 0, 9)+done {
		t.Errorf("the first reader got %s", got)
	}
}

func TestReplayFromTheResult(t *testing.T) {
	t.Parallel()
	w := setup(t, nil)
	accepted := time.Now()
	log := eventlog.Pack(accepted, []*schemas.Frame{
		{Kind: schemas.KindDelta, Attempt: 1, Count: 2, Data: []byte(event(0) + "\n" + event(1)), Time: accepted},
		{Kind: schemas.KindDelta, Attempt: 1, Index: 2, Count: 1, Data: []byte(event(2)), Time: accepted},
	})
	failure := schemas.Errorf(schemas.CodeUpstreamInterrupted, "cut")
	for _, r := range []*schemas.Result{
		{RequestID: "whole", Status: schemas.StatusCompleted, Events: log},
		{RequestID: "cut", Status: schemas.StatusFailed, Events: log, Error: failure.Encode()},
		{RequestID: "refused", Status: schemas.StatusRejected, Error: schemas.Errorf(schemas.CodeModelNotFound, "no such model").Encode()},
		{RequestID: "unary", Status: schemas.StatusCompleted, Response: json.RawMessage(`{"object":"chat.completion"}`)},
		{RequestID: "damaged", Status: schemas.StatusCompleted, Events: &schemas.EventLog{Encoding: "zstd", Count: 1, Frames: []schemas.FrameMark{{Count: 1}}, Data: []byte("x")}},
		{RequestID: "huge", Status: schemas.StatusCompleted, Events: &schemas.EventLog{Encoding: "none", Count: 1, Frames: []schemas.FrameMark{{Count: 1}}}},
	} {
		r.V, r.Tenant, r.Accepted = schemas.Version, ingest.DefaultTenant, accepted
		if err := w.bus.PutResult(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
	w.resumesEverywhere("whole", 3)
	w.ask("GET", "/v1/streams/whole?starting_after=3", "").wants(t, 400)
	if got := w.ask("GET", "/v1/streams/cut?starting_after=0", "").wants(t, 200); got.body != sse("cut", 1, 3)+"data: "+string(failure.Encode())+"\n\n" {
		t.Errorf("cut: %s", got.body)
	}
	w.ask("GET", "/v1/streams/refused", "").wants(t, 404, "model_not_found")
	w.ask("GET", "/v1/streams/unary", "").wants(t, 200, "id: unary.0\ndata: {\"object\":\"chat.completion\"}\n\n"+done)
	w.ask("GET", "/v1/streams/damaged", "").wants(t, 500, "internal_error")
	w.ask("GET", "/v1/streams/huge", "").wants(t, 410, "stream_expired")
}

func TestExpiredEvents(t *testing.T) {
	t.Parallel()
	w := setup(t, nil)
	// What retention leaves of a chain: its end.
	for _, f := range []*schemas.Frame{
		{Kind: schemas.KindDelta, Attempt: 1, Writer: "w", Index: 2, Count: 1, Data: []byte(event(2))},
		{Kind: schemas.KindEnd, Attempt: 1, Writer: "w", Index: 3, Data: (&schemas.Summary{Status: schemas.StatusCompleted}).Encode()},
	} {
		chain, err := w.bus.Chain(t.Context(), of("old"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.bus.Append(t.Context(), of("old"), chain.Sequence(), f); err != nil {
			t.Fatal(err)
		}
	}
	w.ask("GET", "/v1/streams/old", "").wants(t, 410, "stream_expired")
	w.ask("GET", "/v1/streams/old?starting_after=0", "").wants(t, 410)
	w.ask("GET", "/v1/streams/old?starting_after=1", "").wants(t, 200, sse("old", 2, 3)+done)
}

func TestBadCursor(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(2))
	id := w.chat(streaming).wants(t, 200).id()
	path := "/v1/streams/" + id
	for _, query := range []string{"x", "-1", "", "1.5", "other.1", id + ".x", id + ".-1", "99999999999999999999", "2"} {
		w.ask("GET", path+"?starting_after="+query, "").wants(t, 400, "invalid_value")
	}
	for _, header := range []string{"x", "other.1", id + ".", id + ".1.1", "*.1", id + ".2"} {
		w.ask("GET", path, "", "Last-Event-ID", header).wants(t, 400, "invalid_value")
	}
}

func TestUnknownAndForeignStreamsAreTheSame(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(1), func(c *ingest.Config) {
		c.Keys = ring(t, keys.Configured{ID: "a", SHA256: hashOf("secret-a"), Tenant: "a"}, keys.Configured{ID: "b", SHA256: hashOf("secret-b"), Tenant: "b"})
	})
	owner, other := []string{"Authorization", "Bearer secret-a"}, []string{"Authorization", "bearer secret-b"}
	id := w.chat(streaming, owner...).wants(t, 200).id()
	w.ask("GET", "/v1/streams/"+id, "", owner...).wants(t, 200)
	for _, c := range [][2]string{{"GET", ""}, {"GET", "/result"}, {"POST", "/cancel"}, {"DELETE", ""}} {
		foreign := w.ask(c[0], "/v1/streams/"+id+c[1], "", other...).wants(t, 404, "stream_not_found")
		for _, unknown := range []string{"req_unknown", "a.b", "*", "%3E", strings.Repeat("x", 65)} {
			got := w.ask(c[0], "/v1/streams/"+unknown+c[1], "", other...).wants(t, 404)
			if got.body != foreign.body {
				t.Errorf("%v: %s", c, cmp.Diff(foreign.body, got.body))
			}
		}
	}
	eventually(t, "the owner's result", func() bool { return w.ask("GET", "/v1/streams/"+id+"/result", "", owner...).status == 200 })
}

func TestResult(t *testing.T) {
	t.Parallel()
	w := setup(t, func(j *job) {
		j.start()
		if strings.Contains(string(j.request.Body), "fail") {
			j.fail(schemas.Errorf(schemas.CodeUpstreamRejected, "no").WithParam("n"))
			return
		}
		j.respond(`{"object":"chat.completion","choices":[]}`)
	})
	id := w.chat(unary).wants(t, 200).id()
	var got answer
	eventually(t, "the result", func() bool {
		got = w.ask("GET", "/v1/streams/"+id+"/result", "")
		return got.status == 200
	})
	got.wants(t, 200, `"id":"`+id+`"`, `"status":"completed"`, `"model":"m-1.5"`, `"response":{"object":"chat.completion","choices":[]}`, `"attempts":1`)
	got.without(t, `"error"`)
	id = w.chat(strings.Replace(unary, "hi", "fail", 1)).wants(t, 400).id()
	eventually(t, "the result", func() bool {
		got = w.ask("GET", "/v1/streams/"+id+"/result", "")
		return got.status == 200
	})
	got.wants(t, 200, `"status":"failed"`, `"error":{"message":"no"`, `"param":"n"`).without(t, `"response"`)
}

func TestTwoReadersSeeTheSame(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	ids := make(chan string, 1)
	w := setup(t, func(j *job) {
		j.start()
		j.delta(1)
		ids <- j.request.Request
		j.wait(gate)
		for range 50 {
			j.delta(1 + int(j.index)%3)
		}
		j.end()
	})
	first := w.do(t.Context(), "POST", "/v1/chat/completions", streaming)
	id := <-ids
	second := w.do(t.Context(), "GET", "/v1/streams/"+id, "")
	close(gate)
	a, b := read(first), read(second)
	if a.body != b.body || !strings.HasSuffix(a.body, done) {
		t.Error(cmp.Diff(a.body, b.body))
	}
}

// cancelled reads how a request ended.
func (w *bench) cancelled(request string) {
	w.t.Helper()
	last := w.terminal(of(request))
	if e, err := schemas.DecodeError(last.Data); err != nil || e.Code != schemas.CodeCancelled {
		w.t.Fatalf("the request ended with %s: %s", last.Kind, last.Data)
	}
}

func TestCancelQueued(t *testing.T) {
	t.Parallel()
	w := setup(t, nil)
	ctx, cancel := context.WithTimeout(t.Context(), longEnough)
	defer cancel()
	answers := make(chan answer, 1)
	var asked sync.WaitGroup
	asked.Go(func() {
		answers <- w.chat(streaming, "Llm-Request-Id", "queued")
	})
	defer asked.Wait()
	eventually(t, "acceptance", func() bool {
		chain, err := w.bus.Chain(ctx, of("queued"))
		return err == nil && len(chain.Frames) == 1
	})
	w.ask("POST", "/v1/streams/queued/cancel", "").wants(t, 200, `"id":"queued"`, `"status":"cancelled"`)
	w.ask("POST", "/v1/streams/queued/cancel", "").wants(t, 200, `"status":"cancelled"`)
	(<-answers).wants(t, 499, "request_cancelled")
}

func TestCancelRunning(t *testing.T) {
	t.Parallel()
	w := setup(t, func(j *job) { j.start(); j.delta(2); j.wait(nil) })
	response := w.do(t.Context(), "POST", "/v1/chat/completions", streaming)
	id := response.Header.Get("X-Request-Id")
	w.ask("POST", "/v1/streams/"+id+"/cancel", "").wants(t, 200, `"status":"cancelled"`)
	read(response).wants(t, 200, sse(id, 0, 2)+`data: {"error":`, "request_cancelled").without(t, "DONE")
}

func TestCancelFinished(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(2))
	id := w.chat(streaming).wants(t, 200).id()
	w.ask("POST", "/v1/streams/"+id+"/cancel", "").wants(t, 200, `"status":"completed"`)
	w.ask("GET", "/v1/streams/"+id, "").wants(t, 200, done)
}

func TestDelete(t *testing.T) {
	t.Parallel()
	w := setup(t, func(j *job) {
		j.start()
		j.delta(1)
		if strings.Contains(string(j.request.Body), "hang") {
			j.wait(nil)
		}
		j.end()
	})
	finished := w.chat(streaming).wants(t, 200).id()
	running := w.do(t.Context(), "POST", "/v1/chat/completions", strings.Replace(streaming, "hi", "hang", 1))
	for _, id := range []string{finished, running.Header.Get("X-Request-Id")} {
		w.ask("DELETE", "/v1/streams/"+id, "").wants(t, 200, `"status":"deleted"`, `"deleted":true`)
		w.ask("DELETE", "/v1/streams/"+id, "").wants(t, 200, `"deleted":true`)
		w.ask("GET", "/v1/streams/"+id, "").wants(t, 410, "stream_expired").without(t, "w0")
		w.ask("GET", "/v1/streams/"+id+"/result", "").wants(t, 200, `"status":"deleted"`).without(t, "w0")
		w.ask("POST", "/v1/streams/"+id+"/cancel", "").wants(t, 200, `"status":"deleted"`)
	}
	read(running).wants(t, 200, "request_cancelled")
}

// A reader that an erasure overtakes is told so, and does not wait for the end of what it read of the answer.
func TestDeletedWhileLookedUp(t *testing.T) {
	t.Parallel()
	for name, ask := range map[string]func(w *bench) answer{
		"resume":       func(w *bench) answer { return w.ask("GET", "/v1/streams/long", "") },
		"unary repeat": func(w *bench) answer { return w.chat(unary, "Llm-Request-Id", "long") },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := bustest.Server(t)
			near := bustest.Connect(t, server, bus.Config{})
			p := bustest.NewProxy(t, server.ClientURL())
			w := setupOn(t, bustest.Connect(t, server, bus.Config{URL: p.URL()}), tokens(slices.Repeat([]int{1}, 40)...))
			w.chat(unary, "Llm-Request-Id", "long")
			eventually(t, "the result", func() bool { return w.ask("GET", "/v1/streams/long/result", "").status == 200 })
			held := p.At(bustest.ToServer, `{"seq":33,`, bustest.Hold) // which is behind the first batch of frames
			got := make(chan answer, 1)
			go func() { got <- ask(w) }()
			select {
			case <-held:
			case <-time.After(longEnough):
				t.Fatal("the second batch was not asked for")
			}
			if err := near.Erase(t.Context(), of("long")); err != nil {
				t.Fatal(err)
			}
			p.Set(bustest.ToServer, bustest.Pass)
			(<-got).wants(t, 410, "stream_expired")
		})
	}
}

// Only a response can be in background, so of anything else the work item is not looked at.
func TestReadingOnReadsNoWorkItem(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	n := setupNATS(t, func(j *job) { j.start(); j.delta(1); j.wait(gate); j.end() })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	id := n.do(ctx, "POST", "/v1/chat/completions", streaming).Header.Get("X-Request-Id")
	reads := n.reads()
	again := n.do(ctx, "GET", "/v1/streams/"+id, "")
	if again.StatusCode != 200 {
		t.Fatalf("status %d", again.StatusCode)
	}
	if told := reads.told(); strings.Contains(told, schemas.StreamWork) || !strings.Contains(told, id) {
		t.Errorf("reads: %s", told)
	}
	close(gate)
}

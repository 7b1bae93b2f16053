package ingest_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/schemas"
)

const (
	respond       = `{"model":"m-1.5","input":"hi"}`
	respondStream = `{"model":"m-1.5","input":"hi","stream":true}`
	respondLater  = `{"model":"m-1.5","input":"hi","background":true,"metadata":{"k":"v"}}`
)

// say writes chunks with these words, a frame for each.
func (j *job) say(words ...string) {
	for _, word := range words {
		quoted, _ := json.Marshal(word)
		j.write(&schemas.Frame{Kind: schemas.KindDelta, Count: 1, Data: fmt.Appendf(nil, `{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":%s},"finish_reason":null}]}`, quoted)})
	}
}

// stop writes the finish and the usage, and ends the request.
func (j *job) stop() {
	j.write(&schemas.Frame{Kind: schemas.KindDelta, Count: 2, Data: []byte(`{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}` + "\n" +
		`{"id":"c","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`)})
	j.end()
}

// says is a script that answers with these words.
func says(words ...string) func(*job) {
	return func(j *job) { j.start(); j.say(words...); j.stop() }
}

// claim is what a start frame says. A response is found by the work item that it runs as, so it has one.
func (j *job) claim() *schemas.Start {
	start := &schemas.Start{Mode: schemas.ModeFresh, Work: 1, Dispatch: 1, Worker: "fake"}
	if j.request.Op == schemas.OpResponses && j.ctx.Err() == nil {
		start.Accepted = time.UnixMilli(time.Now().UnixMilli())
		sequence, err := j.bus.Dispatch(j.ctx, &schemas.Work{Request: *j.request, Dispatch: 1, Accepted: start.Accepted})
		if err != nil && j.ctx.Err() == nil {
			j.t.Errorf("dispatch: %v", err)
		}
		start.Work, j.took = sequence, start.Accepted
	}
	return start
}

func (w *bench) respond(body string, header ...string) answer {
	w.t.Helper()
	return w.ask("POST", "/v1/responses", body, header...)
}

func (w *bench) response(id string) answer {
	w.t.Helper()
	return w.ask("GET", "/v1/responses/"+id, "")
}

// member is a member of a JSON answer.
func (a answer) member(path string) string { return gjson.Get(a.body, path).String() }

// kinds are the types of the events of a stream.
func kinds(t *testing.T, stream string) (kinds []string) {
	t.Helper()
	for i, data := range dataOf(stream) {
		event := gjson.Parse(data)
		if n := event.Get("sequence_number"); n.Int() != int64(i) {
			t.Errorf("event %d has the sequence number %s", i, n.Raw)
		}
		kinds = append(kinds, strings.TrimPrefix(event.Get("type").Str, "response."))
	}
	return kinds
}

func dataOf(stream string) (data []string) {
	for line := range strings.Lines(stream) {
		if text, ok := strings.CutPrefix(line, "data: "); ok {
			data = append(data, strings.TrimSpace(text))
		}
	}
	return data
}

var oneText = []string{"created", "in_progress", "output_item.added", "content_part.added", "output_text.delta", "output_text.delta",
	"output_text.done", "content_part.done", "output_item.done", "completed"}

func TestResponseStream(t *testing.T) {
	t.Parallel()
	w := setup(t, says("Hel", "lo"))
	got := w.respond(respondStream).wants(t, 200, "event: response.completed\n").without(t, "[DONE]").without(t, "\nid:")
	if diff := cmp.Diff(oneText, kinds(t, got.body)); diff != "" {
		t.Error(diff)
	}
	if kind := got.header.Get("Content-Type"); kind != "text/event-stream; charset=utf-8" {
		t.Errorf("Content-Type %q", kind)
	}
	last := gjson.Get(dataOf(got.body)[9], "response")
	if last.Get("id").Str != "resp_"+got.id() || last.Get("output.0.content.0.text").Str != "Hello" || last.Get("usage.total_tokens").Int() != 3 {
		t.Errorf("the response is %s", last.Raw)
	}
	// What was streamed can be retrieved as it was.
	if diff := cmp.Diff(last.Raw, w.response("resp_"+got.id()).wants(t, 200).body); diff != "" {
		t.Error(diff)
	}
}

func TestResponseUnary(t *testing.T) {
	t.Parallel()
	w := setup(t, says("Hel", "lo"))
	got := w.respond(respond).wants(t, 200)
	if got.member("status") != "completed" || got.member("output.0.content.0.text") != "Hello" || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("%s", got.body)
	}
	if diff := cmp.Diff(got.body, w.response(got.member("id")).wants(t, 200).body); diff != "" {
		t.Error(diff)
	}
}

func TestResponseErrors(t *testing.T) {
	t.Parallel()
	late := make(chan bool, 1)
	w := setup(t, func(j *job) {
		j.start()
		if <-late {
			j.say("half")
		}
		j.fail(schemas.Errorf(schemas.CodeRateLimit, "because").WithRetryAfter(1200 * time.Millisecond))
	})
	for _, body := range []string{respond, respondStream} {
		late <- false
		got := w.respond(body).wants(t, 429, `"code":"rate_limit_exceeded"`)
		if got.header.Get("Retry-After-Ms") != "1200" {
			t.Errorf("headers %v", got.header)
		}
	}
	late <- true
	w.respond(respond).wants(t, 429, "because")
	late <- true
	got := w.respond(respondStream).wants(t, 200, `"status":"failed","error":{"code":"rate_limit_exceeded","message":"because"}`)
	if list := kinds(t, got.body); list[len(list)-1] != "failed" {
		t.Errorf("events %v", list)
	}
	w.response("resp_"+got.id()).wants(t, 200, `"status":"failed"`, `"text":"half"`)
}

func TestBadResponseRequests(t *testing.T) {
	t.Parallel()
	w := setup(t, nil)
	for body, want := range map[string]string{
		`{"model":"m"}`:            `"param":"input"`,
		`{"input":"x"}`:            `"param":"model"`,
		`{"model":"m","input":[]}`: `"param":"input"`,
		`{"model":"m","input":"x","conversation":"c"}`:              `"code":"unsupported"`,
		`{"model":"m","input":"x","tools":[{"type":"mcp"}]}`:        `"param":"tools[0]"`,
		`{"model":"m","input":"x","background":true,"store":false}`: `"param":"store"`,
		`{"model":"m","input":"x","messages":[]}`:                   `"param":"messages"`,
		`{"model":"m","input":"x"`:                                  `"code":"invalid_json"`,
	} {
		w.respond(body).wants(t, 400, want, `"type":"invalid_request_error"`)
	}
	w.respond(respond, "Llm-Op", "chat").wants(t, 400, "Llm-Op")
}

// An id of another kind of request, of another tenant and one that never was get the same answer.
func TestUnknownResponses(t *testing.T) {
	t.Parallel()
	w := setup(t, func(j *job) {
		if j.request.Op == schemas.OpChat {
			tokens(1)(j)
			return
		}
		says("x")(j)
	}, func(c *ingest.Config) {
		c.Keys = ring(t, keys.Configured{ID: "a", SHA256: hashOf("secret-a"), Tenant: "acme"}, keys.Configured{ID: "b", SHA256: hashOf("secret-b"), Tenant: "beta"})
	})
	mine, theirs := []string{"Authorization", "Bearer secret-a"}, []string{"Authorization", "Bearer secret-b"}
	chat := "resp_" + w.chat(streaming, mine...).wants(t, 200).id()
	other := w.respond(respond, theirs...).wants(t, 200).member("id")
	w.ask("GET", "/v1/responses/"+other, "", theirs...).wants(t, 200)
	w.bury(schemas.Identity{Tenant: "acme", Request: strings.TrimPrefix(chat, "resp_")})
	want := ""
	for _, id := range []string{"resp_req_01J00000000000000000000000", other, chat, strings.TrimPrefix(other, "resp_"), "resp_a.b"} {
		for _, r := range [][2]string{{"GET", ""}, {"GET", "?stream=true"}, {"DELETE", ""}, {"POST", "/cancel"}, {"GET", "/input_items"}} {
			got := w.ask(r[0], "/v1/responses/"+id+r[1], "", mine...).wants(t, 404, `"code":"not_found"`)
			text := strings.ReplaceAll(got.body, id, "ID")
			if want = first(want, text); text != want {
				t.Errorf("%s %s%s: %s, and elsewhere %s", r[0], id, r[1], text, want)
			}
		}
		got := w.respond(`{"model":"m","input":"x","previous_response_id":"`+id+`"}`, mine...)
		got.wants(t, 404, `"code":"previous_response_not_found"`, `"param":"previous_response_id"`)
	}
}

// bury waits for the result of a request, after which nothing of it is only in its chain.
func (w *bench) bury(id schemas.Identity) {
	w.t.Helper()
	eventually(w.t, "the result of "+id.String(), func() bool { _, err := w.bus.Result(w.t.Context(), id); return err == nil })
}

func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

func TestResponseThatIsNotStored(t *testing.T) {
	t.Parallel()
	w := setup(t, says("x"))
	id := w.respond(`{"model":"m","input":"x","store":false}`).wants(t, 200, `"store":false`).member("id")
	w.response(id).wants(t, 404)
	w.respond(`{"model":"m","input":"x","previous_response_id":"`+id+`"}`).wants(t, 404, "previous_response_not_found")
}

func TestResponseWithIdempotencyKey(t *testing.T) {
	t.Parallel()
	w := setup(t, says("Hel", "lo"))
	one := w.respond(respond, "Idempotency-Key", "k").wants(t, 200)
	two := w.respond(respond, "Idempotency-Key", "k").wants(t, 200)
	if one.body != two.body {
		t.Errorf("two answers for one key:\n%s", cmp.Diff(one.body, two.body))
	}
	w.respond(respondStream, "Idempotency-Key", "k").wants(t, 422, "idempotency_mismatch")
	// In background the first answer is that it is queued, and a repeated one how it stands.
	w.respond(respondLater, "Idempotency-Key", "later").wants(t, 200, `"status":"queued"`)
	eventually(t, "the end", func() bool {
		return strings.Contains(w.respond(respondLater, "Idempotency-Key", "later").wants(t, 200).body, `"status":"completed"`)
	})
}

func TestResponseRetryFreesTheKey(t *testing.T) {
	t.Parallel()
	fails := make(chan bool, 2)
	fails <- true
	fails <- false
	w := setup(t, func(j *job) {
		if <-fails {
			j.start()
			j.fail(schemas.Errorf(schemas.CodeOverloaded, "busy"))
			return
		}
		says("x")(j)
	})
	w.respond(respond, "Llm-Request-Id", "mine").wants(t, 503)
	got := w.respond(respond, "Llm-Request-Id", "mine").wants(t, 200)
	if got.member("id") != "resp_mine-1" {
		t.Errorf("the rerun is %s", got.member("id"))
	}
	w.response("resp_mine").wants(t, 200, `"status":"failed"`)
	w.response("resp_mine-1").wants(t, 200, `"status":"completed"`)
}

func TestLeavingCancelsAResponse(t *testing.T) {
	t.Parallel()
	w := setup(t, func(j *job) { j.start(); j.say("x"); j.wait(nil) }, patience(50*time.Millisecond, time.Minute))
	id := w.leave("POST", "/v1/responses", respondStream)
	w.cancelled(id)
}

func TestResponseHeldBackForTooLong(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	w := setup(t, func(j *job) {
		j.start()
		j.wait(gate)
		j.fail(schemas.Errorf(schemas.CodeUpstreamTimeout, "because"))
	}, func(c *ingest.Config) { c.HoldStatus, c.Heartbeat = 50*time.Millisecond, 20*time.Millisecond })
	response := w.do(t.Context(), "POST", "/v1/responses", respondStream) // its status comes without an event
	close(gate)
	got := read(response).wants(t, 200, ": hb\nevent: response.created\n", `"code":"upstream_timeout"`)
	if diff := cmp.Diff([]string{"created", "in_progress", "failed"}, kinds(t, got.body)); diff != "" {
		t.Error(diff)
	}
}

// When the door stops, a reader of events is told or sees a broken connection, and goes on elsewhere without a gap.
func TestResponseWhenTheDoorStops(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	script, start, end := steps()
	w := setupOn(t, bustest.Connect(t, server, bus.Config{}), script, func(c *ingest.Config) { c.DrainLimit = 50 * time.Millisecond })
	posted := w.do(t.Context(), "POST", "/v1/responses", strings.Replace(respondLater, "{", `{"stream":true,`, 1))
	id := posted.Header.Get("X-Request-Id")
	close(start)
	eventually(t, "a first word", func() bool { return strings.Contains(w.response("resp_"+id).body, "Hel") })
	resumed := w.do(t.Context(), "GET", "/v1/responses/resp_"+id+"?stream=true", "")
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	told := read(posted).wants(t, 200, "event: error\n", `"code":"server_shutdown"`)
	events := dataOf(told.body)
	if got := read(resumed); got.err == nil || strings.Contains(got.body, "event: error\n") {
		t.Errorf("the reader got %q, %v", got.body, got.err)
	}
	close(end)
	second := setupOn(t, bustest.Connect(t, server, bus.Config{}), nil)
	after := gjson.Get(events[len(events)-1], "sequence_number").Raw
	rest := second.ask("GET", "/v1/responses/resp_"+id+"?stream=true&starting_after="+after, "").wants(t, 200)
	whole := second.ask("GET", "/v1/responses/resp_"+id+"?stream=true", "").wants(t, 200)
	seen, _, _ := strings.Cut(told.body, "event: error\n")
	if seen+rest.body != whole.body {
		t.Errorf("what was read in two parts differs:\n%s", cmp.Diff(whole.body, seen+rest.body))
	}
}

// The SDK for Go asks for a stream in the body of its GET.
func TestStreamAskedForInTheBody(t *testing.T) {
	t.Parallel()
	w := setup(t, says("x"))
	id := w.respond(respond).wants(t, 200).member("id")
	w.ask("GET", "/v1/responses/"+id, `{"stream":true}`).wants(t, 200, "event: response.completed\n")
	w.ask("GET", "/v1/responses/"+id, `{"stream":false}`).wants(t, 200, `{"id":"`+id+`"`)
	w.ask("GET", "/v1/responses/"+id+"?stream=false", `{"stream":true}`).wants(t, 200, `{"id":"`+id+`"`)
}

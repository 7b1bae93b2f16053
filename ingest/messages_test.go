package ingest_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/anthropic/anthropictest"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/schemas"
)

const (
	messagesStream = `{"model":"m-1.5","max_tokens":9,"messages":[{"role":"user","content":"hi"}],"stream":true}`
	messagesUnary  = `{"model":"m-1.5","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`
	messagesPath   = "/v1/messages"
)

func (w *bench) messages(body string, header ...string) answer {
	w.t.Helper()
	return w.ask("POST", messagesPath, body, header...)
}

// emit writes these events in one frame.
func (j *job) emit(events ...string) {
	j.write(&schemas.Frame{Kind: schemas.KindDelta, Count: len(events), Data: []byte(strings.Join(events, "\n"))})
}

// named is the wire form of events in the messages dialect, from an index on.
func named(request string, events []string, from int) string {
	var b strings.Builder
	for i, event := range events {
		var e struct{ Type string }
		if err := json.Unmarshal([]byte(event), &e); err != nil {
			panic(err)
		}
		if i >= from {
			fmt.Fprintf(&b, "id: %s.%d\nevent: %s\ndata: %s\n\n", request, i, e.Type, event)
		}
	}
	return b.String()
}

// failure is an error document of the messages dialect.
type failure struct {
	Type  string
	Error struct {
		Type, Message string
		Details       struct {
			Code  schemas.Code `json:"error_code"`
			Param string
		}
	}
	RequestID string `json:"request_id"`
}

func failureOf(t *testing.T, document string) (f failure) {
	t.Helper()
	if err := json.Unmarshal([]byte(document), &f); err != nil || f.Type != "error" || f.Error.Message == "" {
		t.Fatalf("%v: not an error of the messages dialect: %s", err, document)
	}
	return f
}

// fails checks an error answer in every part.
func (a answer) fails(t *testing.T, status int, kind string, code schemas.Code) {
	t.Helper()
	a.wants(t, status)
	f := failureOf(t, a.body)
	if f.Error.Type != kind || f.Error.Details.Code != code || f.RequestID != a.id() || f.RequestID == "" || a.header.Get("Request-Id") != a.id() || a.header.Get("Content-Type") != "application/json" {
		t.Errorf("want %s %s about the request %s; got %v %s", kind, code, a.id(), a.header, a.body)
	}
}

var messageEvents = anthropictest.Whole("end_turn", anthropictest.Thinking(0, "sig", "hm"), anthropictest.Text(1, "Hello", " world"))

func TestMessages(t *testing.T) {
	t.Parallel()
	jobs := make(chan *job, 2)
	w := setup(t, func(j *job) {
		jobs <- j
		j.start()
		if strings.Contains(string(j.request.Body), "stream") {
			j.emit(messageEvents[:4]...)
			j.emit(messageEvents[4:]...)
			j.end()
			return
		}
		j.respond(anthropictest.Message("Hello"))
	})
	got := w.ask("POST", messagesPath+"?beta=true", messagesStream, "Anthropic-Version", "2026-10-21", "Anthropic-Beta", "a-1", "X-Api-Key", "any").wants(t, 200)
	if want := named(got.id(), messageEvents, 0); got.body != want {
		t.Errorf("(-want +got):\n%s", cmp.Diff(want, got.body))
	}
	for name, want := range map[string]string{"Content-Type": "text/event-stream; charset=utf-8", "Request-Id": got.id(), "Cache-Control": "no-cache, no-transform"} {
		if v := got.header.Get(name); v != want {
			t.Errorf("%s is %q, want %q", name, v, want)
		}
	}
	j := <-jobs
	if j.request.Op != schemas.OpMessages || string(j.request.Body) != messagesStream {
		t.Errorf("op %s, body %s", j.request.Op, j.request.Body)
	}
	for name, want := range map[string]string{schemas.HeaderAnthropicVersion: "2026-10-21", schemas.HeaderAnthropicBeta: "a-1"} {
		if v := j.header[name]; len(v) != 1 || v[0] != want {
			t.Errorf("%s travels as %q, want %q", name, v, want)
		}
	}
	got = w.messages(messagesUnary).wants(t, 200)
	if got.body != anthropictest.Message("Hello") || got.header.Get("Request-Id") != got.id() {
		t.Errorf("%v %s", got.header, got.body)
	}
	if j := <-jobs; len(j.header[schemas.HeaderAnthropicVersion])+len(j.header[schemas.HeaderAnthropicBeta]) != 0 {
		t.Errorf("headers that nobody sent travel: %v", j.header)
	}
}

func TestMessagesBetasAreJoined(t *testing.T) {
	t.Parallel()
	jobs := make(chan *job, 1)
	w := setup(t, func(j *job) { jobs <- j; j.start(); j.respond(`{"input_tokens":4}`) })
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, w.url+messagesPath+"/count_tokens", strings.NewReader(`{"model":"m-1.5","messages":[{"role":"user","content":"hi"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	r.Header["Anthropic-Beta"] = []string{"a", "b"}
	response, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	read(response).wants(t, 200, `{"input_tokens":4}`)
	if j := <-jobs; j.request.Op != schemas.OpCountTokens || j.header[schemas.HeaderAnthropicBeta][0] != "a,b" {
		t.Errorf("op %s, headers %v", j.request.Op, j.header)
	}
}

// TestMessagesErrors has every error that the door itself can give on the surface, before a stream begins.
func TestMessagesErrors(t *testing.T) {
	t.Parallel()
	keyring := ring(t, keys.Configured{ID: "k", SHA256: hashOf("secret"), Tenant: "acme"},
		keys.Configured{ID: "audit", SHA256: hashOf("audit"), Tenant: "acme", Scope: keys.ScopeAudit},
		keys.Configured{ID: "one", SHA256: hashOf("one"), Tenant: "acme", Models: []string{"other"}})
	w := setup(t, func(j *job) {
		j.start()
		j.fail(schemas.Errorf(schemas.CodeOverloaded, "full").WithRetryAfter(1500 * time.Millisecond))
	}, func(c *ingest.Config) { c.MaxBodyBytes, c.Keys = 1000, keyring })
	key := []string{"X-Api-Key", "secret"}
	w.messages(messagesUnary).fails(t, 401, "authentication_error", schemas.CodeInvalidKey)
	w.messages(messagesUnary, "X-Api-Key", "wrong").fails(t, 401, "authentication_error", schemas.CodeInvalidKey)
	w.messages(messagesUnary, "X-Api-Key", "audit").fails(t, 403, "permission_error", schemas.CodeScope)
	w.messages(messagesUnary, "X-Api-Key", "one").fails(t, 403, "permission_error", schemas.CodeModelNotAllowed)
	w.messages(messagesUnary, "Authorization", "Bearer wrong").fails(t, 401, "authentication_error", schemas.CodeInvalidKey)
	for _, header := range [][]string{key, {"Authorization", "Bearer secret"}, {"Authorization", "Bearer secret", "X-Api-Key", "other"}, {"Authorization", "Basic x", "X-Api-Key", "secret"}} {
		got := w.messages(messagesUnary, header...)
		got.fails(t, 529, "overloaded_error", schemas.CodeOverloaded)
		if got.header.Get("Retry-After") != "2" || got.header.Get("Retry-After-Ms") != "1500" {
			t.Errorf("headers %v", got.header)
		}
	}
	w.messages(messagesStream, key...).fails(t, 529, "overloaded_error", schemas.CodeOverloaded)
	for body, param := range map[string]string{
		`{"model":"m-1.5","messages":[{"role":"user","content":"hi"}]}`:                                "max_tokens",
		`{"model":"m-1.5","max_tokens":0,"messages":[{"role":"user","content":"hi"}]}`:                 "max_tokens",
		`{"max_tokens":1,"messages":[{"role":"user","content":"hi"}]}`:                                 "model",
		`{"model":"m-1.5","max_tokens":1}`:                                                             "messages",
		`{"model":"m-1.5","max_tokens":1,"stream":"yes","messages":[{"role":"user","content":"hi"}]}`:  "stream",
		`{"model":"m-1.5","max_tokens":1,"Model":"other","messages":[{"role":"user","content":"hi"}]}`: "Model",
	} {
		got := w.messages(body, key...).wants(t, 400)
		if f := failureOf(t, got.body); f.Error.Type != "invalid_request_error" || f.Error.Details.Param != param {
			t.Errorf("%s: %s, want it about %s", body, got.body, param)
		}
	}
	w.messages("{", key...).fails(t, 400, "invalid_request_error", schemas.CodeInvalidJSON)
	w.messages(strings.Repeat(" ", 1001), key...).fails(t, 413, "request_too_large", schemas.CodeRequestTooLarge)
	w.ask("GET", messagesPath, "").fails(t, 405, "invalid_request_error", schemas.CodeUnsupported)
	w.ask("POST", messagesPath+"/batches", "{}", key...).fails(t, 404, "not_found_error", schemas.CodeNotFound)
	w.ask("POST", "/v1"+messagesPath, "{}", "Anthropic-Version", "2023-06-01").fails(t, 404, "not_found_error", schemas.CodeNotFound)
	w.ask("GET", "/v1/models/x", "", "Anthropic-Version", "2023-06-01", "X-Api-Key", "secret").fails(t, 404, "not_found_error", schemas.CodeModelNotFound)
	w.ask("POST", messagesPath+"/count_tokens", `{"model":"m-1.5","stream":true,"messages":[{"role":"user","content":"hi"}]}`, key...).fails(t, 400, "invalid_request_error", schemas.CodeInvalidValue)
	// The other surface stays as it was.
	w.chat(unary).wants(t, 401, `{"error":{"message":`).without(t, "request_id")
	w.chat(unary, key...).wants(t, 503, `"code":"server_is_overloaded"`)
}

func TestMessagesVersions(t *testing.T) {
	t.Parallel()
	w := setup(t, func(j *job) { j.start(); j.respond(anthropictest.Message("x")) })
	sampled := strings.Replace(messagesUnary, "{", `{"temperature":1,`, 1)
	for version, status := range map[string]int{"": 200, "2023-06-01": 200, "2026-10-21": 400, "2027-01-01": 400} {
		var header []string
		if version != "" {
			header = []string{"Anthropic-Version", version}
		}
		got := w.messages(sampled, header...).wants(t, status)
		if status == 400 && failureOf(t, got.body).Error.Details.Param != "temperature" {
			t.Errorf("version %s: %s", version, got.body)
		}
		w.messages(messagesUnary, header...).wants(t, 200)
	}
	w.messages(messagesUnary, "Anthropic-Version", "latest").fails(t, 400, "invalid_request_error", schemas.CodeInvalidValue)
	w.messages(messagesUnary, "Anthropic-Beta", "a;b").fails(t, 400, "invalid_request_error", schemas.CodeInvalidValue)
}

// TestMessagesErrorInTheStream ends an answer that is not whole in the form of the surface.
func TestMessagesErrorInTheStream(t *testing.T) {
	t.Parallel()
	w := setup(t, func(j *job) {
		j.start()
		j.emit(messageEvents[:3]...)
		j.fail(schemas.Errorf(schemas.CodeUpstreamInterrupted, "cut"))
	})
	got := w.messages(messagesStream).wants(t, 200)
	want := named(got.id(), messageEvents[:3], 0)
	rest, ok := strings.CutPrefix(got.body, want)
	if !ok {
		t.Fatalf("(-want +got):\n%s", cmp.Diff(want, got.body))
	}
	data, ok := strings.CutPrefix(rest, "event: error\ndata: ")
	if f := failureOf(t, strings.TrimSpace(data)); !ok || f.Error.Type != "api_error" || f.Error.Details.Code != schemas.CodeUpstreamInterrupted || f.RequestID != got.id() {
		t.Errorf("the stream ends in %q", rest)
	}
	// Whoever comes back for it sees the same, whatever they say about themselves.
	for _, header := range [][]string{nil, {"Anthropic-Version", "2023-06-01"}} {
		if again := w.ask("GET", "/v1/streams/"+got.id(), "", header...); again.body != got.body {
			t.Errorf("read again (-first +second):\n%s", cmp.Diff(got.body, again.body))
		}
	}
}

func TestMessagesHeartbeat(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	w := setup(t, func(j *job) {
		j.wait(gate)
		j.start()
		j.fail(schemas.Errorf(schemas.CodeModelNotFound, "no such model"))
	}, func(c *ingest.Config) { c.HoldStatus, c.Heartbeat = 50*time.Millisecond, 20*time.Millisecond })
	response := w.do(t.Context(), "POST", messagesPath, messagesStream)
	lines := bufio.NewReader(response.Body)
	const ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n"
	for range 3 {
		got := make([]byte, len(ping))
		for i := range got {
			b, err := lines.ReadByte()
			if err != nil {
				t.Fatal(err)
			}
			got[i] = b
		}
		if string(got) != ping {
			t.Fatalf("heartbeat %q", got)
		}
	}
	close(gate)
	response.Body = readCloser{lines, response.Body}
	rest := strings.ReplaceAll(read(response).body, ping, "")
	data, ok := strings.CutPrefix(rest, "event: error\ndata: ")
	if f := failureOf(t, strings.TrimSpace(data)); !ok || f.Error.Type != "not_found_error" {
		t.Errorf("after the status: %q", rest)
	}
}

// doneMark ends a stream that is read by cursor.
const doneMark = "event: done\ndata: [DONE]\n\n"

// TestMessagesResume reads a stream from behind each event, while its chain is there and from the result.
func TestMessagesResume(t *testing.T) {
	t.Parallel()
	w := setup(t, func(j *job) { j.start(); j.emit(messageEvents[:3]...); j.emit(messageEvents[3:]...); j.end() })
	id := w.messages(messagesStream).wants(t, 200).id()
	for last := range messageEvents {
		got := w.ask("GET", "/v1/streams/"+id, "", "Last-Event-ID", fmt.Sprintf("%s.%d", id, last)).wants(t, 200)
		if want := named(id, messageEvents, last+1) + doneMark; got.body != want || got.header.Get("Request-Id") != id {
			t.Errorf("after %d (-want +got):\n%s", last, cmp.Diff(want, got.body))
		}
	}
	if got := w.ask("GET", "/v1/streams/"+id+"?starting_after=99", "").wants(t, 400); failureOf(t, got.body).Error.Type != "invalid_request_error" {
		t.Errorf("a cursor beyond the end: %s", got.body)
	}
	w.ask("GET", "/v1/streams/req_unknown", "").wants(t, 404, `"code":"stream_not_found"`)
	w.ask("GET", "/v1/streams/req_unknown", "", "Anthropic-Version", "2023-06-01").fails(t, 404, "not_found_error", schemas.CodeStreamNotFound)
}

// TestMessagesResumeWhileItRuns learns from the frames which dialect a request is in, even when its reader came before
// there were any.
func TestMessagesResumeWhileItRuns(t *testing.T) {
	t.Parallel()
	gate, accepted := make(chan struct{}), make(chan string, 1)
	w := setup(t, func(j *job) {
		accepted <- j.request.Request
		j.wait(gate)
		j.start()
		j.emit(messageEvents...)
		j.end()
	})
	first := w.later(t, messagesPath, messagesStream)
	id := <-accepted
	second := make(chan answer, 1)
	eventually(t, "the second reader is there", func() bool {
		return w.ask("GET", "/v1/streams/"+id+"/result", "").status == 202
	})
	go func() { second <- w.ask("GET", "/v1/streams/"+id, "") }()
	close(gate)
	want := named(id, messageEvents, 0)
	if got := <-first; got.body != want {
		t.Errorf("the first reader (-want +got):\n%s", cmp.Diff(want, got.body))
	}
	if got, want := <-second, want+doneMark; got.body != want {
		t.Errorf("the second reader (-want +got):\n%s", cmp.Diff(want, got.body))
	}
}

// later sends a request on a goroutine of its own.
func (w *bench) later(t *testing.T, path, body string) <-chan answer {
	t.Helper()
	got := make(chan answer, 1)
	go func() { got <- w.ask("POST", path, body) }()
	return got
}

// TestMessagesIdempotency: one key is one request, of one surface.
func TestMessagesIdempotency(t *testing.T) {
	t.Parallel()
	w := setup(t, func(j *job) { j.start(); j.respond(anthropictest.Message(j.request.Request)) })
	key := []string{"Idempotency-Key", "k1"}
	first := w.messages(messagesUnary, key...).wants(t, 200)
	if second := w.messages(messagesUnary, key...).wants(t, 200); second.body != first.body || second.id() != first.id() {
		t.Errorf("two answers for one key: %s and %s", first.body, second.body)
	}
	got := w.messages(messagesStream, key...)
	got.fails(t, 422, "invalid_request_error", schemas.CodeIdempotencyMismatch)
	if got.header.Get("X-Should-Retry") != "false" {
		t.Errorf("headers %v", got.header)
	}
	w.chat(messagesUnary, key...).wants(t, 422, string(schemas.CodeIdempotencyMismatch))
}

func TestModelsInBothDialects(t *testing.T) {
	t.Parallel()
	w := setup(t, nil, func(c *ingest.Config) { c.Models = func() []string { return []string{"b", "a"} } })
	w.ask("GET", "/v1/models", "").wants(t, 200, `"object":"list"`, `"id":"a"`).without(t, "has_more")
	w.ask("GET", "/v1/models/a", "", "Anthropic-Version", "2023-06-01").wants(t, 200, `{"type":"model","id":"a","display_name":"a","created_at":"`)
	got := w.ask("GET", "/v1/models", "", "Anthropic-Version", "2023-06-01").wants(t, 200, `"has_more":false,"first_id":"a","last_id":"b"`)
	var list struct {
		Data []struct {
			Type, ID string
			Created  time.Time `json:"created_at"`
		}
	}
	if err := json.Unmarshal([]byte(got.body), &list); err != nil || len(list.Data) != 2 || list.Data[0].Type != "model" || list.Data[0].Created.IsZero() {
		t.Errorf("%v: %s", err, got.body)
	}
}

// TestMessagesOverNATS: a tenant of the service names the op, and gets the dialect's events in its frames.
func TestMessagesOverNATS(t *testing.T) {
	t.Parallel()
	jobs := make(chan *job, 1)
	n := setupNATS(t, func(j *job) { jobs <- j; j.start(); j.emit(messageEvents...); j.end() })
	op := []string{"Llm-Op", "messages", schemas.HeaderAnthropicVersion, "2026-10-21", schemas.HeaderAnthropicBeta, "a-1"}
	got := n.tenant("acme").ask(chatSubject, messagesStream, op...)
	var events []string
	for _, m := range got {
		f, err := schemas.DecodeFrame(schemas.Header(m.Header), m.Data)
		if err != nil {
			t.Fatal(err)
		}
		for _, event := range f.Events() {
			events = append(events, string(event))
		}
	}
	if diff := cmp.Diff(messageEvents, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if j := <-jobs; j.request.Op != schemas.OpMessages || j.header[schemas.HeaderAnthropicVersion][0] != "2026-10-21" || j.header[schemas.HeaderAnthropicBeta][0] != "a-1" {
		t.Errorf("op %s, headers %v", j.request.Op, j.header)
	}
	sampled := strings.Replace(messagesStream, "{", `{"temperature":1,`, 1)
	n.tenant("acme").ask(chatSubject, sampled, op...).wantsError(t, "400", "invalid_value")
	n.tenant("acme").ask(chatSubject, messagesStream, "Llm-Op", "messages", schemas.HeaderAnthropicVersion, "new").wantsError(t, "400", "invalid_value")
}

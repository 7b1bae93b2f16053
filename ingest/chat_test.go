package ingest_test

import (
	"bufio"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/schemas"
)

func TestStream(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(1, 3, 2))
	got := w.chat(streaming).wants(t, 200)
	if diff := cmp.Diff(sse(got.id(), 0, 6)+done, got.body); diff != "" {
		t.Error(diff)
	}
	for name, want := range map[string]string{
		"Content-Type": "text/event-stream; charset=utf-8", "Cache-Control": "no-cache, no-transform", "X-Accel-Buffering": "no", "Content-Encoding": "",
	} {
		if got := got.header.Get(name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if !strings.HasPrefix(got.id(), "req_") || len(got.id()) != 30 {
		t.Errorf("request id %q is not req_ and a ULID", got.id())
	}
}

func TestEventsArriveWhenTheyAreCommitted(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	w := setup(t, func(j *job) {
		j.start()
		j.delta(1)
		j.wait(gate)
		j.end()
	})
	response := w.do(t.Context(), "POST", "/v1/chat/completions", streaming)
	line, err := bufio.NewReader(response.Body).ReadString('\n')
	if err != nil || !strings.HasSuffix(line, ".0\n") {
		t.Fatalf("first line %q, %v", line, err)
	}
	close(gate)
}

func TestUnary(t *testing.T) {
	t.Parallel()
	w := setup(t, func(j *job) { j.start(); j.respond(`{"object":"chat.completion","choices":[]}`) })
	got := w.chat(unary, "Accept", "text/event-stream").wants(t, 200)
	if got.body != `{"object":"chat.completion","choices":[]}` || got.header.Get("Content-Type") != "application/json" {
		t.Errorf("%s: %s", got.header.Get("Content-Type"), got.body)
	}
}

func TestLargeBodyAndAnswer(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("x", 2<<20)
	w := setup(t, func(j *job) {
		body, err := j.bus.Body(j.ctx, j.request)
		if err != nil || len(body) < len(text) {
			j.t.Errorf("the worker got %d bytes, %v", len(body), err)
		}
		j.start()
		j.respond(`{"echo":"` + text + `"}`)
	})
	got := w.chat(`{"model":"m","messages":[{"role":"user","content":"`+text+`"}]}`).wants(t, 200)
	if len(got.body) != len(text)+11 {
		t.Errorf("got %d bytes", len(got.body))
	}
}

func TestErrorStatus(t *testing.T) {
	t.Parallel()
	failures := make(chan *schemas.Error, 1)
	w := setup(t, func(j *job) { j.fail(<-failures) })
	for _, c := range []struct {
		code                   schemas.Code
		after                  time.Duration
		status                 int
		retryAfter, retryMS, x string
	}{
		{schemas.CodeInvalidJSON, 0, 400, "", "", ""},
		{schemas.CodeContextLength, 0, 400, "", "", ""},
		{schemas.CodeModelNotAllowed, 0, 403, "", "", ""},
		{schemas.CodeModelNotFound, 0, 404, "", "", ""},
		{schemas.CodeRateLimit, 1200 * time.Millisecond, 429, "2", "1200", ""},
		{schemas.CodeQuota, 0, 429, "", "", "false"},
		{schemas.CodeSlowDown, 5 * time.Second, 429, "5", "5000", ""},
		{schemas.CodeOverloaded, 0, 503, "1", "1000", ""},
		{schemas.CodeUnavailable, 0, 503, "1", "1000", ""},
		{schemas.CodeUpstreamError, 0, 502, "", "", ""},
		{schemas.CodeUpstreamTimeout, 0, 504, "", "", ""},
		{schemas.CodeDeadline, 0, 504, "", "", "false"},
		{schemas.CodeUpstreamAuth, 0, 502, "", "", "false"},
		{schemas.CodeInternal, 0, 500, "", "", ""},
		{schemas.CodePoison, 0, 500, "", "", "false"},
		{schemas.CodeCancelled, 0, 499, "", "", ""},
		{"code_of_a_later_version", 0, 500, "", "", ""},
	} {
		for _, body := range []string{streaming, unary} {
			e := schemas.Errorf(c.code, "because").WithRetryAfter(c.after)
			failures <- e
			got := w.chat(body).wants(t, c.status, `"message":"because"`, `"code":"`+string(c.code)+`"`, `"type":"`+e.Type()+`"`, `"param":null`)
			want := []string{"application/json", c.retryAfter, c.retryMS, c.x}
			h := got.header
			if diff := cmp.Diff(want, []string{h.Get("Content-Type"), h.Get("Retry-After"), h.Get("Retry-After-Ms"), h.Get("X-Should-Retry")}); diff != "" {
				t.Errorf("%s: %s", c.code, diff)
			}
		}
	}
}

func TestErrorAfterTheFirstEventIsInBand(t *testing.T) {
	t.Parallel()
	failure := schemas.Errorf(schemas.CodeUpstreamInterrupted, "the model stopped")
	w := setup(t, func(j *job) { j.start(); j.delta(2); j.fail(failure) })
	got := w.chat(streaming).wants(t, 200)
	if diff := cmp.Diff(sse(got.id(), 0, 2)+"data: "+string(failure.Encode())+"\n\n", got.body); diff != "" {
		t.Error(diff)
	}
}

func TestStatusIsHeldForALimitedTime(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	w := setup(t, func(j *job) {
		j.wait(gate)
		j.start()
		j.fail(schemas.Errorf(schemas.CodeModelNotFound, "no such model"))
	}, func(c *ingest.Config) { c.HoldStatus, c.Heartbeat = 50*time.Millisecond, 20*time.Millisecond })
	response := w.do(t.Context(), "POST", "/v1/chat/completions", streaming)
	if response.StatusCode != 200 {
		t.Fatalf("status %d", response.StatusCode)
	}
	beats := bufio.NewReader(response.Body)
	for range 3 {
		if line, err := beats.ReadString('\n'); line != ": hb\n" {
			t.Fatalf("%q, %v", line, err)
		}
	}
	// Once the caller knows the id, the request can be found, though nothing has happened to it.
	id := response.Header.Get("X-Request-Id")
	chain, err := w.bus.Chain(t.Context(), of(id))
	if err != nil || len(chain.Frames) != 1 || chain.Frames[0].Kind != schemas.KindAccepted {
		t.Fatalf("chain %+v, %v", chain, err)
	}
	w.ask("GET", "/v1/streams/"+id+"/result", "").wants(t, 202, `"status":"queued"`)
	close(gate)
	response.Body = readCloser{beats, response.Body}
	rest := read(response)
	if got := strings.ReplaceAll(rest.body, ": hb\n", ""); !strings.HasPrefix(got, `data: {"error":{"message":"no such model"`) || strings.Contains(got, "DONE") {
		t.Errorf("after the status: %q", got)
	}
}

func TestHeartbeatsOnlyInSilence(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	w := setup(t, func(j *job) { j.start(); j.delta(1); j.wait(gate); j.delta(1); j.end() },
		func(c *ingest.Config) { c.Heartbeat = 40 * time.Millisecond })
	response := w.do(t.Context(), "POST", "/v1/chat/completions", streaming)
	lines := bufio.NewReader(response.Body)
	for beats := 0; beats < 2; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if line == ": hb\n" {
			beats++
		}
	}
	close(gate)
	response.Body = readCloser{lines, response.Body}
	if rest := read(response); !strings.HasSuffix(strings.ReplaceAll(rest.body, ": hb\n", ""), sse(rest.id(), 1, 2)+done) {
		t.Errorf("rest: %q", rest.body)
	}
}

func TestHeadersThatTravel(t *testing.T) {
	t.Parallel()
	jobs := make(chan *job, 1)
	w := setup(t, func(j *job) { jobs <- j; j.start(); j.respond(`{}`) })
	w.chat(unary,
		"Llm-Priority", "batch", "llm-cache-ttl", "60", "Llm-Cache", "on", "Llm-Deadline", "4102444800000",
		"Traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
		"X-Request-Id", "theirs", "Llm-Tenant", "evil", "Llm-Dispatch", "9", "Llm-Cache-Key", "k", "Llm-Frame", "end 1 a 0 0",
		"Llm-Object", "default/x/y/0 1 "+strings.Repeat("0", 64), "Llm-Body-Hash", "h", "Llm-Unknown", "x",
		"Nats-Msg-Id", "x", "Nats-Rollup", "all", "Nats-Expected-Last-Sequence", "7", "Nats-Trace-Dest", "x",
	).wants(t, 200)
	j := <-jobs
	for _, name := range []string{"Nats-Rollup", "Nats-Expected-Last-Sequence", "Nats-Trace-Dest"} {
		if v := j.header[name]; len(v) > 0 {
			t.Errorf("header %s came through", name)
		}
	}
	if id := j.header[schemas.HeaderMsgID]; len(id) != 1 || id[0] != j.request.String() {
		t.Errorf("message id %q", id)
	}
	got := map[string]string{}
	for name, v := range j.header {
		if strings.HasPrefix(strings.ToLower(name), "llm-") {
			got[name] = v[0]
		}
	}
	want := map[string]string{
		"Llm-Priority": "batch", "Llm-Cache-TTL": "60", "Llm-Cache": "on", "Llm-Deadline": "4102444800000", "Llm-Op": "chat", "Llm-Request-Id": j.request.Request,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if id := j.request.Request; id == "theirs" || j.request.Tenant != "default" || j.request.ModelToken != "m-1=2E5" {
		t.Errorf("request %q of %q for %q", id, j.request.Tenant, j.request.ModelToken)
	}
	if trace := j.header["traceparent"]; len(trace) != 1 || !strings.Contains(trace[0], "0af7651916cd43dd8448eb211c80319c") {
		t.Errorf("traceparent %q", trace)
	}
}

func TestControlledMembersAreStripped(t *testing.T) {
	t.Parallel()
	bodies := make(chan string, 1)
	w := setup(t, func(j *job) { bodies <- string(j.request.Body); j.start(); j.respond(`{}`) })
	w.chat(`{"model":"m","priority":1,"messages":[{"role":"user","content":"hi"}],"top_k":5}`).wants(t, 200)
	if got := <-bodies; strings.Contains(got, "priority") || !strings.Contains(got, `"top_k":5`) {
		t.Errorf("the worker got %s", got)
	}
}

func TestBadInput(t *testing.T) {
	t.Parallel()
	w := setup(t, func(j *job) { j.t.Errorf("accepted: %.200s", j.request.Body) })
	for _, c := range []struct {
		name, body string
		header     []string
		status     int
		code       string
	}{
		{"empty", ``, nil, 400, "invalid_json"},
		{"malformed", `{"model":"m",`, nil, 400, "invalid_json"},
		{"not an object", `[]`, nil, 400, "invalid_json"},
		{"deep", `{"model":"m","messages":` + strings.Repeat("[", 100) + strings.Repeat("]", 100) + `}`, nil, 400, "invalid_json"},
		{"duplicate key", `{"model":"m","model":"n","messages":[{"role":"user"}]}`, nil, 400, "invalid_json"},
		{"no model", `{"messages":[{"role":"user"}]}`, nil, 400, "missing_required_parameter"},
		{"empty model", `{"model":"","messages":[{"role":"user"}]}`, nil, 400, "missing_required_parameter"},
		{"long model", `{"model":"` + strings.Repeat("m", 200) + `","messages":[{"role":"user"}]}`, nil, 400, "invalid_value"},
		{"no messages", `{"model":"m"}`, nil, 400, "missing_required_parameter"},
		{"empty messages", `{"model":"m","messages":[]}`, nil, 400, ""},
		{"oversized", `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("x", 10<<20) + `"}]}`, nil, 413, "request_too_large"},
		{"compressed", unary, []string{"Content-Encoding", "gzip"}, 415, "unsupported"},
		{"id of a sequence", unary, []string{"Llm-Request-Id", "s17"}, 400, "invalid_value"},
		{"id with a dot", unary, []string{"Llm-Request-Id", "a.b"}, 400, "invalid_value"},
		{"id with a wildcard", unary, []string{"Llm-Request-Id", "*"}, 400, "invalid_value"},
		{"id with the other wildcard", unary, []string{"Llm-Request-Id", ">"}, 400, "invalid_value"},
		{"id with a space", unary, []string{"Llm-Request-Id", "a b"}, 400, "invalid_value"},
		{"long id", unary, []string{"Llm-Request-Id", strings.Repeat("a", 65)}, 400, "invalid_value"},
		{"empty id", unary, []string{"Llm-Request-Id", ""}, 400, "invalid_value"},
		{"empty key", unary, []string{"Idempotency-Key", ""}, 400, "invalid_value"},
		{"long key", unary, []string{"Idempotency-Key", strings.Repeat("k", 256)}, 400, "invalid_value"},
		{"id and key", unary, []string{"Llm-Request-Id", "a", "Idempotency-Key", "k"}, 400, "invalid_value"},
		{"bad deadline", unary, []string{"Llm-Deadline", "soon"}, 400, "invalid_value"},
		{"bad priority", unary, []string{"Llm-Priority", "urgent"}, 400, "invalid_value"},
		{"bad op", unary, []string{"Llm-Op", "sing"}, 400, "invalid_value"},
		{"another op", unary, []string{"Llm-Op", "embedding"}, 400, "invalid_value"},
		{"bad disconnect", unary, []string{"Llm-On-Disconnect", "maybe"}, 400, "invalid_value"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := w.chat(c.body, c.header...).wants(t, c.status, `{"error":{"message":"`, c.code)
			if got.id() == "" || got.header.Get("Content-Type") != "application/json" {
				t.Errorf("headers %v", got.header)
			}
		})
	}
}

func TestChunkedBodyIsLimitedToo(t *testing.T) {
	t.Parallel()
	w := setup(t, nil, func(c *ingest.Config) { c.MaxBodyBytes = 1000 })
	r, err := http.NewRequestWithContext(t.Context(), "POST", w.url+"/v1/chat/completions", readCloser{strings.NewReader(strings.Repeat(" ", 2000)), http.NoBody})
	if err != nil {
		t.Fatal(err)
	}
	response, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	read(response).wants(t, 413, "request_too_large")
}

func TestSlowBodyIsGivenUp(t *testing.T) {
	t.Parallel()
	w := setup(t, nil, func(c *ingest.Config) { c.BodyTimeout = 50 * time.Millisecond })
	never, stop := context.WithTimeout(t.Context(), longEnough)
	defer stop()
	r, err := http.NewRequestWithContext(never, "POST", w.url+"/v1/chat/completions", readCloser{blocked{never}, http.NoBody})
	if err != nil {
		t.Fatal(err)
	}
	response, err := w.client.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	read(response).wants(t, 400, "too slowly")
}

func TestTooManyAtOnce(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	w := setup(t, func(j *job) { j.start(); j.delta(1); j.wait(gate); j.end() }, func(c *ingest.Config) { c.MaxStreams = 1 })
	first := w.do(t.Context(), "POST", "/v1/chat/completions", streaming)
	got := w.chat(unary).wants(t, 503, "server_is_overloaded")
	if got.header.Get("Retry-After") != "1" {
		t.Errorf("headers %v", got.header)
	}
	close(gate)
	read(first).wants(t, 200, done)
	eventually(t, "room again", func() bool { return w.chat(streaming).status == 200 })
}

package ingest_test

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/schemas"
)

const (
	chatSubject = "llm.chat.acme.m-1=2E5"
	bare        = `{"messages":[{"role":"user","content":"hi"}]}` // without a model
	bareStream  = `{"messages":[{"role":"user","content":"hi"}],"stream":true}`
)

func TestServiceStreams(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, tokens(1, 3, 2))
	for name, c := range map[string]*caller{"tenant": n.tenant("acme"), "trusted": n.trusted()} {
		got := c.ask(chatSubject, streaming)
		got.wantsEvents(t, 0, 6)
		if len(got) != 3 {
			t.Errorf("%s: %d messages for three frames", name, len(got))
		}
		if chain := n.chain(schemas.Identity{Tenant: "acme", Request: got.id()}); chain.Terminal() == nil {
			t.Errorf("%s: the request is not in the tenant's log", name)
		}
	}
}

func TestServiceUnary(t *testing.T) {
	t.Parallel()
	bodies := make(chan string, 8)
	n := setupNATS(t, func(j *job) { bodies <- string(j.request.Body); j.start(); j.respond(`{"object":"chat.completion"}`) })
	c := n.tenant("acme")
	for _, body := range []string{unary, bare, ` {  } `[:0] + `{"messages":[{"role":"user","content":"hi"}] }`} {
		got := c.ask(chatSubject, body)
		if len(got) != 1 || string(got[0].Data) != `{"object":"chat.completion"}` {
			t.Fatalf("the answer is\n%s", got)
		}
		accepted := <-bodies
		if gjson.Get(accepted, "model").Str != "m-1.5" || gjson.Get(accepted, "messages.0.content").Str != "hi" {
			t.Errorf("the body that was accepted is %s", accepted)
		}
	}
}

func TestServiceRefuses(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, func(j *job) { t.Errorf("accepted: %s", j.request.Body) }, func(c *ingest.Config) { c.MaxBodyBytes = 2000 })
	for _, c := range []struct {
		name, subject, body string
		header              []string
		status, code        string
	}{
		{"another model in the body", "llm.chat.acme.other", streaming, nil, "400", "invalid_value"},
		{"no JSON", chatSubject, "hello", nil, "400", "invalid_json"},
		{"nothing", chatSubject, "", nil, "400", "invalid_json"},
		{"no messages", chatSubject, "{}", nil, "400", "missing_required_parameter"},
		{"no model", chatSubject, `{"model":null,"messages":[]}`, nil, "400", "invalid_value"},
		{"a token that nobody encodes", "llm.chat.acme.m=zz", bare, nil, "400", "invalid_value"},
		{"a model that is no text", "llm.chat.acme.=83", bare, nil, "400", "invalid_value"},
		{"too large", chatSubject, `{"messages":[{"role":"user","content":"` + strings.Repeat("x", 2000) + `"}]}`, nil, "413", "request_too_large"},
		{"priority", chatSubject, bare, []string{"Llm-Priority", "high"}, "400", "invalid_value"},
		{"deadline", chatSubject, bare, []string{"Llm-Deadline", "soon"}, "400", "invalid_value"},
		{"operation", chatSubject, bare, []string{"Llm-Op", "sing"}, "400", "unsupported"},
		{"no response", chatSubject, `{"input":"hi","conversation":"c"}`, []string{"Llm-Op", "responses"}, "400", "unsupported"},
		{"earlier response", chatSubject, `{"input":"hi","previous_response_id":"resp_x"}`, []string{"Llm-Op", "responses"}, "400", "unsupported"},
		{"reserved id", chatSubject, bare, []string{"Llm-Request-Id", "s7"}, "400", "invalid_value"},
		{"id and key", chatSubject, bare, []string{"Llm-Request-Id", "a", "Idempotency-Key", "b"}, "400", "invalid_value"},
		{"resume of nothing", "llm.resume.acme.nothing", "", nil, "404", "stream_not_found"},
		{"resume of an impossible id", "llm.resume.acme.a=b", "", nil, "404", "stream_not_found"},
		{"cancel of nothing", "llm.cancel.acme.nothing", "", nil, "404", "stream_not_found"},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := n.tenant("acme").ask(c.subject, c.body, c.header...)
			got.wantsError(t, c.status, c.code)
			if len(got) != 1 || got.id() == "" {
				t.Errorf("the answer is\n%s", got)
			}
		})
	}
	n.trusted().ask("llm.chat.a=b.m", bare).wantsError(t, "400", "invalid_value")
}

// A request may fill a whole message of the server, and no more.
func TestServiceLargestRequest(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, tokens(1))
	c := n.tenant("acme")
	body := func(size int) string {
		const head, tail = `{"stream":true,"messages":[{"role":"user","content":"`, `"}]}`
		return head + strings.Repeat("x", size-len(head)-len(tail)) + tail
	}
	largest := int(c.conn.MaxPayload())
	const header = len("NATS/1.0\r\n\r\n")
	c.ask(chatSubject, body(largest-header)).wantsEvents(t, 0, 1)
	if err := c.conn.Publish(chatSubject, []byte(body(largest+1))); !errors.Is(err, nats.ErrMaxPayload) {
		t.Errorf("a larger request: %v", err)
	}
}

func TestServiceErrorFrame(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, func(j *job) {
		j.start()
		j.delta(2)
		j.fail(schemas.Errorf(schemas.CodeRateLimit, "slower\nplease").WithRetryAfter(3 * time.Second))
	})
	got := n.tenant("acme").ask(chatSubject, bareStream)
	got.wantsError(t, "429", "rate_limit_exceeded")
	got[:1].wantsEvents(t, 0, 2)
	if e, _ := schemas.DecodeError(got[1].Data); e.RetryAfter != 3*time.Second {
		t.Errorf("the error is %s", got[1].Data)
	}
	if text := got[1].Header.Get(schemas.HeaderServiceError); text != "slower please" {
		t.Errorf("the header says %q", text)
	}
}

func TestServiceIdempotency(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, tokens(2))
	c := n.tenant("acme")
	for _, header := range [][]string{{"Llm-Request-Id", "mine"}, {"Idempotency-Key", "k"}} {
		first, second := c.ask(chatSubject, bareStream, header...), c.ask(chatSubject, bareStream, header...)
		first.wantsEvents(t, 0, 2)
		second.wantsEvents(t, 0, 2)
		if first.id() != second.id() {
			t.Errorf("ids %s and %s", first.id(), second.id())
		}
		c.ask(chatSubject, bareStream+" ", header...).wantsError(t, "422", "idempotency_mismatch")
	}
	// The same over HTTP is the same request: the identity is one.
	n.tenant("default").ask("llm.chat.default.m-1=2E5", streaming, "Llm-Request-Id", "both").wantsEvents(t, 0, 2)
	n.chat(streaming, "Llm-Request-Id", "both").wants(t, 200, sse("both", 0, 2))
}

// What a request may bring travels with it, and nothing else does.
func TestServiceHeaders(t *testing.T) {
	t.Parallel()
	headers := make(chan schemas.Header, 1)
	n := setupNATS(t, func(j *job) { headers <- j.header; tokens(1)(j) })
	foreign := []string{
		"Nats-Msg-Id", "order-1", "Nats-TTL", "1s", "Nats-Rollup", "all", "Nats-Expected-Last-Sequence", "9", "Nats-Expected-Stream", "X",
		"Nats-Expected-Last-Subject-Sequence", "0", "Nats-Expected-Last-Msg-Id", "x", "Nats-Batch-Id", "b", "Nats-Batch-Sequence", "1",
		"Nats-Schedule", "@at 2030-01-01T00:00:00Z", "Nats-Schedule-Target", "llm.work.m", "Nats-Schedule-TTL", "1s",
		"Nats-Stream", "LLM_REPLIES", "Nats-Sequence", "1", "Nats-Incr", "1", "KV-Operation", "PURGE", "X-Other", "1",
		"Llm-Tenant", "other", "Llm-Dispatch", "7", "Llm-Object", "other/r/w/0 1 " + strings.Repeat("0", 64), "Llm-Frame", "end 1 w 0 0",
		"Llm-Cache-Key", "k", "Llm-Accepted", "1", "llm-priority", "batch", "Authorization", "Bearer secret",
	}
	n.tenant("acme").ask(chatSubject, bareStream, append(foreign, "Llm-Priority", "interactive", "Llm-Cache", "off", "tracestate", "a=b")...).wantsEvents(t, 0, 1)
	got := <-headers
	if id := got["Nats-Msg-Id"]; len(id) != 1 || !strings.HasPrefix(id[0], "acme/req_") {
		t.Errorf("message id %v", id)
	}
	delete(got, "Nats-Msg-Id")
	delete(got, "Llm-Request-Id")
	delete(got, "Nats-Pin-Id") // the server's, on delivery
	want := schemas.Header{"Llm-Priority": {"interactive"}, "Llm-Cache": {"off"}, "Llm-Op": {"chat"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("headers of the request that was accepted (-want +got):\n%s", diff)
	}
}

func TestServiceIsFull(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, hang, func(c *ingest.Config) { c.MaxStreams = 1 })
	c := n.tenant("acme")
	sub := c.open(chatSubject, bareStream, "Llm-Request-Id", "one")
	next(t, sub)
	c.ask(chatSubject, bareStream).wantsError(t, "503", "server_is_overloaded")
	n.chat(streaming).wants(t, 503, "server_is_overloaded") // the places are those of both doors
	c.ask("llm.cancel.acme.one", "")
	if all, err := collect(sub); err != nil {
		t.Fatalf("%v after %s", err, all)
	}
	c.ask("llm.resume.acme.one", "").wantsError(t, "499", "request_cancelled")
}

// A caller that has its whole answer may ask again at once, also where there is one place.
func TestServiceGivesThePlaceBackFirst(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, tokens(1), func(c *ingest.Config) { c.MaxStreams = 1 })
	c := n.tenant("acme")
	for range 50 {
		c.ask("llm.resume.acme.nobody", "").wantsError(t, "404", "stream_not_found")
		c.ask(chatSubject, bareStream).wantsEvents(t, 0, 1)
	}
}

func TestServiceSaysThatItWaits(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	n := setupNATS(t, func(j *job) { j.wait(gate); tokens(2)(j) }, func(c *ingest.Config) {
		c.HoldStatus, c.Heartbeat = 30*time.Millisecond, 30*time.Millisecond
	})
	c := n.tenant("acme")
	sub := c.open(chatSubject, bareStream)
	first := next(t, sub)
	id := first.Header.Get(schemas.HeaderRequestID)
	if string(first.Data) != "\n" || id == "" || len(first.Header) != 1 {
		t.Fatalf("the sign of life is %v %q", first.Header, first.Data)
	}
	next(t, sub) // another after the next silence
	eventually(t, "the queued request can be found", func() bool { return len(n.chain(schemas.Identity{Tenant: "acme", Request: id}).Frames) > 0 })
	close(gate)
	all, err := collect(sub)
	if err != nil {
		t.Fatal(err)
	}
	var events reply
	for _, m := range all {
		if strings.TrimSpace(string(m.Data)) != "" {
			events = append(events, m)
		}
	}
	events.wantsEvents(t, 0, 2)
}

// The plain request of a client library takes the first message for the response, however long that takes.
func TestServiceUnaryIsOneMessage(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	n := setupNATS(t, func(j *job) { j.wait(gate); j.start(); j.respond(`{"object":"chat.completion"}`) }, func(c *ingest.Config) {
		c.HoldStatus, c.Heartbeat = 10*time.Millisecond, 10*time.Millisecond
	})
	c := n.tenant("acme")
	id := schemas.Identity{Tenant: "acme", Request: "slow"}
	sub := c.open(chatSubject, bare, "Llm-Request-Id", id.Request)
	eventually(t, "the queued request can be found", func() bool { return len(n.chain(id).Frames) > 0 })
	if msg, err := sub.NextMsg(200 * time.Millisecond); err == nil {
		t.Errorf("a message before the response: %v %q", msg.Header, msg.Data)
	}
	asked := c.open(chatSubject, bare, "Llm-Request-Id", id.Request, "Llm-Stream-Events", "1")
	if sign := next(t, asked); string(sign.Data) != "\n" {
		t.Errorf("the sign that was asked for is %v %q", sign.Header, sign.Data)
	}
	close(gate)
	if all, err := collect(sub); err != nil || len(all) != 1 {
		t.Errorf("the answer is\n%s, %v", all, err)
	}
}

func TestServiceLeaving(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, func(j *job) {
		j.start()
		for !j.fenced && j.ctx.Err() == nil {
			j.delta(1)
			<-time.After(20 * time.Millisecond)
		}
	}, patience(50*time.Millisecond, time.Minute))
	leave := func(c *caller, header ...string) schemas.Identity {
		sub := c.open(chatSubject, bareStream, header...)
		id := next(t, sub).Header.Get(schemas.HeaderRequestID)
		if err := sub.Unsubscribe(); err != nil {
			t.Fatal(err)
		}
		return schemas.Identity{Tenant: "acme", Request: id}
	}
	for name, c := range map[string]*caller{"tenant": n.tenant("acme"), "trusted": n.trusted()} {
		if e, err := schemas.DecodeError(n.terminal(leave(c)).Data); err != nil || e.Code != schemas.CodeCancelled {
			t.Errorf("%s: the request ended with %v, %v", name, e, err)
		}
		kept := leave(c, "Llm-On-Disconnect", "continue")
		n.stays(kept, 1500*time.Millisecond) // longer than it takes to notice
		if err := n.bus.CancelRequest(t.Context(), kept, schemas.Errorf(schemas.CodeCancelled, "enough")); err != nil {
			t.Fatal(err)
		}
	}
}

// A response comes as the chunks that it is made of, which are the same whether it streams or not. In background it goes on
// without its caller.
func TestServiceResponses(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, func(j *job) { j.start(); j.delta(2); j.delta(1); j.end() })
	for _, body := range []string{`{"input":"hi"}`, `{"input":"hi","stream":true}`, `{"input":"hi","background":true}`} {
		n.tenant("acme").ask(chatSubject, body, "Llm-Op", "responses").wantsEvents(t, 0, 3)
	}
}

func TestServiceBackground(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, func(j *job) {
		j.start()
		for !j.fenced && j.ctx.Err() == nil {
			j.delta(1)
			<-time.After(20 * time.Millisecond)
		}
	}, patience(50*time.Millisecond, 50*time.Millisecond))
	sub := n.tenant("acme").open(chatSubject, `{"input":"hi","background":true}`, "Llm-Op", "responses")
	id := schemas.Identity{Tenant: "acme", Request: next(t, sub).Header.Get(schemas.HeaderRequestID)}
	if err := sub.Unsubscribe(); err != nil {
		t.Fatal(err)
	}
	n.stays(id, 1500*time.Millisecond) // longer than it takes to notice
	if err := n.bus.CancelRequest(t.Context(), id, schemas.Errorf(schemas.CodeCancelled, "enough")); err != nil {
		t.Fatal(err)
	}
}

func TestServiceLargeAnswers(t *testing.T) {
	t.Parallel()
	line := func(kib int) string { return `{"choices":[],"x":"` + strings.Repeat("x", kib<<10) + `"}` }
	lines := []string{line(300), line(300), line(300), line(300), line(2500), line(1), line(1)}
	n := setupNATS(t, func(j *job) {
		j.start()
		if j.request.Header["Llm-Cache"] != nil {
			j.respond(line(3000))
			return
		}
		j.write(&schemas.Frame{Kind: schemas.KindDelta, Count: len(lines), Data: []byte(strings.Join(lines, "\n"))})
		j.end()
	})
	c := n.tenant("acme")
	unary := joined(t, c.ask(chatSubject, bare, "Llm-Cache", "off"))
	if len(unary) != 1 || unary[0] != line(3000) {
		t.Errorf("%d responses", len(unary))
	}
	if diff := cmp.Diff(lines, joined(t, c.ask(chatSubject, bareStream))); diff != "" {
		t.Errorf("events differ: %.300s", diff)
	}
}

// joined are the events of an answer, as a client puts them together.
func joined(t *testing.T, r reply) (events []string) {
	t.Helper()
	var part strings.Builder
	for _, m := range r {
		if p := m.Header.Get(schemas.HeaderPart); p != "" {
			part.Write(m.Data)
			n, of, _ := strings.Cut(p, "/")
			if n == of {
				events = append(events, part.String())
				part.Reset()
			}
			continue
		}
		f, err := schemas.DecodeFrame(schemas.Header(m.Header), m.Data)
		if err != nil || f.Index != uint64(len(events)) {
			t.Fatalf("message %v after %d events: %v", m.Header, len(events), err)
		}
		for _, e := range f.Events() {
			events = append(events, string(e))
		}
	}
	return events
}

func TestServiceResumes(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	n := setupNATS(t, func(j *job) { j.start(); j.delta(3); j.wait(gate); j.delta(2); j.end() })
	c := n.tenant("acme")
	sub := c.open(chatSubject, bareStream)
	id := next(t, sub).Header.Get(schemas.HeaderRequestID)
	if err := sub.Unsubscribe(); err != nil { // the answer is cut
		t.Fatal(err)
	}
	running := c.open("llm.resume.acme."+id, "0")
	reply{next(t, running)}.wantsEvents(t, 1, 3)
	close(gate)
	rest, err := collect(running)
	if err != nil {
		t.Fatal(err)
	}
	rest.wantsEvents(t, 3, 5)
	for cursor, first := range map[string]int{"": 0, "1": 2, "3": 4, "4": 5, id + ".2": 3, " 2\n": 3} {
		c.ask("llm.resume.acme."+id, cursor).wantsEvents(t, first, 5)
	}
	for _, cursor := range []string{"x", "-1", "5", "other.1", `{"a":1}`} {
		c.ask("llm.resume.acme."+id, cursor).wantsError(t, "400", "invalid_value")
	}
	n.tenant("other").ask("llm.resume.other."+id, "").wantsError(t, "404", "stream_not_found")
}

// A resume may ask for the result instead of the events, and a request for no more than to be accepted.
func TestServiceResult(t *testing.T) {
	t.Parallel()
	gate := make(chan struct{})
	n := setupNATS(t, func(j *job) { j.start(); j.wait(gate); j.respond(`{"answer":1}`) })
	c := n.tenant("acme")
	got := c.ask(chatSubject, bare, "Prefer", "respond-async", "Llm-Request-Id", "mine")
	if len(got) != 1 || string(got[0].Data) != `{"id":"mine"}` || got.id() != "mine" {
		t.Fatalf("the answer is\n%s", got)
	}
	status := func() gjson.Result { return gjson.ParseBytes(c.ask("llm.resume.acme.mine", "result")[0].Data) }
	if s := status().Get("status").Str; s != "queued" && s != "running" {
		t.Errorf("while it runs: %s", status())
	}
	c.ask(chatSubject, bare+" ", "Prefer", "respond-async", "Llm-Request-Id", "mine").wantsError(t, "422", "idempotency_mismatch")
	close(gate)
	eventually(t, "the result", func() bool { return status().Get("status").Str == "completed" })
	if s := status(); s.Get("response.answer").Int() != 1 || s.Get("id").Str != "mine" {
		t.Errorf("the result is %s", s)
	}
	n.tenant("other").ask("llm.resume.other.mine", "result").wantsError(t, "404", "stream_not_found")
}

// A tenant's cancel is certain although nobody works on the request.
func TestServiceCancels(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, func(j *job) { j.start(); j.wait(nil) })
	c := n.tenant("acme")
	for i, send := range []func(string){
		func(subject string) {
			got := c.ask(subject, "")
			if len(got) != 1 || gjson.GetBytes(got[0].Data, "status").Str != "cancelled" {
				t.Errorf("the answer is\n%s", got)
			}
		},
		func(subject string) { c.send(subject, "", "") },                               // as a hint
		func(subject string) { c.send(subject, "_INBOX_other.x", "") },                 // no place for an answer is no reason not to
		func(subject string) { n.trusted().send(subject, "", ""); c.ask(subject, "") }, // beside a hint in the other account
	} {
		id := schemas.Identity{Tenant: "acme", Request: "cancel-" + string(rune('a'+i))}
		sub := c.open(chatSubject, bareStream, "Llm-Request-Id", id.Request)
		eventually(t, "the start", func() bool { return n.chain(id).Start() != nil })
		send("llm.cancel.acme." + id.Request)
		if e, err := schemas.DecodeError(n.terminal(id).Data); err != nil || e.Code != schemas.CodeCancelled {
			t.Errorf("ended with %v, %v", e, err)
		}
		got, err := collect(sub)
		if err != nil {
			t.Fatal(err)
		}
		got.wantsError(t, "499", "request_cancelled")
	}
}

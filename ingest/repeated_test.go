package ingest_test

import (
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

// orphan stores a request and tells nobody, as an ingest does that dies right after it.
func orphan(t *testing.T, b *bus.Bus, op schemas.Op, id schemas.Identity, body string) {
	t.Helper()
	if _, err := b.Accept(t.Context(), &schemas.Request{Identity: id, ModelToken: "m-1=2E5", Op: op, Body: []byte(body)}); err != nil {
		t.Fatal(err)
	}
}

func TestRepeatOfARequestThatNobodyToldOf(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	one := setupOn(t, bustest.Connect(t, server, bus.Config{}), nil)
	two := setupOn(t, bustest.Connect(t, server, bus.Config{}), nil)
	orphan(t, one.bus, schemas.OpChat, of("mine"), unary)

	one.chat(otherBody, "Llm-Request-Id", "mine", "Prefer", "respond-async").wants(t, 422, "idempotency_mismatch", "Idempotency-Key")
	one.ask("POST", "/v1/embeddings", `{"model":"m-1.5","input":"hi"}`, "Llm-Request-Id", "mine").wants(t, 422, "idempotency_mismatch")
	two.ask("GET", "/v1/streams/mine/result", "").wants(t, 404)
	got := one.chat(unary, "Llm-Request-Id", "mine", "Prefer", "respond-async").wants(t, 202, `"id":"mine"`)
	if replayed := got.header.Get("Idempotent-Replayed"); replayed != "false" {
		t.Errorf("replayed: %s, although nobody was told of it before", replayed)
	}
	two.ask("GET", "/v1/streams/mine/result", "").wants(t, 202)
	got = two.chat(unary, "Llm-Request-Id", "mine", "Prefer", "respond-async").wants(t, 202, `"id":"mine"`)
	if replayed := got.header.Get("Idempotent-Replayed"); replayed != "true" {
		t.Errorf("replayed: %s, although it can be found", replayed)
	}
	two.ask("POST", "/v1/streams/mine/cancel", "").wants(t, 200, `"status":"cancelled"`)
}

func TestRepeatOfABackgroundResponseThatNobodyToldOf(t *testing.T) {
	t.Parallel()
	w := setup(t, nil)
	orphan(t, w.bus, schemas.OpResponses, of("mine"), respondLater)
	w.respond(respondLater, "Llm-Request-Id", "mine").wants(t, 200, `"status":"queued"`, `"id":"resp_mine"`)
	w.response("resp_mine").wants(t, 200, `"status":"queued"`)
}

func TestTenantSendsARequestAgainThatNobodyToldOf(t *testing.T) {
	t.Parallel()
	n := setupNATS(t, nil)
	orphan(t, n.bus, schemas.OpChat, schemas.Identity{Tenant: "acme", Request: "mine"}, unary)
	got := n.tenant("acme").ask(chatSubject, unary, "Llm-Request-Id", "mine", "Prefer", "respond-async")
	if len(got) != 1 || string(got[0].Data) != `{"id":"mine"}` {
		t.Errorf("the answer is\n%s", got)
	}
}

// Whoever stored the request may be about to cancel it because its caller has left.
func TestRepeatIsAnnounced(t *testing.T) {
	t.Parallel()
	w := setup(t, nil, patience(time.Hour, 24*time.Hour))
	heard := make(chan schemas.Identity, 8)
	stop, err := w.bus.OnAttach(func(id schemas.Identity) { heard <- id })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	orphan(t, w.bus, schemas.OpChat, of("mine"), unary)
	w.chat(unary, "Llm-Request-Id", "new", "Prefer", "respond-async").wants(t, 202)
	w.chat(unary, "Llm-Request-Id", "mine", "Prefer", "respond-async").wants(t, 202)
	select {
	case id := <-heard:
		if id != of("mine") {
			t.Errorf("%s is announced", id)
		}
	case <-time.After(longEnough):
		t.Error("nothing is announced")
	}
}

// The answer of JetStream is lost behind the door, which sends the request again and is told that it is a copy.
func TestLostAnswerBehindTheDoor(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	proxy := bustest.NewProxy(t, server.ClientURL())
	near := setupOn(t, bustest.Connect(t, server, bus.Config{}), nil)
	far := setupOn(t, bustest.Connect(t, server, bus.Config{URL: proxy.URL()}), nil)
	allowance := &schemas.Allowance{Tokens: schemas.Quota{Limit: 1000, Remaining: 900}}
	for _, header := range [][]string{{"Llm-Request-Id", "mine"}, {}} {
		lost := proxy.At(bustest.ToClient, `"stream":"`+schemas.StreamRequests+`"`, bustest.Hold)
		got := make(chan answer, 1)
		go func() { got <- far.chat(unary, header...) }()
		<-lost
		proxy.Cut()
		if len(header) > 0 {
			eventually(t, "it is found while it waits", func() bool { return near.ask("GET", "/v1/streams/mine/result", "").status == 202 })
		}
		t.Run("answered", func(t *testing.T) { // the fake ends with it
			serveJobs(t, near.bus, func(j *job) {
				j.write(&schemas.Frame{Kind: schemas.KindStart, BodyHash: schemas.BodyHash(j.request.Body), Start: j.claim(), Allowance: allowance.String()})
				j.respond(`{"answer":1}`)
			})
			all := (<-got).wants(t, 200, `{"answer":1}`)
			if all.header.Get("X-Ratelimit-Limit-Tokens") != "1000" || all.header.Get("Idempotent-Replayed") == "true" {
				t.Errorf("the first answer to %q has headers %v", header, all.header)
			}
		})
	}
}

// One that was taken up in between has frames soon, which tell whose it is.
func TestRepeatOfARequestThatWasTakenUp(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	w := setupOn(t, bustest.Connect(t, server, bus.Config{}), nil)
	orphan(t, w.bus, schemas.OpChat, of("mine"), streaming)
	jobs := make(chan *job, 1)
	serveJobs(t, w.bus, func(j *job) { jobs <- j })
	j := <-jobs
	eventually(t, "it waits no more", func() bool {
		got, err := w.bus.Accept(t.Context(), j.request)
		return err == nil && !got.Waits
	})
	stranger := bustest.Trusted(t, server)
	sent, err := stranger.SubscribeSync(schemas.RequestsAll)
	if err == nil {
		err = stranger.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	answers := make(chan answer, 2)
	for _, body := range []string{streaming, otherBody} {
		go func() { answers <- w.chat(body, "Llm-Request-Id", "mine") }()
	}
	next(t, sent)
	next(t, sent)
	tokens(1)(j)
	statuses := map[int]int{}
	for range cap(answers) {
		got := <-answers
		if statuses[got.status]++; got.status == 200 && got.header.Get("Idempotent-Replayed") != "true" {
			t.Errorf("headers %v", got.header)
		}
	}
	if statuses[200] != 1 || statuses[422] != 1 {
		t.Errorf("statuses %v", statuses)
	}
}

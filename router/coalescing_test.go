package router_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/eventlog"
	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/schemas"
)

const (
	unary    = `{"model":"m","temperature":0,"messages":[{"role":"user","content":"hi"}]}`
	streamed = `{"model":"m","temperature":0,"stream":true,"messages":[{"role":"user","content":"hi"}]}`
)

// shared runs a router whose tenants share runs, beside a worker that only says that it has room: the test is the worker.
func shared(t *testing.T) *pipeline {
	p := setup(t)
	p.routeOn(sharing(p.bus, "r1"))
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 1000})
	return p
}

func sharing(b *bus.Bus, name string) router.Config {
	cfg := router.Config{Bus: b, Name: name}
	cfg.Cache.Policy = func(string) router.CachePolicy { return router.CachePolicy{Coalesce: router.CoalesceOn} }
	return cfg
}

// event is a chunk of an answer with an id and a time.
func event(text, id, created string) string {
	return fmt.Sprintf(`{"id":%q,"object":"chat.completion.chunk","created":%s,"choices":[{"index":0,"delta":{"content":%q}}]}`, id, created, text)
}

// start claims a chain as a worker does, or goes on with it.
func (p *pipeline) start(id string, attempt int, work uint64) {
	p.t.Helper()
	p.append(id, &schemas.Frame{
		Kind: schemas.KindStart, Attempt: attempt, Writer: fmt.Sprint("W", attempt),
		Start: &schemas.Start{Mode: schemas.ModeFresh, Work: work, Dispatch: 1, Worker: "w1"},
	})
}

func (p *pipeline) say(id string, attempt int, texts ...string) {
	p.t.Helper()
	var events []string
	for _, text := range texts {
		events = append(events, event(text, "upstream", "1"))
	}
	p.append(id, &schemas.Frame{
		Kind: schemas.KindDelta, Attempt: attempt, Writer: fmt.Sprint("W", attempt), Count: len(events), Data: []byte(strings.Join(events, "\n")),
	})
}

var spent = &schemas.Usage{PromptTokens: 3, CompletionTokens: 2, TotalTokens: 5}

func (p *pipeline) end(id string, attempt int) {
	p.t.Helper()
	summary := &schemas.Summary{
		Status: schemas.StatusCompleted, FinishReasons: []string{"stop"}, Usage: spent, Attempts: attempt, Tries: []schemas.Try{{Attempt: 1, Backend: "b"}},
	}
	p.append(id, &schemas.Frame{Kind: schemas.KindEnd, Attempt: attempt, Writer: fmt.Sprint("W", attempt), Data: summary.Encode()})
}

func (p *pipeline) fail(id string, attempt int, reason *schemas.Error) {
	p.t.Helper()
	p.append(id, &schemas.Frame{
		Kind: schemas.KindError, Attempt: attempt, Writer: fmt.Sprint("W", attempt), Data: reason.Encode(),
		Summary: (&schemas.Summary{Status: schemas.StatusOf(reason)}).Encode(),
	})
}

// follows waits until a request says that it is given the answer of another.
func (p *pipeline) follows(id, leader string) {
	p.t.Helper()
	p.poll(id+" to follow "+leader, func() bool {
		chain, err := p.bus.Chain(p.ctx, acme(id))
		return err == nil && chain.Leader() == leader
	})
}

// told reads a chain to its end: its events, which it checks to be without a gap or a duplicate, and its terminal frame.
func (p *pipeline) told(id string) (texts []string, terminal *schemas.Frame) {
	p.t.Helper()
	next := uint64(0)
	for f, err := range p.bus.Read(p.ctx, acme(id), bus.ReadOptions{}) {
		if err != nil {
			p.t.Fatalf("read %s: %v", id, err)
		}
		for index, event := range f.Events() {
			if index != next {
				p.t.Errorf("%s has event %d where %d belongs", id, index, next)
			}
			next++
			texts = append(texts, string(event))
		}
		terminal = f
	}
	return texts, terminal
}

// wantCopy checks the whole answer of a follower, said as its own, and its result.
func (p *pipeline) wantCopy(id string, texts ...string) {
	p.t.Helper()
	got, terminal := p.told(id)
	if terminal.Kind != schemas.KindEnd {
		p.t.Fatalf("%s ended with %s", id, terminal.Data)
	}
	result := p.result(id)
	var want []string
	for _, text := range texts {
		want = append(want, event(text, "chatcmpl-"+strings.TrimPrefix(id, "req_"), fmt.Sprint(result.Accepted.Unix())))
	}
	if diff := cmp.Diff(want, got); diff != "" {
		p.t.Errorf("the answer to %s (-want +got):\n%s", id, diff)
	}
	var kept []string
	for f, err := range eventlog.Frames(result.Events, result.Accepted) {
		if err != nil {
			p.t.Fatal(err)
		}
		for _, event := range f.Events() {
			kept = append(kept, string(event))
		}
	}
	if diff := cmp.Diff(want, kept); diff != "" {
		p.t.Errorf("the result of %s keeps (-want +got):\n%s", id, diff)
	}
	if result.Cache != schemas.CacheCoalesced || len(result.Tries) != 0 || result.Usage == nil || result.Usage.TotalTokens != spent.TotalTokens || result.Status != schemas.StatusCompleted {
		p.t.Errorf("the result of %s: cache %q, %d tries, usage %v, status %s", id, result.Cache, len(result.Tries), result.Usage, result.Status)
	}
}

func (p *pipeline) result(id string) (result *schemas.Result) {
	p.t.Helper()
	p.poll("the result of "+id, func() bool {
		r, err := p.bus.Result(p.ctx, acme(id))
		result = r
		return err == nil
	})
	return result
}

func (p *pipeline) wantDispatches(n uint64) {
	p.t.Helper()
	s, err := p.js.Stream(p.ctx, schemas.StreamWork)
	if err != nil {
		p.t.Fatal(err)
	}
	if got := s.CachedInfo().State.LastSeq; got != n {
		p.t.Errorf("%d work items were written, want %d", got, n)
	}
}

func TestAFollowerIsGivenTheAnswerLive(t *testing.T) {
	p := shared(t)
	p.publish("m", streamed, withID("req_lead"))
	p.work(1)
	p.publish("m", streamed, withID("req_early"))
	p.follows("req_early", "req_lead")
	p.start("req_lead", 1, 1)
	p.say("req_lead", 1, "a", "b")
	p.poll("the first events to be copied", func() bool {
		chain, err := p.bus.Chain(p.ctx, acme("req_early"))
		return err == nil && chain.Next() == 2
	})
	p.publish("m", streamed, withID("req_late"))
	p.follows("req_late", "req_lead")
	p.start("req_lead", 2, 1) // its worker was lost, and another goes on
	p.say("req_lead", 2, "c")
	p.end("req_lead", 2)
	p.wantCopy("req_early", "a", "b", "c")
	p.wantCopy("req_late", "a", "b", "c")
	p.wantAllSettled()
	p.wantDispatches(1)
}

func TestManyFollowersOfAUnaryAnswer(t *testing.T) {
	const many = 200
	p := shared(t)
	p.publish("m", unary, withID("req_lead"))
	p.work(1)
	for n := range many {
		p.publish("m", unary, withID(fmt.Sprintf("req_%d", n)))
	}
	p.start("req_lead", 1, 1)
	p.poll("all to be held", func() bool { return p.ackPending() == many })
	answer := `{"id":"upstream","object":"chat.completion","created":1,"choices":[]}`
	p.append("req_lead", &schemas.Frame{
		Kind: schemas.KindEnd, Attempt: 1, Writer: "W1", Count: 1, Data: []byte(answer),
		Summary: (&schemas.Summary{Status: schemas.StatusCompleted, Usage: spent, Attempts: 1}).Encode(),
	})
	for n := range many {
		result := p.result(fmt.Sprintf("req_%d", n))
		want := fmt.Sprintf(`{"id":"chatcmpl-%d","object":"chat.completion","created":%d,"choices":[]}`, n, result.Accepted.Unix())
		if got, _ := p.told(fmt.Sprintf("req_%d", n)); len(got) != 1 || got[0] != want || string(result.Response) != want || result.Cache != schemas.CacheCoalesced {
			t.Fatalf("answer %d = %s, its result %s (%s), want %s", n, got, result.Response, result.Cache, want)
		}
	}
	p.wantAllSettled()
	p.wantDispatches(1)
}

func TestWhoSharesNoRun(t *testing.T) {
	p := shared(t)
	p.publish("m", streamed, withID("req_lead"))
	p.work(1)
	for n, other := range []struct{ body, header, value string }{
		{unary, "", ""},
		{strings.Replace(streamed, `"stream":true`, `"stream":true,"stream_options":{"include_usage":true}`, 1), "", ""},
		{strings.Replace(streamed, "hi", "ho", 1), "", ""},
		{strings.Replace(streamed, `"temperature":0`, `"temperature":1`, 1), "", ""},
		{streamed, schemas.HeaderCoalesce, "off"},
		{streamed, schemas.HeaderCache, "off"},
		{streamed, schemas.HeaderCache, "refresh"},
		{streamed, schemas.HeaderCacheNamespace, "bob"},
	} {
		header := withID(fmt.Sprint("req_", n))
		if other.header != "" {
			header[other.header] = []string{other.value}
		}
		p.publish("m", other.body, header)
		if w := p.work(uint64(n + 2)); w.Identity.Request != fmt.Sprint("req_", n) {
			t.Errorf("%s runs in the place of req_%d", w.Identity, n)
		}
	}
	ack, err := p.js.PublishMsg(p.ctx, &nats.Msg{Subject: "llm.requests.other.m", Data: []byte(streamed), Header: withID("req_lead")})
	if err != nil {
		t.Fatal(ack, err)
	}
	if w := p.work(10); w.Tenant != "other" {
		t.Errorf("%s runs in the place of another tenant's request", w.Identity)
	}
}

func TestWithoutAskingEachRuns(t *testing.T) {
	p := setup(t)
	p.route()
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 10})
	p.publish("m", unary, withID("req_1"))
	p.publish("m", unary, withID("req_2"))
	p.work(2)
	p.publish("m", unary, nats.Header{schemas.HeaderRequestID: {"req_3"}, schemas.HeaderCache: {"on"}})
	p.work(3)
	p.publish("m", unary, nats.Header{schemas.HeaderRequestID: {"req_4"}, schemas.HeaderCache: {"on"}})
	p.follows("req_4", "req_3") // who wants the cache also shares runs
	p.publish("m", unary, nats.Header{schemas.HeaderRequestID: {"req_5"}, schemas.HeaderCoalesce: {"on"}})
	p.wantError("req_5", schemas.CodeInvalidValue)
}

// wantError waits for the error of a request, while others are still held.
func (p *pipeline) wantError(id string, code schemas.Code) {
	p.t.Helper()
	_, terminal := p.told(id)
	if e, err := schemas.DecodeError(terminal.Data); err != nil || e.Code != code {
		p.t.Errorf("%s ended with %s %s, want %s", id, terminal.Kind, terminal.Data, code)
	}
}

func TestAnAnswerThatEndedBeforeIsNotShared(t *testing.T) {
	p := shared(t)
	p.publish("m", streamed, withID("req_lead"))
	p.work(1)
	p.start("req_lead", 1, 1)
	p.end("req_lead", 1)
	p.publish("m", streamed, withID("req_next"))
	if w := p.work(2); w.Identity.Request != "req_next" {
		t.Errorf("%s was dispatched", w.Identity)
	}
	p.publish("m", streamed, withID("req_after"))
	p.follows("req_after", "req_next")
}

func TestAFollowerLeaves(t *testing.T) {
	p := shared(t)
	p.publish("m", streamed, withID("req_lead"))
	p.work(1)
	late := withID("req_late")
	late[schemas.HeaderDeadline] = []string{fmt.Sprint(time.Now().Add(8 * time.Second).UnixMilli())}
	p.publish("m", streamed, late)
	p.publish("m", streamed, withID("req_cancelled"))
	p.follows("req_late", "req_lead")
	p.follows("req_cancelled", "req_lead")
	p.start("req_lead", 1, 1)
	p.say("req_lead", 1, "a")
	p.poll("the event to be copied", func() bool {
		chain, err := p.bus.Chain(p.ctx, acme("req_cancelled"))
		return err == nil && chain.Next() == 1
	})
	if err := p.bus.Cancel(acme("req_cancelled"), schemas.CancelledByCaller); err != nil {
		t.Fatal(err)
	}
	p.wantError("req_cancelled", schemas.CodeCancelled)
	p.wantError("req_late", schemas.CodeDeadline)
	if texts, _ := p.told("req_cancelled"); len(texts) != 1 {
		t.Errorf("%d events, want the one that was said", len(texts))
	}
	p.wantAllSettled()
	p.say("req_lead", 1, "b") // it goes on by itself, and is followed again
	p.publish("m", streamed, withID("req_again"))
	p.follows("req_again", "req_lead")
	p.end("req_lead", 1)
	p.wantCopy("req_again", "a", "b")
}

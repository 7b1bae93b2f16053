package inference_test

import (
	"context"
	"encoding/json"
	"fmt"
	"iter"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/internal/anthropic/anthropictest"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// Bodies of messages requests.
const (
	messagesGreedy  = `{"model":"m","max_tokens":9,"stream":true,"temperature":0,"messages":[{"role":"user","content":"hi"}]}`
	messagesSampled = `{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":"hi"}]}`
	messagesWhole   = `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`
)

func opWork(id string, op schemas.Op, body string) *schemas.Work {
	w := work(id, 1, body)
	w.Op = op
	return w
}

// speaker is a fake that speaks the messages dialect itself.
type speaker struct{ *fake }

func (s speaker) Capabilities() inference.Capabilities {
	return inference.Capabilities{Deterministic: s.deterministic, Ops: []schemas.Op{schemas.OpMessages}}
}

func (s speaker) Generate(ctx context.Context, r *inference.GenerateRequest) iter.Seq2[inference.Event, error] {
	return func(yield func(inference.Event, error) bool) {
		call := int(s.calls.Add(1))
		events := anthropictest.Answer(s.words...)
		var a anthropic.Answer
		var e anthropic.Event
		for i, data := range events {
			if err := s.pass(ctx, call, i-2); err != nil {
				yield(inference.Event{}, err)
				return
			}
			if err := e.Peek([]byte(data)); err != nil {
				panic(err)
			}
			c := &openai.Chunk{}
			a.Add(&e)
			a.Note(&e, c)
			if !yield(inference.Event{Data: []byte(data), Chunk: c}, nil) {
				return
			}
		}
	}
}

// saidMessage is what a reader of messages events has.
type saidMessage struct {
	text, stop string
	starts     int
	stopped    bool
	indexes    string // of what happened to blocks
	ids        map[string]bool
}

// message reads the stored events of a chain.
func (p *pipe) message(id schemas.Identity) (m saidMessage) {
	p.t.Helper()
	m.ids = map[string]bool{}
	for _, data := range p.chain(id).Events() {
		var e struct {
			Type    string
			Index   int
			Message struct{ ID string }
			Delta   struct {
				Text       string
				StopReason string `json:"stop_reason"`
			}
		}
		if err := json.Unmarshal(data, &e); err != nil || m.stopped {
			p.t.Fatalf("%v: %s", err, data)
		}
		m.text += e.Delta.Text
		switch e.Type {
		case anthropic.MessageStart:
			m.starts++
			m.ids[e.Message.ID] = true
		case anthropic.ContentBlockStart:
			m.indexes += fmt.Sprintf("+%d", e.Index)
		case anthropic.ContentBlockStop:
			m.indexes += fmt.Sprintf("-%d", e.Index)
		case anthropic.MessageDelta:
			m.stop += e.Delta.StopReason
		case anthropic.MessageStop:
			m.stopped = true
		}
	}
	return m
}

func TestMessagesTakeOver(t *testing.T) {
	t.Parallel()
	words := []string{"one ", "two ", "three ", "four"}
	for name, c := range map[string]struct {
		body          string
		native        bool
		deterministic bool
		lostAt        int
		second        []string
		text          string
		code          schemas.Code
		modes         string
	}{
		"translated, before the first token":   {body: messagesSampled, second: []string{"other ", "words"}, text: "other words", modes: "fresh fresh"},
		"translated, in the middle":            {body: messagesGreedy, deterministic: true, lostAt: 2, second: words, text: "one two three four", modes: "fresh splice"},
		"translated, cut in other places":      {body: messagesGreedy, deterministic: true, lostAt: 2, second: []string{"o", "ne two thr", "ee four"}, text: "one two three four", modes: "fresh splice"},
		"translated, before the end":           {body: messagesGreedy, deterministic: true, lostAt: 4, second: words, text: "one two three four", modes: "fresh splice"},
		"translated, something else":           {body: messagesGreedy, deterministic: true, lostAt: 2, second: []string{"one ", "too "}, text: "one two ", code: schemas.CodeStreamDiverged, modes: "fresh splice"},
		"translated, sampled":                  {body: messagesSampled, deterministic: true, lostAt: 2, second: words, text: "one two ", code: schemas.CodeUpstreamInterrupted, modes: "fresh"},
		"native, before the first token":       {body: messagesSampled, native: true, second: []string{"other ", "words"}, text: "other words", modes: "fresh fresh"},
		"native, in the middle, deterministic": {body: messagesGreedy, native: true, deterministic: true, lostAt: 2, second: words, text: "one two three four", modes: "fresh splice"},
		"native, cut in other places":          {body: messagesGreedy, native: true, deterministic: true, lostAt: 2, second: []string{"o", "ne two thr", "ee four"}, text: "one two three four", modes: "fresh splice"},
		"native, something else":               {body: messagesGreedy, native: true, deterministic: true, lostAt: 2, second: []string{"one ", "too "}, text: "one two ", code: schemas.CodeStreamDiverged, modes: "fresh splice"},
		"native, shorter":                      {body: messagesGreedy, native: true, deterministic: true, lostAt: 2, second: []string{"one "}, text: "one two ", code: schemas.CodeStreamDiverged, modes: "fresh splice"},
		"native, in the middle":                {body: messagesGreedy, native: true, lostAt: 2, second: words, text: "one two ", code: schemas.CodeUpstreamInterrupted, modes: "fresh"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			id := identity("req_1")
			held := stallAt(1, c.lostAt)
			if c.native && c.lostAt == 0 {
				held = stallAt(1, -2)
			}
			backend := func(f *fake) inference.Backend {
				if c.native {
					return speaker{f}
				}
				return f
			}
			lost := p.worker("w1", backend(&fake{words: words, deterministic: c.deterministic, gate: held.gate}))
			item := p.dispatch(opWork(id.Request, schemas.OpMessages, c.body))
			wait(t, "the call", held.reached)
			p.until("the claim", func() bool { return p.chain(id).Start() != nil })
			if c.lostAt > 0 {
				p.visible(id, uint64(c.lostAt)+2) // the message and its block begin with an event each
			}
			lost.kill()
			t.Cleanup(lost.stop)
			p.worker("w2", backend(&fake{words: c.second, deterministic: c.deterministic}))
			p.tap.nak(item, 1)
			result := p.ended(id)
			got := p.message(id)
			code := schemas.Code("")
			if len(result.Error) > 0 {
				e, err := schemas.DecodeError(result.Error)
				if err != nil {
					t.Fatal(err)
				}
				code = e.Code
			}
			if got.text != c.text || code != c.code || got.starts != 1 || len(got.ids) != 1 {
				t.Errorf("readers saw %q and %q in %d messages, want %q and %q in one", got.text, code, got.starts, c.text, c.code)
			}
			if whole := got.stopped && got.stop == "end_turn" && got.indexes == "+0-0"; whole != (c.code == "") {
				t.Errorf("the answer ends with stop reason %q, stopped %v, blocks %s", got.stop, got.stopped, got.indexes)
			}
			if got := modes(p.chain(id)); got != c.modes {
				t.Errorf("modes %s, want %s", got, c.modes)
			}
			if op := p.chain(id).Op(); op != schemas.OpMessages || result.Op != op {
				t.Errorf("the chain is of op %s, the result of %s", op, result.Op)
			}
			if c.code == "" && !cmp.Equal(result.FinishReasons, []string{"stop"}) {
				t.Errorf("finish reasons %q", result.FinishReasons)
			}
		})
	}
}

func TestMessagesUnary(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.worker("w1", &fake{words: []string{"one ", "two"}})
	id := identity("req_1")
	p.dispatch(opWork(id.Request, schemas.OpMessages, messagesWhole))
	got := p.ended(id)
	var m struct {
		ID, Type, Model string
		Content         []struct{ Type, Text string }
		StopReason      string `json:"stop_reason"`
	}
	if err := json.Unmarshal(got.Response, &m); err != nil {
		t.Fatal(err)
	}
	if m.ID != "msg_1" || m.Type != "message" || m.Model != "m" || m.StopReason != "end_turn" || len(m.Content) != 1 || m.Content[0].Text != "one two" {
		t.Errorf("response %s", got.Response)
	}
}

// TestCountTokens runs on a backend that cannot count, which is not called for it.
func TestCountTokens(t *testing.T) {
	t.Parallel()
	p := setup(t)
	backend := &fake{}
	p.worker("w1", backend)
	id := identity("r1")
	body := `{"model":"m","messages":[{"role":"user","content":"` + strings.Repeat("word ", 720) + `"}]}`
	p.dispatch(opWork(id.Request, schemas.OpCountTokens, body))
	got := p.ended(id)
	var counted struct {
		Tokens int `json:"input_tokens"`
	}
	if err := json.Unmarshal(got.Response, &counted); err != nil || counted.Tokens < 1000 || counted.Tokens > 1020 {
		t.Errorf("response %s, %v; want about 1000 tokens for 3600 bytes", got.Response, err)
	}
	if n := backend.calls.Load(); n != 0 || len(got.Tries) != 0 {
		t.Errorf("%d calls, %d tries", n, len(got.Tries))
	}
}

// TestMessagesThatCannotBeTranslated ends with an error that names the member, before any backend is called.
func TestMessagesThatCannotBeTranslated(t *testing.T) {
	t.Parallel()
	p := setup(t)
	backend := &fake{words: []string{"a"}}
	p.worker("w1", backend)
	for i, body := range []string{
		strings.Replace(messagesSampled, `"messages"`, `"mcp_servers":[{"url":"https://x"}],"messages"`, 1), messagesGreedy,
	} {
		w := opWork(fmt.Sprint("r", i), schemas.OpMessages, body)
		w.Header = schemas.Header{schemas.HeaderAnthropicVersion: {anthropic.Version2026}}
		p.dispatch(w)
		e, err := schemas.DecodeError(p.ended(w.Identity).Error)
		if want := []string{"mcp_servers", "temperature"}[i]; err != nil || e.Param != want {
			t.Errorf("error %v about %q, want %q", e, e.Param, want)
		}
	}
	if n := backend.calls.Load(); n != 0 {
		t.Errorf("%d calls", n)
	}
}

// TestTranslatedEventsLeaveAtOnce has a slow model: each token is visible before the next is said.
func TestTranslatedEventsLeaveAtOnce(t *testing.T) {
	t.Parallel()
	p := setup(t)
	said := make(chan int)
	p.worker("w1", &fake{words: []string{"a", "b", "c"}, gate: func(ctx context.Context, _, i int) error {
		select {
		case said <- i:
			return nil
		case <-ctx.Done():
			return inference.ContextError(ctx)
		}
	}})
	id := identity("r1")
	p.dispatch(opWork("r1", schemas.OpMessages, messagesSampled))
	for i := range 4 { // the model holds before word i, and before its end
		if i > 0 {
			p.visible(id, uint64(i)+2)
		}
		if p.chain(id).Visible() && p.message(id).stopped {
			t.Error("the message has stopped before the model has")
		}
		select {
		case <-said:
		case <-time.After(patience):
			t.Fatal("the model is not asked")
		}
	}
	p.ended(id)
	if m := p.message(id); m.text != "abc" || !m.stopped {
		t.Errorf("readers saw %+v", m)
	}
}

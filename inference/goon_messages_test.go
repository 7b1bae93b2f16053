package inference_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/anthropic"
	"github.com/weir-llm/weir/internal/anthropic/anthropictest"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	"github.com/weir-llm/weir/schemas"
)

// claude is a backend for an engine of the Messages protocol.
func claude(t *testing.T, how inference.Continuation, deterministic bool, e *anthropictest.Engine, idle time.Duration) inference.Backend {
	t.Helper()
	b, err := anthropic.New(anthropic.Config{
		Name: "claude", URL: e.URL, Continue: how, Deterministic: deterministic, Timeouts: inference.Timeouts{Idle: idle},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// message is a request of the messages dialect.
func message(id, members string) *schemas.Work {
	w := work(id, 1, `{"model":"m","stream":true,"max_tokens":100`+members+`,"messages":[{"role":"user","content":"hello"}]}`)
	w.Op = schemas.OpMessages
	return w
}

// told is a message as its reader understands it, which must not break a rule of the dialect.
type told struct {
	id, text, thought, signature, stop string
	tools                              int
	usage                              string // input, cache read, output
	whole                              bool
}

// relayed reads the events of a message as a strict client does.
func (p *pipe) relayed(id schemas.Identity) (m told) {
	p.t.Helper()
	open, next, input, cached := "", 0, int64(0), int64(0)
	for i, event := range p.chain(id).Events() {
		e := gjson.ParseBytes(event)
		kind, index := e.Get("type").Str, int(e.Get("index").Int())
		bad := m.whole || kind != "message_start" && m.id == ""
		switch kind {
		case "message_start":
			bad = m.id != ""
			m.id, input, cached = e.Get("message.id").Str, e.Get("message.usage.input_tokens").Int(), e.Get("message.usage.cache_read_input_tokens").Int()
		case "content_block_start":
			bad = bad || open != "" || index != next
			if open = e.Get("content_block.type").Str; open == "tool_use" {
				m.tools++
			}
		case "content_block_delta":
			bad = bad || open == "" || index != next
			m.text += e.Get("delta.text").Str
			m.thought += e.Get("delta.thinking").Str
			m.signature += e.Get("delta.signature").Str
		case "content_block_stop":
			bad = bad || open == "" || index != next
			open = ""
			next++
		case "message_delta":
			bad = bad || open != "" || m.stop != ""
			m.stop = e.Get("delta.stop_reason").Str
			if in := e.Get("usage.input_tokens"); in.Exists() {
				input = in.Int()
			}
			m.usage = fmt.Sprint(input, cached, e.Get("usage.output_tokens"))
		case "message_stop":
			bad = bad || m.stop == ""
			m.whole = true
		}
		if bad {
			p.t.Errorf("event %d breaks the dialect: %s", i, event)
		}
	}
	return m
}

// A relayed messages answer that is cut: the same worker goes on, and its reader sees one message.
func TestMessageThatIsCutGoesOn(t *testing.T) {
	t.Parallel()
	whole := openaitest.EngineText(1, 8)
	type dials = anthropictest.EngineDials
	for name, c := range map[string]struct {
		how           inference.Continuation
		deterministic bool
		members       string
		turn          string // more of the conversation
		dials         []dials
		text          string
		code          schemas.Code
		modes         string
		usage         string
		stop          string // default end_turn
		idle          time.Duration
		calls         int
	}{
		"in its text": {how: text, dials: []dials{{Cut: 1}, {}}, text: whole, modes: "fresh continue", usage: "4 1 8", calls: 2},
		"twice":       {how: text, dials: []dials{{Cut: 1}, {Cut: 2}, {}}, text: whole, modes: "fresh continue continue", usage: "4 1 8", calls: 3},
		"too often": {
			how: text, dials: []dials{{Cut: 1}}, text: openaitest.EngineText(1, 5), code: schemas.CodeUpstreamInterrupted,
			modes: "fresh continue continue", calls: 3,
		},
		"stalled": {how: text, dials: []dials{{Cut: 2, Stall: true}, {}}, idle: 300 * time.Millisecond, text: whole, modes: "fresh continue", usage: "4 1 8", calls: 2},
		"up to its limit": {
			how: text, members: `,"max_tokens":6`, dials: []dials{{Cut: 1}, {}}, text: openaitest.EngineText(1, 7), modes: "fresh continue",
			usage: "4 1 7", stop: "max_tokens", calls: 2, // an event of several tokens counts for its bytes
		},
		"with white space at the end of a block": {how: text, dials: []dials{{At: "content_block_stop", Words: 4}, {}}, text: whole, modes: "fresh continue", usage: "4 1 8", calls: 2},
		"goes on in a second block":              {how: text, dials: []dials{{Cut: 1}, {Closed: true}}, text: whole, modes: "fresh continue", usage: "4 1 8", calls: 2},
		"behind a turn that the caller began": {
			how: text, turn: `,{"role":"assistant","content":[{"type":"text","text":"a0"}]}`, dials: []dials{{Cut: 1}, {}},
			text: strings.TrimPrefix(whole, "a0"), modes: "fresh continue", usage: "5 1 7", calls: 2,
		},
		"before its first word": {
			how: none, members: `,"tools":[{"name":"f","input_schema":{}}]`, dials: []dials{{At: "message_start"}, {Calls: true}},
			text: openaitest.EngineText(2, 8), modes: "fresh splice", usage: "4 1 8", stop: "tool_use", calls: 2,
		},
		"in a block without a word": {
			how: none, dials: []dials{{At: "content_block_start"}, {}}, text: openaitest.EngineText(2, 8), modes: "fresh splice", usage: "4 1 8", calls: 2,
		},
		"in a thought without a word": {
			how: none, members: `,"thinking":{"type":"enabled","budget_tokens":1024}`, dials: []dials{{At: "content_block_start", Thinks: true}, {Thinks: true}},
			text: openaitest.EngineText(2, 8), modes: "fresh splice", usage: "4 1 8", calls: 2,
		},
		"before its last event": {how: none, dials: []dials{{At: "message_delta"}}, text: whole, modes: "fresh continue", usage: "4 1 8", calls: 1},
		"said again":            {deterministic: true, members: `,"temperature":0`, dials: []dials{{Greedy: true, Cut: 2}, {Greedy: true}}, text: whole, modes: "fresh splice", usage: "4 1 8", calls: 2},
		"said again, behind a block": {
			deterministic: true, members: `,"temperature":0`, dials: []dials{{Greedy: true, At: "content_block_stop"}, {Greedy: true}},
			text: whole, modes: "fresh splice", usage: "4 1 8", calls: 2,
		},
		"said otherwise": {
			deterministic: true, members: `,"temperature":0`, dials: []dials{{Cut: 2}, {}}, text: openaitest.EngineText(1, 4),
			code: schemas.CodeStreamDiverged, modes: "fresh splice", calls: 2,
		},
		"refused, then said again": {
			how: text, deterministic: true, members: `,"temperature":0`, dials: []dials{{Greedy: true, Cut: 2}, {Reject: true}, {Greedy: true}},
			text: whole, modes: "fresh continue splice", usage: "4 1 8", calls: 3,
		},
		"refused": {
			how: text, dials: []dials{{Cut: 1}, {Reject: true}}, text: openaitest.EngineText(1, 2), code: schemas.CodeUpstreamInterrupted,
			modes: "fresh continue", calls: 2,
		},
		"begun again": {
			how: text, dials: []dials{{Cut: 8, Words: 30}, {Forget: true, Words: 30, Greedy: true}}, text: openaitest.EngineText(1, 16),
			code: schemas.CodeStreamDiverged, modes: "fresh continue", calls: 2,
		},
		"by a server that cannot": {
			how: none, dials: []dials{{Cut: 1}, {}}, text: openaitest.EngineText(1, 2), code: schemas.CodeUpstreamInterrupted, modes: "fresh", calls: 1,
		},
		"behind a thought": {
			how: text, members: `,"thinking":{"type":"enabled","budget_tokens":1024}`, dials: []dials{{Thinks: true, Cut: 1}, {}},
			text: openaitest.EngineText(1, 2), code: schemas.CodeUpstreamInterrupted, modes: "fresh", calls: 1,
		},
		"while it may think": {
			how: text, members: `,"thinking":{"type":"enabled","budget_tokens":1024}`, dials: []dials{{Cut: 1}, {}},
			text: openaitest.EngineText(1, 2), code: schemas.CodeUpstreamInterrupted, modes: "fresh", calls: 1,
		},
		"with tools": {
			how: text, deterministic: true, members: `,"temperature":0,"tools":[{"name":"f","input_schema":{}}]`, dials: []dials{{Cut: 1}, {}},
			text: openaitest.EngineText(1, 2), code: schemas.CodeUpstreamInterrupted, modes: "fresh", calls: 1,
		},
		"in the call of a tool": {
			how: text, deterministic: true, members: `,"temperature":0,"tools":[{"name":"f","input_schema":{}}]`, dials: []dials{{At: "content_block_stop", Calls: true}, {}},
			text: whole, code: schemas.CodeUpstreamInterrupted, modes: "fresh", calls: 1,
		},
		"with a call that nobody asked for": {
			how: text, dials: []dials{{Cut: 1}, {Calls: true}}, text: whole, code: schemas.CodeStreamDiverged, modes: "fresh continue continue", calls: 3,
		},
		"where a string that ends it may have begun": {
			how: text, members: `,"stop_sequences":[" z"]`, dials: []dials{{Cut: 1}, {}}, text: openaitest.EngineText(1, 2),
			code: schemas.CodeUpstreamInterrupted, modes: "fresh", calls: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			e := anthropictest.NewEngine(t, c.dials...)
			p.worker("w1", claude(t, c.how, c.deterministic, e, c.idle))
			request := message("r1", c.members)
			request.Body = []byte(strings.Replace(string(request.Body), `"hello"}`, `"hello"}`+c.turn, 1))
			if strings.Contains(c.members, "max_tokens") {
				request.Body = []byte(strings.Replace(string(request.Body), `"max_tokens":100,`, "", 1))
			}
			p.dispatch(request)
			r := p.ended(request.Identity)
			got := p.relayed(request.Identity)
			code := schemas.Code("")
			if r.Error != nil {
				failed, err := schemas.DecodeError(r.Error)
				if err != nil {
					t.Fatal(err)
				}
				code = failed.Code
			}
			if got.text != c.text || code != c.code || got.whole != (c.code == "") || got.id != "msg_1" {
				t.Errorf("the reader has %+v and %q, want %q and %q; faults %q", got, code, c.text, c.code, e.Faults())
			}
			if m := modes(p.chain(request.Identity)); m != c.modes || len(e.Requests()) != c.calls || len(r.Tries) != c.calls {
				t.Errorf("modes %q, %d calls, tries %+v", m, len(e.Requests()), r.Tries)
			}
			if c.code != "" {
				if r.Usage == nil || r.Usage.PromptTokens != 5 || r.Usage.CompletionTokens == 0 || !r.Usage.Estimated {
					t.Errorf("the result does not say what the answer cost: %+v", r.Usage)
				}
				return
			}
			stop := c.stop
			if stop == "" {
				stop = "end_turn"
			}
			if got.usage != c.usage || got.stop != stop {
				t.Errorf("the reader was told %s and %s, want %s and %s", got.usage, got.stop, c.usage, stop)
			}
			told := strings.Fields(c.usage)
			if want := fmt.Sprint(gjson.Parse(told[0]).Int()+gjson.Parse(told[1]).Int(), " ", told[2]); r.Usage == nil || fmt.Sprint(r.Usage.PromptTokens, r.Usage.CompletionTokens) != want {
				t.Errorf("the result says %+v, want %s", r.Usage, want)
			}
		})
	}
}

// A worker that is lost in the middle of a relayed message: the next goes on from what the chain holds.
func TestMessageOfALostWorkerGoesOn(t *testing.T) {
	t.Parallel()
	p := setup(t)
	first, second := anthropictest.NewEngine(t, anthropictest.EngineDials{Cut: 2, Stall: true}), anthropictest.NewEngine(t)
	lost := p.worker("w1", claude(t, text, false, first, 0))
	request := message("r1", "")
	item := p.dispatch(request)
	p.until("the call", func() bool { return len(first.Requests()) == 1 })
	p.until("two words", func() bool { return p.relayed(request.Identity).text == openaitest.EngineText(1, 4) })
	lost.kill()
	t.Cleanup(lost.stop)
	p.worker("w2", claude(t, text, false, second, 0))
	p.tap.nak(item, 1)
	r := p.ended(request.Identity)
	if got := p.relayed(request.Identity); got.text != openaitest.EngineText(1, 8) || !got.whole || got.usage != "4 1 8" {
		t.Errorf("the reader has %+v; faults %q", got, second.Faults())
	}
	if got := modes(p.chain(request.Identity)); got != "fresh continue" || r.Usage.TotalTokens != 13 {
		t.Errorf("modes %s, usage %+v", got, r.Usage)
	}
}

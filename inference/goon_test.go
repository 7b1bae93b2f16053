package inference_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/openai"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	"github.com/weir-llm/weir/schemas"
)

// engine is a backend for a server that samples.
func engine(t *testing.T, name string, how inference.Continuation, e *openaitest.Engine, idle time.Duration) inference.Backend {
	t.Helper()
	b, err := openai.New(openai.Config{Name: name, URL: e.URL, Continue: how, Timeouts: inference.Timeouts{Idle: idle}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// beside gives the model more backends.
func beside(others ...inference.Backend) func(*inference.Config) {
	return model(func(m *inference.Model) {
		for _, b := range others {
			m.Backends = append(m.Backends, inference.Slot{Backend: b, MaxInFlight: 4})
		}
	})
}

// counts is the usage chunk that readers saw, of a request that asked for it.
func (p *pipe) counts(id schemas.Identity) string {
	last := ""
	for _, event := range p.chain(id).Events() {
		if usage := gjson.GetBytes(event, "usage"); usage.IsObject() {
			last = usage.Raw
		}
	}
	return last
}

const (
	tokens = inference.ContinueTokens
	text   = inference.ContinueText
	none   = inference.ContinueNone
)

// hello asks a sampled answer of the engine, with its usage.
func hello(members string) string {
	return `{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hello"}]` + members + `}`
}

// A model server that fails in the middle of a sampled answer: the same worker goes on, and the reader notices nothing.
func TestAnswerThatIsCutGoesOn(t *testing.T) {
	t.Parallel()
	whole := openaitest.EngineText(1, 8)
	for name, c := range map[string]struct {
		how, other inference.Continuation // other: of a second backend, unless none
		op         schemas.Op
		body       string
		dials      []openaitest.EngineDials // of both backends, in the order of the calls
		order      []schemas.Mode
		text       string
		code       schemas.Code
		modes      string
		usage      string // prompt, completion
		finish     string
		calls      int
	}{
		"by tokens": {
			how: tokens, body: hello(""), dials: []openaitest.EngineDials{{Cut: 3}, {}},
			text: whole, modes: "fresh continue", usage: "5 8", finish: "stop", calls: 2,
		},
		"by tokens, in the middle of a rune": {
			how: tokens, body: hello(""), dials: []openaitest.EngineDials{{Cut: 4}, {}},
			text: whole, modes: "fresh continue", usage: "5 8", finish: "stop", calls: 2,
		},
		"by tokens, twice": {
			how: tokens, body: hello(""), dials: []openaitest.EngineDials{{Cut: 2}, {Stall: 3}, {}},
			text: whole, modes: "fresh continue continue", usage: "5 8", finish: "stop", calls: 3,
		},
		"by tokens, too often": {
			how: tokens, body: hello(""), dials: []openaitest.EngineDials{{Cut: 1}},
			text: openaitest.EngineText(1, 3), code: schemas.CodeUpstreamInterrupted, modes: "fresh continue continue", calls: 3,
		},
		"by tokens, up to a limit": {
			how: tokens, body: hello(`,"max_tokens":6`), dials: []openaitest.EngineDials{{Cut: 5}, {}},
			text: openaitest.EngineText(1, 6), modes: "fresh continue", usage: "5 6", finish: "length", calls: 2,
		},
		"by tokens, at the limit": {
			how: tokens, body: hello(`,"max_completion_tokens":5`), dials: []openaitest.EngineDials{{Cut: 5, Words: 6}, {}},
			text: openaitest.EngineText(1, 5), modes: "fresh continue", usage: "5 5", finish: "length", calls: 1,
		},
		"by tokens, on another backend": {
			how: tokens, other: tokens, body: hello(""), dials: []openaitest.EngineDials{{Cut: 3}, {}},
			text: whole, modes: "fresh continue", usage: "5 8", finish: "stop", calls: 2,
		},
		"by tokens, which are refused, then by text": {
			how: tokens, body: hello(""), dials: []openaitest.EngineDials{{Cut: 3}, {Reject: true}, {}},
			text: whole, modes: "fresh continue continue", usage: "5 8", finish: "stop", calls: 3,
		},
		"a completion by tokens": {
			how: tokens, op: schemas.OpCompletion, body: `{"model":"m","stream":true,"stream_options":{"include_usage":true},"prompt":"hello|"}`,
			dials: []openaitest.EngineDials{{Cut: 4}, {}}, text: whole, modes: "fresh continue", usage: "6 8", finish: "stop", calls: 2,
		},
		"by text": {
			how: text, body: hello(""), dials: []openaitest.EngineDials{{Cut: 3}, {}},
			text: whole, modes: "fresh continue", usage: "5 8", finish: "stop", calls: 2,
		},
		"by text, with strings that end it": {
			how: tokens, body: hello(`,"stop":["zz"]`), dials: []openaitest.EngineDials{{Cut: 3}, {}},
			text: whole, modes: "fresh continue", usage: "5 8", finish: "stop", calls: 2,
		},
		"by text, where a string that ends it may have begun": {
			how: text, body: hello(`,"stop":[" z"]`), dials: []openaitest.EngineDials{{Cut: 3}, {}},
			text: openaitest.EngineText(1, 3), code: schemas.CodeUpstreamInterrupted, modes: "fresh", calls: 1,
		},
		"a completion by text": {
			how: text, op: schemas.OpCompletion, body: `{"model":"m","stream":true,"stream_options":{"include_usage":true},"prompt":"hello|"}`,
			dials: []openaitest.EngineDials{{Cut: 3}, {}}, text: whole, modes: "fresh continue", usage: "6 8", finish: "stop", calls: 2,
		},
		"by text, with a server that begins again": {
			how: text, body: hello(""), dials: []openaitest.EngineDials{{Cut: 16, Words: 30}, {Forget: true, Words: 30}},
			text: openaitest.EngineText(1, 16), code: schemas.CodeStreamDiverged, modes: "fresh continue", calls: 2,
		},
		"before its first word": {
			how: none, body: hello(`,"tools":[{"type":"function","function":{"name":"f"}}]`), dials: []openaitest.EngineDials{{Hold: true}, {}},
			text: openaitest.EngineText(2, 8), modes: "fresh splice", finish: "stop", usage: "5 8", calls: 2,
		},
		"with tools": {
			how: tokens, body: hello(`,"tools":[{"type":"function","function":{"name":"f"}}]`), dials: []openaitest.EngineDials{{Cut: 3}, {}},
			text: openaitest.EngineText(1, 3), code: schemas.CodeUpstreamInterrupted, modes: "fresh", calls: 1,
		},
		"with a format": {
			how: tokens, body: hello(`,"response_format":{"type":"json_object"}`), dials: []openaitest.EngineDials{{Cut: 3}, {}},
			text: openaitest.EngineText(1, 3), code: schemas.CodeUpstreamInterrupted, modes: "fresh", calls: 1,
		},
		"with log probabilities": {
			how: tokens, body: hello(`,"logprobs":true`), dials: []openaitest.EngineDials{{Cut: 3}, {}},
			text: openaitest.EngineText(1, 3), code: schemas.CodeUpstreamInterrupted, modes: "fresh", calls: 1,
		},
		"by a model that may not": {
			how: tokens, body: hello(""), dials: []openaitest.EngineDials{{Cut: 3}, {}}, order: []schemas.Mode{},
			text: openaitest.EngineText(1, 3), code: schemas.CodeUpstreamInterrupted, modes: "fresh", calls: 1,
		},
		"by a server that cannot": {
			how: none, body: hello(""), dials: []openaitest.EngineDials{{Cut: 3}, {}},
			text: openaitest.EngineText(1, 3), code: schemas.CodeUpstreamInterrupted, modes: "fresh", calls: 1,
		},
		"by servers that refuse": {
			how: text, other: text, body: hello(""), dials: []openaitest.EngineDials{{Cut: 3}, {Reject: true}},
			text: openaitest.EngineText(1, 3), code: schemas.CodeUpstreamInterrupted, modes: "fresh continue continue", calls: 3,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			e := openaitest.NewEngine(t, c.dials...)
			idle := generous
			if slices.ContainsFunc(c.dials, func(d openaitest.EngineDials) bool { return d.Stall > 0 || d.Hold }) {
				idle = 2 * time.Second
			}
			change := []func(*inference.Config){model(func(m *inference.Model) { m.Midstream.Order = c.order })}
			if c.other != none {
				change = append(change, beside(engine(t, "other", c.other, e, idle)))
			}
			p.worker("w1", engine(t, "first", c.how, e, idle), change...)
			request := work("r1", 1, c.body)
			if c.op != "" {
				request.Op = c.op
			}
			live := p.reader(request.Identity)
			p.dispatch(request)
			got := live()
			if got.text != c.text || got.code() != c.code {
				t.Errorf("got %q and %q, want %q and %q", got.text, got.code(), c.text, c.code)
			}
			for _, id := range got.ids {
				if id != got.ids[0] {
					t.Errorf("the id of the answer changed from %s to %s", got.ids[0], id)
				}
			}
			r := p.ended(request.Identity)
			if got := modes(p.chain(request.Identity)); got != c.modes {
				t.Errorf("modes %s, want %s", got, c.modes)
			}
			if n := len(e.Requests()); n != c.calls || len(r.Tries) != c.calls {
				t.Errorf("%d calls and %d tries, want %d; faults %v", n, len(r.Tries), c.calls, e.Faults())
			}
			if c.code == "" {
				usage := p.counts(request.Identity)
				if got := fmt.Sprint(gjson.Get(usage, "prompt_tokens"), gjson.Get(usage, "completion_tokens")); got != c.usage {
					t.Errorf("the caller was told a usage of %s, want %s", got, c.usage)
				}
				if r.Usage == nil || fmt.Sprint(r.Usage.PromptTokens, r.Usage.CompletionTokens) != c.usage || strings.Join(r.FinishReasons, " ") != c.finish {
					t.Errorf("the result says %+v and %v", r.Usage, r.FinishReasons)
				}
			} else if r.Usage == nil || r.Usage.CompletionTokens == 0 {
				t.Errorf("the result does not say what the answer cost: %+v", r.Usage)
			}
			p.unseen(request.Identity)
		})
	}
}

// unseen checks that callers see nothing of what goes on behind an answer.
func (p *pipe) unseen(id schemas.Identity) {
	p.t.Helper()
	roles := 0
	for i, event := range p.chain(id).Events() {
		all := gjson.ParseBytes(event)
		if strings.Contains(string(event), "token_ids") || all.Get("usage").IsObject() && len(all.Get("choices").Array()) > 0 {
			p.t.Errorf("event %d shows what the caller did not ask for: %s", i, event)
		}
		if all.Get("choices.0.delta.role").Exists() {
			roles++
		}
	}
	if roles > 1 {
		p.t.Errorf("the role was said %d times", roles)
	}
}

// A worker that is lost in the middle of a sampled answer: the next goes on from what the chain holds.
func TestWorkerThatIsLostIsContinued(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		how   inference.Continuation
		body  string
		at    int // tokens of the first worker
		modes string
		usage string
	}{
		"by tokens":           {tokens, hello(""), 3, "fresh continue", "5 8"},
		"by text":             {text, hello(""), 3, "fresh continue", "5 8"},
		"before anything":     {tokens, hello(""), -1, "fresh fresh", "5 8"},
		"before a word":       {none, hello(""), 0, "fresh splice", "5 8"},
		"a prompt of 10 KB":   {tokens, strings.Replace(hello(""), "hello", strings.Repeat("prompt ", 1500), 1), 7, "fresh continue", "10500 8"},
		"a long prompt, soon": {tokens, strings.Replace(hello(""), "hello", strings.Repeat("prompt ", 5000), 1), 1, "fresh continue", "35000 8"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			first, second := openaitest.NewEngine(t, openaitest.EngineDials{Stall: max(c.at, 0), Hold: c.at <= 0, Mute: c.at < 0}), openaitest.NewEngine(t)
			patient := func(name string, e *openaitest.Engine) inference.Backend {
				b, err := openai.New(openai.Config{Name: name, URL: e.URL, Continue: c.how})
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = b.Close() })
				return b
			}
			lost := p.worker("w1", patient("first", first))
			item := p.dispatch(work("r1", 1, c.body))
			id := identity("r1")
			live := p.reader(id)
			p.until("the call", func() bool { return len(first.Requests()) == 1 })
			p.until("the claim", func() bool { return p.chain(id).Start() != nil })
			p.visible(id, uint64(c.at+1))
			lost.kill()
			t.Cleanup(lost.stop)
			p.worker("w2", patient("second", second))
			p.tap.nak(item, 1)
			if got := live(); got.text != openaitest.EngineText(1, 8) || got.code() != "" {
				t.Errorf("got %q and %q; faults %v", got.text, got.code(), second.Faults())
			}
			r := p.ended(id)
			if got := modes(p.chain(id)); got != c.modes {
				t.Errorf("modes %s, want %s", got, c.modes)
			}
			if r.Usage == nil || fmt.Sprint(r.Usage.PromptTokens, r.Usage.CompletionTokens) != c.usage {
				t.Errorf("usage %+v, want %s", r.Usage, c.usage)
			}
			p.unseen(id)
		})
	}
}

// An item whose body cannot be read any more, behind an attempt that showed nothing: it is answered, and nothing panics.
func TestUnreadableBehindAnAttempt(t *testing.T) {
	t.Parallel()
	p := setup(t)
	item := work("r1", 2, `{"model":"m"`)
	p.append(item.Identity, &schemas.Frame{Kind: schemas.KindStart, Attempt: 1, Writer: "lost", Start: &schemas.Start{Mode: schemas.ModeFresh, Work: 1 << 40, Dispatch: 1, Worker: "lost"}})
	p.worker("w1", &fake{words: three})
	p.dispatch(item)
	if got := p.read(item.Identity); got.code() != schemas.CodeInvalidJSON {
		t.Errorf("it ended in %q", got.code())
	}
	p.ended(item.Identity)
}

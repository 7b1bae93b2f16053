package inference_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/ollama"
	"github.com/weir-llm/weir/internal/ollama/ollamatest"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	"github.com/weir-llm/weir/schemas"
)

// An answer of Ollama's own API that is cut goes on from a last message of the assistant, where the model's template takes
// that; otherwise it ends with an error.
func TestAnswerOfOllamaGoesOn(t *testing.T) {
	t.Parallel()
	whole := openaitest.EngineText(1, 8)
	type dials = ollamatest.Dials
	for name, c := range map[string]struct {
		how           inference.Continuation
		deterministic bool
		members       string
		dials         []dials
		text          string
		code          schemas.Code
		modes         string
		usage         string
		finish        string // default stop
		idle          time.Duration
	}{
		"from its text":   {how: text, dials: []dials{{Cut: 3}, {}}, text: whole, modes: "fresh continue", usage: "5 8"},
		"twice":           {how: text, dials: []dials{{Cut: 2}, {Cut: 1}, {}}, text: whole, modes: "fresh continue continue", usage: "5 8"},
		"stalled":         {how: text, dials: []dials{{Cut: 3, Stall: true}, {}}, idle: 300 * time.Millisecond, text: whole, modes: "fresh continue", usage: "5 8"},
		"up to its limit": {how: text, members: `,"max_tokens":6`, dials: []dials{{Cut: 3}, {}}, text: openaitest.EngineText(1, 6), modes: "fresh continue", usage: "5 6", finish: "length"},
		"said again":      {deterministic: true, members: `,"temperature":0`, dials: []dials{{Greedy: true, Cut: 3}, {Greedy: true}}, text: whole, modes: "fresh splice", usage: "5 8"},
		"a template that ends the message": {
			how: text, dials: []dials{{Cut: 16, Words: 30}, {Closed: true, Greedy: true, Words: 30}}, text: openaitest.EngineText(1, 16),
			code: schemas.CodeStreamDiverged, modes: "fresh continue",
		},
		"a template that ends the message, then said again": {
			how: text, deterministic: true, members: `,"temperature":0`, dials: []dials{{Cut: 16, Words: 30}, {Closed: true, Greedy: true, Words: 30}},
			text: openaitest.EngineText(1, 30), modes: "fresh continue splice", usage: "5 30",
		},
		"behind a thought": {how: text, dials: []dials{{Thinks: true, Cut: 3}, {}}, text: openaitest.EngineText(1, 3), code: schemas.CodeUpstreamInterrupted, modes: "fresh"},
		"with tools": {
			how: text, members: `,"tools":[{"type":"function","function":{"name":"f"}}]`, dials: []dials{{Cut: 3}, {}},
			text: openaitest.EngineText(1, 3), code: schemas.CodeUpstreamInterrupted, modes: "fresh",
		},
		"a model that cannot": {how: none, dials: []dials{{Cut: 3}, {}}, text: openaitest.EngineText(1, 3), code: schemas.CodeUpstreamInterrupted, modes: "fresh"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			e := ollamatest.NewEngine(t, c.dials...)
			b, err := ollama.New(ollama.Config{Name: "ollama", URL: e.URL, Continue: c.how, Deterministic: c.deterministic, Timeouts: inference.Timeouts{Idle: c.idle}})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close() })
			p.worker("w1", b)
			id := p.send("r1", hello(c.members))
			got := p.read(id)
			if got.text != c.text || got.code() != c.code {
				t.Errorf("got %q and %q, want %q and %q", got.text, got.code(), c.text, c.code)
			}
			for _, id := range got.ids {
				if id != got.ids[0] {
					t.Errorf("the id of the answer changed from %s to %s", got.ids[0], id)
				}
			}
			r := p.ended(id)
			calls := len(strings.Fields(c.modes))
			if m := modes(p.chain(id)); m != c.modes || len(e.Requests()) != calls || len(r.Tries) != calls {
				t.Errorf("modes %s, want %s; %d calls, tries %+v", m, c.modes, len(e.Requests()), r.Tries)
			}
			p.unseen(id)
			if c.code != "" {
				if r.Usage == nil || r.Usage.CompletionTokens == 0 {
					t.Errorf("the result does not say what the answer cost: %+v", r.Usage)
				}
				return
			}
			finish := c.finish
			if finish == "" {
				finish = "stop"
			}
			told := gjson.Parse(p.counts(id))
			if got := fmt.Sprint(told.Get("prompt_tokens"), told.Get("completion_tokens")); got != c.usage {
				t.Errorf("the caller was told a usage of %s, want %s", got, c.usage)
			}
			if r.Usage == nil || fmt.Sprint(r.Usage.PromptTokens, r.Usage.CompletionTokens) != c.usage || strings.Join(r.FinishReasons, " ") != finish {
				t.Errorf("the result says %+v and %v", r.Usage, r.FinishReasons)
			}
		})
	}
}

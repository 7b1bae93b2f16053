package inference_test

import (
	"strings"
	"testing"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/anthropic"
	"github.com/weir-llm/weir/internal/anthropic/anthropictest"
	"github.com/weir-llm/weir/schemas"
)

// A chat answer of a Claude goes on from a last turn of the assistant, without the white space at its end; where the model
// refuses that, or thinks, the answer ends with an error.
func TestAnswerOfAnthropicGoesOn(t *testing.T) {
	t.Parallel()
	refusal := anthropictest.Dials{Status: 400, Body: `{"type":"error","error":{"type":"invalid_request_error","message":"This model does not support assistant message prefill."}}`}
	for name, c := range map[string]struct {
		how    inference.Continuation
		body   string
		second anthropictest.Dials
		text   string
		code   schemas.Code
		calls  int
	}{
		"by prefill":  {text, sampled, anthropictest.Dials{Events: anthropictest.Answer(" there", "!")}, "Hello there!", "", 2},
		"refused":     {text, sampled, refusal, "Hello ", schemas.CodeUpstreamInterrupted, 2},
		"not allowed": {none, sampled, anthropictest.Dials{}, "Hello ", schemas.CodeUpstreamInterrupted, 1},
		"thinking": {
			text, strings.Replace(sampled, `"stream"`, `"thinking":{"type":"enabled","budget_tokens":1024},"stream"`, 1),
			anthropictest.Dials{}, "Hello ", schemas.CodeUpstreamInterrupted, 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			server := anthropictest.New(t, anthropictest.Dials{Events: anthropictest.Answer("Hello ", "world"), Reset: 3}, c.second)
			b, err := anthropic.New(anthropic.Config{Name: "claude", URL: server.URL, Continue: c.how})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close() })
			p.worker("w1", b)
			id := p.send("r1", c.body)
			if got := p.read(id); got.text != c.text || got.code() != c.code {
				t.Errorf("got %q and %q, want %q and %q", got.text, got.code(), c.text, c.code)
			}
			p.ended(id)
			p.unseen(id)
			asked := server.Requests()
			if len(asked) != c.calls {
				t.Fatalf("%d calls, want %d", len(asked), c.calls)
			}
			if c.calls == 2 {
				last := gjson.Get(asked[1].Body, "messages.1")
				if last.Get("role").Str != "assistant" || last.Get("content.0.text").Str != "Hello" {
					t.Errorf("the second call was %s", asked[1].Body)
				}
			}
		})
	}
}

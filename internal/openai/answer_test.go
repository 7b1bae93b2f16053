package openai

import (
	"iter"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/schemas"
)

func numbered(events ...string) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for i, event := range events {
			if !yield(uint64(i), []byte(event)) {
				return
			}
		}
	}
}

func TestAssemble(t *testing.T) {
	t.Parallel()
	const head = `{"id":"c1","object":"chat.completion.chunk","created":7,"model":"m","choices":`
	const whole = `{"id":"c1","object":"chat.completion","created":7,"model":"m","choices":`
	for _, test := range []struct {
		name   string
		events []string
		usage  *schemas.Usage
		want   string
	}{
		{"text", []string{
			head + `[{"index":0,"delta":{"role":"assistant","content":""}}]}`,
			head + `[{"index":0,"delta":{"content":"a\n"}}]}`, head + `[{"index":0,"delta":{"content":"b"},"finish_reason":"stop"}]}`,
			head + `[],"usage":{"total_tokens":5}}`,
		}, &schemas.Usage{TotalTokens: 9},
			whole + `[{"index":0,"message":{"role":"assistant","content":"a\nb","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"total_tokens":5}}`},
		{"usage from elsewhere", []string{head + `[{"index":0,"delta":{},"finish_reason":"stop"}]}`}, &schemas.Usage{PromptTokens: 1, CompletionTokens: 2, TotalTokens: 3},
			whole + `[{"index":0,"message":{"role":"assistant","content":"","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`},
		{"text completion", []string{
			`{"id":"c1","object":"text_completion","created":7,"model":"m","choices":[{"index":0,"text":"a","logprobs":{"tokens":["a"],"token_logprobs":[null],"text_offset":[]}}]}`,
			`{"id":"c1","object":"text_completion","created":7,"model":"m","choices":[{"index":1,"text":"x","finish_reason":"length"}]}`,
			`{"id":"c1","object":"text_completion","created":7,"model":"m","choices":[{"index":0,"text":"b","logprobs":{"tokens":["b"],"token_logprobs":[-1]},"finish_reason":"stop"}]}`,
		}, nil,
			`{"id":"c1","object":"text_completion","created":7,"model":"m","choices":[` +
				`{"index":0,"text":"ab","logprobs":{"tokens":["a","b"],"token_logprobs":[null,-1]},"finish_reason":"stop"},` +
				`{"index":1,"text":"x","logprobs":null,"finish_reason":"length"}]}`},
		{"cut", []string{head + `[{"index":0,"delta":{"content":"a"}}]}`}, nil,
			whole + `[{"index":0,"message":{"role":"assistant","content":"a","refusal":null},"logprobs":null,"finish_reason":null}]}`},
		{"tools", []string{
			head + `[{"index":0,"delta":{"role":"assistant","content":null,"tool_calls":[{"index":1,"id":"b","type":"function","function":{"name":"g","arguments":""}}]}}]}`,
			head + `[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\""}},{"index":1,"function":{"arguments":"{}"}}]}}]}`,
			head + `[{"index":0,"delta":{"tool_calls":[{"index":0,"function":{"arguments":":1}"}}]},"finish_reason":"tool_calls"}]}`,
		}, nil,
			whole + `[{"index":0,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"a","type":"function","function":{"name":"f","arguments":"{\"x\":1}"}},{"id":"b","type":"function","function":{"name":"g","arguments":"{}"}}]},"logprobs":null,"finish_reason":"tool_calls"}]}`},
		{"custom tool", []string{head + `[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"a","type":"custom","custom":{"name":"f","input":"x"}}]},"finish_reason":"tool_calls"}]}`}, nil,
			whole + `[{"index":0,"message":{"role":"assistant","content":null,"refusal":null,"tool_calls":[{"id":"a","type":"custom","custom":{"name":"f","input":"x"}}]},"logprobs":null,"finish_reason":"tool_calls"}]}`},
		{"function call", []string{
			head + `[{"index":0,"delta":{"function_call":{"name":"f","arguments":""}}}]}`, head + `[{"index":0,"delta":{"function_call":{"arguments":"{}"}},"finish_reason":"function_call"}]}`,
		}, nil,
			whole + `[{"index":0,"message":{"role":"assistant","content":null,"refusal":null,"function_call":{"name":"f","arguments":"{}"}},"logprobs":null,"finish_reason":"function_call"}]}`},
		{"reasoning, logprobs, two choices", []string{
			head + `[{"index":1,"delta":{"content":"b"},"logprobs":{"content":[{"token":"b"}]}}]}`,
			head + `[{"index":0,"delta":{"reasoning":"hm"}}]}`, head + `[{"index":0,"delta":{"content":"a"},"finish_reason":"stop"}]}`,
			head + `[{"index":1,"delta":{"content":"c"},"logprobs":{"content":[ {"token":"c"} ]},"finish_reason":"length"}]}`,
			head + `[{"index":1,"delta":{},"logprobs":{"content":[]}}]}`,
		}, nil,
			whole + `[{"index":0,"message":{"role":"assistant","content":"a","reasoning":"hm","refusal":null},"logprobs":null,"finish_reason":"stop"},` +
				`{"index":1,"message":{"role":"assistant","content":"bc","refusal":null},"logprobs":{"content":[{"token":"b"},{"token":"c"}]},"finish_reason":"length"}]}`},
		{"refusal", []string{head + `[{"index":0,"delta":{"refusal":"no"},"finish_reason":"stop"}]}`}, nil,
			whole + `[{"index":0,"message":{"role":"assistant","content":null,"refusal":"no"},"logprobs":null,"finish_reason":"stop"}]}`},
		{"nothing", nil, nil, `{"id":"","object":"chat.completion","created":0,"model":"","choices":[]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := Assemble(numbered(test.events...), test.usage)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(test.want, string(got)); diff != "" {
				t.Errorf("answer (-want +got):\n%s", diff)
			}
		})
	}
	if _, err := Assemble(numbered("{"), nil); err == nil {
		t.Error("an event that is not JSON was assembled")
	}
}

func TestEndings(t *testing.T) {
	t.Parallel()
	var e Endings
	if e.Started() || e.Whole(0) {
		t.Error("nothing was seen, and it is whole")
	}
	e.Add(peek(t, `{"choices":[{"index":1,"delta":{"content":"b"},"finish_reason":"stop"}]}`))
	if !e.Started() || e.Whole(1) {
		t.Error("choice 0 is missing, and it is whole")
	}
	e.Add(peek(t, `{"choices":[{"index":0,"finish_reason":"length"},{"index":-1},{"index":1e9}]}`))
	if !e.Whole(2) || e.Whole(3) {
		t.Error("two choices have ended, not three")
	}
	if diff := cmp.Diff([]string{"length", "stop"}, e.Reasons()); diff != "" {
		t.Errorf("reasons (-want +got):\n%s", diff)
	}
}

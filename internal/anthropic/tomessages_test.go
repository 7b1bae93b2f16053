package anthropic

import (
	"strings"
	"testing"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

func chatBody(members string) []byte {
	if !strings.Contains(members, `"messages"`) {
		members = `"messages":[{"role":"user","content":"hi"}],` + members
	}
	return []byte(`{"model":"m",` + strings.TrimSuffix(members, ",") + "}")
}

const messagesHi = `{"model":"m","max_tokens":100,"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]`

func TestToMessages(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, version, members, want string }{
		{"least", "", "", messagesHi + "}"},
		{"limits", "", `"max_tokens":5,"max_completion_tokens":6`, strings.Replace(messagesHi, "100", "6", 1) + "}"},
		{"older limit", "", `"max_tokens":5`, strings.Replace(messagesHi, "100", "5", 1) + "}"},
		{"sampling", "", `"stream":true,"temperature":1.5,"top_p":0.9,"seed":1,"presence_penalty":1,"logit_bias":{},"n":1,"stop":"x"`,
			messagesHi + `,"stream":true,"temperature":1,"top_p":0.9,"stop_sequences":["x"]}`},
		{"sampling in the newer version", Version2026, `"temperature":0.5,"top_p":0.9,"top_k":3,"stop":["x","y"]`, messagesHi + `,"stop_sequences":["x","y"]}`},
		{"members of the dialect", "", `"thinking":{"type":"enabled","budget_tokens":2000},"top_k":3`, messagesHi + `,"thinking":{"type":"enabled","budget_tokens":2000},"top_k":3}`},
		{"user", "", `"user":"u","safety_identifier":"s"`, messagesHi + `,"metadata":{"user_id":"u"}}`},
		{"effort and format", "", `"reasoning_effort":"minimal","response_format":{"type":"json_schema","json_schema":{"name":"n","schema":{"type":"object"}}}`,
			messagesHi + `,"output_config":{"effort":"low","format":{"type":"json_schema","schema":{"type":"object"}}}}`},
		{"no effort", "", `"reasoning_effort":"none","response_format":{"type":"text"},"logprobs":false,"modalities":["text"]`, messagesHi + "}"},
		{"tools", "", `"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object","properties":{}},"strict":true}},{"type":"function","function":{"name":"g"},"cache_control":{"type":"ephemeral"}}],"tool_choice":"required","parallel_tool_calls":false`,
			messagesHi + `,"tools":[{"name":"f","description":"d","input_schema":{"type":"object","properties":{}},"strict":true},{"name":"g","input_schema":{"type":"object"},"cache_control":{"type":"ephemeral"}}],"tool_choice":{"type":"any","disable_parallel_tool_use":true}}`},
		{"one tool at a time", "", `"tools":[{"type":"function","function":{"name":"f"}}],"parallel_tool_calls":false`,
			messagesHi + `,"tools":[{"name":"f","input_schema":{"type":"object"}}],"tool_choice":{"type":"auto","disable_parallel_tool_use":true}}`},
		{"named tool", "", `"tools":[{"type":"function","function":{"name":"f"}}],"tool_choice":{"type":"function","function":{"name":"f"}}`,
			messagesHi + `,"tools":[{"name":"f","input_schema":{"type":"object"}}],"tool_choice":{"type":"tool","name":"f"}}`},
		{"turns", "", `"messages":[{"role":"system","content":"a"},{"role":"developer","content":[{"type":"text","text":"b"}]},{"role":"user","content":"q"},{"role":"user","content":[{"type":"text","text":"r"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AA"}},{"type":"image_url","image_url":{"url":"https://i"}},{"type":"file","file":{"file_data":"data:application/pdf;base64,BB"}}]},{"role":"assistant","content":null,"tool_calls":[{"id":"c1","type":"function","function":{"name":"f","arguments":"{\"a\":1}"}},{"id":"c2","type":"function","function":{"name":"g","arguments":""}}]},{"role":"tool","tool_call_id":"c1","content":"one"},{"role":"tool","tool_call_id":"c2","content":[{"type":"text","text":"two"}]},{"role":"user","content":"so?"},{"role":"assistant","content":"","refusal":"no"}]`,
			`{"model":"m","max_tokens":100,"system":"a\n\nb","messages":[
			{"role":"user","content":[{"type":"text","text":"q"},{"type":"text","text":"r"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AA"}},{"type":"image","source":{"type":"url","url":"https://i"}},{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"BB"}}]},
			{"role":"assistant","content":[{"type":"tool_use","id":"c1","name":"f","input":{"a":1}},{"type":"tool_use","id":"c2","name":"g","input":{}}]},
			{"role":"user","content":[{"type":"tool_result","tool_use_id":"c1","content":[{"type":"text","text":"one"}]},{"type":"tool_result","tool_use_id":"c2","content":[{"type":"text","text":"two"}]},{"type":"text","text":"so?"}]},
			{"role":"assistant","content":[{"type":"text","text":"no"}]}]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			body := chatBody(test.members)
			if _, err := openai.ParseRequest(schemas.OpChat, body, openai.Policy{}); err != nil {
				t.Fatalf("the body is not valid: %v\n%s", err, body)
			}
			got, err := ToMessages(body, ChatPolicy{MaxTokens: 100, Version: test.version})
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, test.want, string(got))
			if _, err := openai.ParseRequest(schemas.OpMessages, got, openai.Policy{}); err != nil {
				t.Errorf("what came out is not a valid messages request: %v\n%s", err, got)
			}
		})
	}
}

func TestToMessagesRefuses(t *testing.T) {
	t.Parallel()
	deep := strings.Repeat("[", 100_000)
	for _, test := range []struct{ members, param string }{
		{`"n":2`, "n"}, {`"logprobs":true`, "logprobs"}, {`"audio":{}`, "audio"}, {`"functions":[{}]`, "functions"},
		{`"modalities":["text","audio"]`, "modalities"}, {`"response_format":{"type":"json_object"}`, "response_format.type"},
		{`"tools":[{"type":"custom","custom":{}}]`, "tools[0].type"},
		{`"messages":[{"role":"function","content":"x"}]`, "messages[0].role"},
		{`"messages":[{"role":"user","content":[{"type":"input_audio"}]}]`, "messages[0].content[0].type"},
		{`"messages":[{"role":"user","content":[{"type":"file","file":{"file_id":"f"}}]}]`, "messages[0].content[0].file"},
		{`"messages":[{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":"{"}}]}]`, "messages[0].tool_calls[0].function.arguments"},
		{`"messages":[{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":"` + deep + `"}}]}]`, "messages[0].tool_calls[0].function.arguments"},
	} {
		_, err := ToMessages(chatBody(test.members), ChatPolicy{MaxTokens: 1})
		if err == nil || schemas.AsError(err).Param != test.param || Status(schemas.AsError(err).Code) != 400 {
			t.Errorf("%.80s: error %v, want one about %s", test.members, err, test.param)
		}
	}
}

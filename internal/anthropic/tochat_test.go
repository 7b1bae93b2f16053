package anthropic

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// sameJSON reports how two documents differ.
func sameJSON(t *testing.T, want, got string) {
	t.Helper()
	var a, b any
	if err := json.Unmarshal([]byte(want), &a); err != nil {
		t.Fatalf("want is not JSON: %v\n%s", err, want)
	}
	if err := json.Unmarshal([]byte(got), &b); err != nil {
		t.Fatalf("got is not JSON: %v\n%s", err, got)
	}
	if diff := cmp.Diff(a, b); diff != "" {
		t.Errorf("(-want +got):\n%s\n%s", diff, got)
	}
}

func messagesBody(members string) []byte {
	if !strings.Contains(members, `"messages"`) {
		members = `"messages":[{"role":"user","content":"hi"}],` + members
	}
	return []byte(`{"model":"m","max_tokens":9,` + strings.TrimSuffix(members, ",") + "}")
}

const chatHi = `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]`

func TestToChat(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ name, members, want string }{
		{"least", "", chatHi + "}"},
		{"sampling", `"stream":true,"temperature":0.5,"top_p":0.9,"top_k":4,"stop_sequences":["a","b"]`,
			chatHi + `,"stream":true,"temperature":0.5,"top_p":0.9,"top_k":4,"stop":["a","b"]}`},
		{"nulls", `"temperature":null,"stop_sequences":[],"metadata":null,"tools":[],"system":null`, chatHi + "}"},
		{"user", `"metadata":{"user_id":"u\"1","other":1}`, chatHi + `,"user":"u\"1"}`},
		{"unknown members travel on", `"x_echo":{"cut":2},"min_p":0.1`, chatHi + `,"x_echo":{"cut":2},"min_p":0.1}`},
		{"what only the dialect has is left out", `"thinking":{"type":"enabled","budget_tokens":1024},"cache_control":{"type":"ephemeral"},"context_management":{},"mcp_servers":[]`, chatHi + "}"},
		{"effort and format", `"output_config":{"effort":"max","format":{"type":"json_schema","schema":{"type":"object"}}}`,
			chatHi + `,"reasoning_effort":"xhigh","response_format":{"type":"json_schema","json_schema":{"name":"output","strict":true,"schema":{"type":"object"}}}}`},
		{"system text", `"system":"be brief"`, `{"model":"m","max_tokens":9,"messages":[{"role":"system","content":"be brief"},{"role":"user","content":"hi"}]}`},
		{"system blocks", `"system":[{"type":"text","text":"a","cache_control":{"type":"ephemeral"}},{"type":"text","text":"b"}]`,
			`{"model":"m","max_tokens":9,"messages":[{"role":"system","content":"a\n\nb"},{"role":"user","content":"hi"}]}`},
		{"tools", `"tools":[{"name":"f","description":"d","input_schema":{"type":"object"},"cache_control":{"type":"ephemeral"}},{"type":"custom","name":"g","input_schema":{},"strict":true}],"tool_choice":{"type":"any","disable_parallel_tool_use":true}`,
			chatHi + `,"tools":[{"type":"function","function":{"name":"f","description":"d","parameters":{"type":"object"}}},{"type":"function","function":{"name":"g","parameters":{},"strict":true}}],"tool_choice":"required","parallel_tool_calls":false}`},
		{"tool choice by name", `"tool_choice":{"type":"tool","name":"f"}`, chatHi + `,"tool_choice":{"type":"function","function":{"name":"f"}}}`},
		{"one text block is a string", `"messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]}]`, chatHi + "}"},
		{"images and documents", `"messages":[{"role":"user","content":[{"type":"text","text":"see"},{"type":"image","source":{"type":"base64","media_type":"image/png","data":"AAAA"}},{"type":"image","source":{"type":"url","url":"https://x/y.png"}},{"type":"document","title":"T","source":{"type":"text","media_type":"text/plain","data":"words"}},{"type":"document","source":{"type":"base64","media_type":"application/pdf","data":"BBBB"}}]}]`,
			`{"model":"m","max_tokens":9,"messages":[{"role":"user","content":[{"type":"text","text":"see"},{"type":"image_url","image_url":{"url":"data:image/png;base64,AAAA"}},{"type":"image_url","image_url":{"url":"https://x/y.png"}},{"type":"text","text":"T\n\nwords"},{"type":"file","file":{"filename":"document.pdf","file_data":"data:application/pdf;base64,BBBB"}}]}]}`},
		{"tools in turns", `"messages":[{"role":"user","content":"q"},{"role":"assistant","content":[{"type":"thinking","thinking":"hm","signature":"s"},{"type":"text","text":"I "},{"type":"text","text":"call"},{"type":"tool_use","id":"t1","name":"f","input":{"a": 1}},{"type":"tool_use","id":"t2","name":"g","input":{}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1","content":"one"},{"type":"tool_result","tool_use_id":"t2","is_error":true,"content":[{"type":"text","text":"two"},{"type":"image","source":{"type":"url","url":"https://i"}}]},{"type":"text","text":"and?"}]}]`,
			`{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"q"},{"role":"assistant","content":"I call","tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{\"a\": 1}"}},{"id":"t2","type":"function","function":{"name":"g","arguments":"{}"}}]},{"role":"tool","content":"one","tool_call_id":"t1"},{"role":"tool","content":"two","tool_call_id":"t2"},{"role":"user","content":[{"type":"image_url","image_url":{"url":"https://i"}},{"type":"text","text":"and?"}]}]}`},
		{"only calls", `"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t1","name":"f"}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t1"}]}]`,
			`{"model":"m","max_tokens":9,"messages":[{"role":"assistant","content":null,"tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{}"}}]},{"role":"tool","content":"","tool_call_id":"t1"}]}`},
		{"system in a turn", `"messages":[{"role":"system","content":"now"},{"role":"user","content":"hi"}]`,
			`{"model":"m","max_tokens":9,"messages":[{"role":"system","content":"now"},{"role":"user","content":"hi"}]}`},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			body := messagesBody(test.members)
			if _, err := openai.ParseRequest(schemas.OpMessages, body, openai.Policy{}); err != nil {
				t.Fatalf("the body is not valid: %v\n%s", err, body)
			}
			got, err := ToChat(body)
			if err != nil {
				t.Fatal(err)
			}
			sameJSON(t, test.want, string(got))
			if _, err := openai.ParseRequest(schemas.OpChat, got, openai.Policy{}); err != nil {
				t.Errorf("what came out is not a valid chat request: %v\n%s", err, got)
			}
		})
	}
}

func TestToChatRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ members, param string }{
		{`"mcp_servers":[{"url":"https://x"}]`, "mcp_servers"},
		{`"tools":[{"type":"web_search_20250305","name":"web_search"}]`, "tools[0].type"},
		{`"tool_choice":{"type":"some"}`, "tool_choice.type"},
		{`"output_config":{"format":{"type":"xml"}}`, "output_config.format"},
		{`"messages":[{"role":"user","content":[{"type":"search_result"}]}]`, "messages[0].content[0].type"},
		{`"messages":[{"role":"user","content":[{"type":"image","source":{"type":"file","file_id":"f"}}]}]`, "messages[0].content[0].source"},
		{`"messages":[{"role":"assistant","content":[{"type":"server_tool_use"}]}]`, "messages[0].content[0].type"},
		{`"messages":[{"role":"robot","content":"x"}]`, "messages[0].role"},
		{`"messages":[{"role":"user","content":7}]`, "messages[0].content"},
		{`"messages":[{"role":"user"}]`, "messages[0].content"},
		{`"system":5`, "system"},
		{`"system":{"text":"be brief"}`, "system"},
		{`"system":[{"type":"text","text":"a"},"be brief"]`, "system[1]"},
		{`"messages":[{"role":"user","content":"x"},{"role":"system","content":[{"type":"image"}]}]`, "messages[1].content[0]"},
	} {
		_, err := ToChat(messagesBody(test.members))
		if err == nil || schemas.AsError(err).Param != test.param || Status(schemas.AsError(err).Code) != 400 {
			t.Errorf("%s: error %v with param %q, want one about %s", test.members, err, schemas.AsError(err).Param, test.param)
		}
	}
}

func TestVersions(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ members, param string }{
		{`"temperature":1`, "temperature"}, {`"top_p":1`, "top_p"}, {`"top_k":0`, "top_k"},
		{`"messages":[{"role":"user","content":"a"},{"role":"assistant","content":[{"type":"document","source":{}}]}]`, "messages[1].content[0]"},
		{`"messages":[{"role":"user","content":[{"type":"text","text":"a","citations":[]}]}]`, "messages[0].content[0].citations"},
	} {
		body := messagesBody(test.members)
		for version, want := range map[string]string{"": "", Version2023: "", Version2026: test.param, "2027-01-01": test.param} {
			err, got := CheckBody(version, body), ""
			if err != nil {
				got = schemas.AsError(err).Param
			}
			if got != want {
				t.Errorf("version %q, %s: refused %q, want %q", version, test.members, got, want)
			}
		}
	}
	for version, ok := range map[string]bool{"": true, Version2023: true, "2026-10-21": true, "latest": false, "2026-10-21\r\nx": false} {
		if err := CheckVersion(version); (err == nil) != ok {
			t.Errorf("CheckVersion(%q) = %v", version, err)
		}
	}
	for beta, ok := range map[string]bool{"": true, "a-2025-01-01, b": true, "a\r\nb": false, strings.Repeat("a", 2048): true, strings.Repeat("a", 2049): false} {
		if err := CheckBeta(beta); (err == nil) != ok {
			t.Errorf("CheckBeta(%.20q) = %v", beta, err)
		}
	}
}

func TestEstimateTokens(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("word ", 720)
	plain := EstimateTokens([]byte(`{"messages":[{"role":"user","content":"` + text + `"}]}`))
	if plain < 1000 || plain > 1020 {
		t.Errorf("3600 bytes of text are %d tokens, want about 1000", plain)
	}
	image := `{"type":"image","source":{"type":"base64","media_type":"image/png","data":"` + strings.Repeat("A", 1<<20) + `"}}`
	for _, content := range []string{image, `{"type":"tool_result","tool_use_id":"t","content":[` + image + `]}`} {
		if got := EstimateTokens([]byte(`{"messages":[{"role":"user","content":[` + content + `]}]}`)); got < imageTokens || got > imageTokens+100 {
			t.Errorf("an image of 1 MiB is %d tokens, want about %d", got, imageTokens)
		}
	}
}

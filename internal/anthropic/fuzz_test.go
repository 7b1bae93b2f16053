package anthropic

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/weir-llm/weir/internal/anthropic/anthropictest"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// FuzzToChat translates every request that the door would let in: what comes out is a chat request, or a refusal that the
// caller is to blame for.
func FuzzToChat(f *testing.F) {
	for _, members := range []string{
		"", `"system":[{"type":"text","text":"a"}],"stop_sequences":["x"],"top_k":1`, `"tools":[{"name":"f","input_schema":{}}],"tool_choice":{"type":"tool","name":"f"}`,
		`"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"t","name":"f","input":{"a":1}}]},{"role":"user","content":[{"type":"tool_result","tool_use_id":"t","content":[{"type":"image","source":{"type":"url","url":"u"}}]}]}]`,
		`"messages":[{"role":"user","content":[{"type":"document","source":{"type":"base64","data":"A"}},7,null,{"type":"text"}]}]`,
		`"output_config":{"effort":7,"format":{}}`, `"metadata":[1]`, `"messages":[{"role":"user","content":[[[]]]}]`,
	} {
		f.Add(messagesBody(members))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		parsed, err := openai.ParseRequest(schemas.OpMessages, body, openai.Policy{})
		if err != nil {
			return
		}
		translated(t, schemas.OpChat, func() ([]byte, error) { return ToChat(parsed.Body) })
		if n := EstimateTokens(parsed.Body); n < 1 {
			t.Errorf("estimate %d", n)
		}
		for _, version := range []string{"", Version2026} {
			blamed(t, CheckBody(version, parsed.Body))
		}
	})
}

// FuzzToMessages is the same in the other direction.
func FuzzToMessages(f *testing.F) {
	for _, members := range []string{
		"", `"temperature":3,"stop":["a"],"user":"u","n":1`, `"tools":[{"type":"function","function":{"name":"f","parameters":{"type":"object"}}}],"tool_choice":"none","parallel_tool_calls":false`,
		`"messages":[{"role":"assistant","tool_calls":[{"id":"c","function":{"name":"f","arguments":"{\"a\":1}"}}]},{"role":"tool","tool_call_id":"c","content":"r"}]`,
		`"messages":[{"role":"user","content":[{"type":"image_url","image_url":{"url":"data:image/png;base64,A"}},7,null]}]`,
		`"response_format":{"type":"json_schema"},"reasoning_effort":"low"`, `"stop":7`, `"output_config":{"effort":"low"}`,
	} {
		f.Add(chatBody(members))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		parsed, err := openai.ParseRequest(schemas.OpChat, body, openai.Policy{})
		if err != nil {
			return
		}
		translated(t, "", func() ([]byte, error) { return ToMessages(parsed.Body, ChatPolicy{MaxTokens: 1}) })
	})
}

// translated checks what became of a request. Op is what the outcome must be valid as, or empty: a turn without content is
// left out, so that a conversation of nothing else is for the server to refuse.
func translated(t *testing.T, op schemas.Op, translate func() ([]byte, error)) {
	t.Helper()
	out, err := translate()
	if err != nil {
		blamed(t, err)
		return
	}
	if !json.Valid(out) {
		t.Fatalf("not JSON: %s", out)
	}
	if op == "" {
		return
	}
	if _, err := openai.ParseRequest(op, out, openai.Policy{}); err != nil && schemas.AsError(err).Code == schemas.CodeInvalidJSON {
		t.Fatalf("%v: %s", err, out)
	}
}

// blamed checks that an error tells the caller what to change.
func blamed(t *testing.T, err error) {
	t.Helper()
	if err == nil {
		return
	}
	if e := schemas.AsError(err); Status(e.Code) != 400 || e.Param == "" {
		t.Errorf("the error does not say what to change: %v", err)
	}
}

// FuzzTranslator puts any lines that a model server may send through the translator: whatever they are, the events are
// those of one well-formed answer.
func FuzzTranslator(f *testing.F) {
	f.Add(strings.Join([]string{chunk(`"content":"a"`, "null"), toolChunk(0, "t0", "f", `{"a`), toolChunk(1, "t1", "g", "{}"), chunk(`"reasoning":"b"`, `"stop"`), usageChunk}, "\n"))
	f.Add(chunk(`"tool_calls":[7,null,{"index":"x"},{"index":-1,"function":{"arguments":"}}{{\"\\"}}]`, "null") + "\n" + chunk(`"tool_calls":[{"index":1e99}],"content":"a"`, "7"))
	f.Add(`{"choices":[{"index":0,"delta":{"refusal":"no","content":"\ud800"}}],"usage":{"prompt_tokens":-5,"completion_tokens":"x"}}`)
	f.Fuzz(func(t *testing.T, lines string) {
		tr := newTranslator()
		var events []string
		var c openai.Chunk
		for data := range strings.Lines(lines) {
			if c.Peek([]byte(data)) != nil {
				continue
			}
			made, err := tr.Add(&c)
			if err != nil {
				return
			}
			events = appendStrings(events, made)
		}
		events = appendStrings(events, tr.Done())
		if _, whole, err := assemble(events); err != nil || !whole {
			t.Fatalf("whole %v, %v\n%s", whole, err, strings.Join(events, "\n"))
		}
		toChunks(t, events)
		if err := newTranslator().Resume(indexed(events)); err != nil && !strings.Contains(strings.Join(events, ""), "tool_use") {
			t.Errorf("cannot be gone on with: %v", err)
		}
	})
}

// FuzzChunks puts any lines that an Anthropic server may send through the other one: what comes out is one line of JSON
// that says what the chunk beside it says.
func FuzzChunks(f *testing.F) {
	f.Add(strings.Join(anthropictest.Whole("tool_use", anthropictest.Thinking(0, "s", "a"), anthropictest.Text(1, "b"), anthropictest.Tool(2, "t", "f", "{}")), "\n"))
	f.Add(`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"\ud800\u0000"}}` + "\n" + `{"type":"message_delta","delta":{"stop_reason":"x"},"usage":{"output_tokens":1e30}}`)
	f.Fuzz(func(t *testing.T, lines string) {
		var events []string
		for data := range strings.Lines(lines) {
			if e := (Event{}); e.Peek(openai.ToUTF8([]byte(data))) == nil {
				events = append(events, string(openai.ToUTF8([]byte(data))))
			}
		}
		if len(events) == 0 || !strings.Contains(events[0], `"message_start"`) {
			events = append([]string{anthropictest.Start}, events...)
		}
		for _, chunk := range toChunks(t, events) {
			if strings.ContainsAny(chunk, "\r\n") {
				t.Fatalf("several lines: %q", chunk)
			}
		}
	})
}

// FuzzUnary puts any document through both translations of a whole answer.
func FuzzUnary(f *testing.F) {
	f.Add([]byte(anthropictest.Message("hi")))
	f.Add([]byte(`{"choices":[{"message":{"content":7,"tool_calls":[{"function":{"arguments":"{}"}},7]},"finish_reason":"stop"}],"usage":[]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		data = openai.ToUTF8(data)
		if out, err := FromResponse(data, "msg_1", "m", 1); err == nil && !json.Valid(out) {
			t.Fatalf("not JSON: %s", out)
		}
		if out, err := ToResponse(data, "m", 1); err == nil && !json.Valid(out) {
			t.Fatalf("not JSON: %s", out)
		}
		if m, err := ParseMessage(data); err == nil && !json.Valid(m.WithModel(data, "other")) {
			t.Fatalf("not JSON: %s", m.WithModel(data, "other"))
		}
	})
}

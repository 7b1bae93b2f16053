package anthropic

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/anthropic/anthropictest"
	"github.com/weir-llm/weir/internal/openai"
)

// toChunks turns events into the chunks that a caller who asked for the usage gets. What a chunk says must be what its
// JSON says.
func toChunks(t testing.TB, events []string) (chunks []string) {
	t.Helper()
	made := &Chunks{Model: "m", Created: 1, IncludeUsage: true}
	var e Event
	var read openai.Chunk
	for _, data := range events {
		if err := e.Peek([]byte(data)); err != nil {
			t.Fatal(err)
		}
		out, says := made.Add(&e)
		if len(out) == 0 {
			continue
		}
		if err := read.Peek(out); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
		said := func(c *openai.Chunk) (string, []string) {
			var all []string
			for _, o := range c.Choices {
				all = append(all, o.Role, o.Content, o.Reasoning, o.ToolCalls, o.Finish)
			}
			return c.Usage, all
		}
		usage1, choices1 := said(&read)
		usage2, choices2 := said(says)
		if diff := cmp.Diff(choices1, choices2); diff != "" || usage1 != usage2 {
			t.Fatalf("the chunk says something else than its JSON (-JSON +chunk):\n%s\nusage %s and %s", diff, usage1, usage2)
		}
		chunks = append(chunks, string(out))
	}
	return chunks
}

func TestChunks(t *testing.T) {
	t.Parallel()
	events := anthropictest.Whole("tool_use", anthropictest.Thinking(0, "sig", "h", "m"), anthropictest.Text(1, "a", "b"),
		[]string{`{"type":"content_block_start","index":2,"content_block":{"type":"redacted_thinking","data":"x"}}`, `{"type":"content_block_stop","index":2}`},
		anthropictest.Tool(3, "t1", "f", "", `{"a":`, `1}`), anthropictest.Tool(4, "t2", "g"))
	head := `{"id":"msg_up","object":"chat.completion.chunk","created":1,"model":"m","choices":[`
	delta := func(members string) string {
		return head + `{"index":0,"delta":{` + members + `},"finish_reason":null}]}`
	}
	want := []string{
		delta(`"role":"assistant","content":""`), delta(`"reasoning_content":"h"`), delta(`"reasoning_content":"m"`), delta(`"content":"a"`), delta(`"content":"b"`),
		delta(`"tool_calls":[{"index":0,"id":"t1","type":"function","function":{"name":"f","arguments":""}}]`),
		delta(`"tool_calls":[{"index":0,"function":{"arguments":"{\"a\":"}}]`), delta(`"tool_calls":[{"index":0,"function":{"arguments":"1}"}}]`),
		delta(`"tool_calls":[{"index":1,"id":"t2","type":"function","function":{"name":"g","arguments":""}}]`),
		head + `{"index":0,"delta":{},"finish_reason":"tool_calls"}]}`,
		head + `],"usage":{"prompt_tokens":15,"completion_tokens":7,"total_tokens":22,"prompt_tokens_details":{"cached_tokens":3,"cache_write_tokens":2}}}`,
	}
	if diff := cmp.Diff(want, toChunks(t, events)); diff != "" {
		t.Errorf("chunks (-want +got):\n%s", diff)
	}
}

func TestStopReasons(t *testing.T) {
	t.Parallel()
	for stop, want := range map[string]string{
		"end_turn": "stop", "stop_sequence": "stop", "pause_turn": "stop", "max_tokens": "length", "model_context_window_exceeded": "length",
		"tool_use": "tool_calls", "refusal": "content_filter", "later": "stop", "": "",
	} {
		if got := finishOf(stop); got != want {
			t.Errorf("stop_reason %q is finish_reason %q, want %q", stop, got, want)
		}
	}
}

func TestAnswerIsWholeOnlyWithItsEnd(t *testing.T) {
	t.Parallel()
	events := anthropictest.Answer("a", "b")
	var a Answer
	var e Event
	for i, data := range events {
		if a.Whole() {
			t.Errorf("whole before event %d of %d", i, len(events))
		}
		if err := e.Peek([]byte(data)); err != nil {
			t.Fatal(err)
		}
		a.Add(&e)
	}
	if !a.Whole() {
		t.Error("not whole at its end")
	}
}

func TestUnary(t *testing.T) {
	t.Parallel()
	response := `{"id":"c","object":"chat.completion","created":1,"model":"up","choices":[{"index":0,"message":{"role":"assistant","content":"hi","reasoning_content":"hm","refusal":null,"tool_calls":[{"id":"t1","type":"function","function":{"name":"f","arguments":"{\"a\":\n1}"}}]},"logprobs":null,"finish_reason":"tool_calls"}],"usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":3,"cache_write_tokens":2}}}`
	message, err := FromResponse([]byte(response), "msg_1", "m", 99)
	if err != nil {
		t.Fatal(err)
	}
	sameJSON(t, `{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"thinking","thinking":"hm","signature":""},{"type":"text","text":"hi"},{"type":"tool_use","id":"t1","name":"f","input":{"a":1}}],"stop_reason":"tool_use","stop_sequence":null,"usage":{"input_tokens":5,"cache_creation_input_tokens":2,"cache_read_input_tokens":3,"output_tokens":4}}`, string(message))
	if strings.ContainsAny(string(message), "\r\n") {
		t.Errorf("several lines: %s", message)
	}
	back, err := ToResponse(message, "m", 1)
	if err != nil {
		t.Fatal(err)
	}
	want := strings.NewReplacer(`"id":"c"`, `"id":"msg_1"`, `"up"`, `"m"`, `\n`, " ").Replace(response)
	sameJSON(t, want, string(back))

	cut := strings.NewReplacer(`{\"a\":\n1}`, `{\"a`, `"finish_reason":"tool_calls"`, `"finish_reason":"length"`).Replace(response)
	if message, err = FromResponse([]byte(cut), "msg_1", "m", 99); err != nil || gjson.GetBytes(message, "content.2.input").Raw != "{}" {
		t.Errorf("arguments cut by the limit: %v, %s", err, message)
	}
	for _, bad := range []string{strings.Replace(response, `{\"a\":\n1}`, `[1]`, 1), strings.Replace(response, `{\"a\":\n1}`, strings.Repeat("[", 100_000), 1), "[]"} {
		if _, err := FromResponse([]byte(bad), "msg_1", "m", 99); err == nil {
			t.Errorf("no error for %.200s", bad)
		}
	}
}

func TestWithModel(t *testing.T) {
	t.Parallel()
	var e Event
	for data, want := range map[string]string{
		` {"message":{"id":"x", "model" : "up","content":[]},"type":"message_start"}`: ` {"message":{"id":"x", "model" : "a\"b","content":[]},"type":"message_start"}`,
		`{"type":"message_stop"}`: `{"type":"message_stop"}`,
	} {
		if err := e.Peek([]byte(data)); err != nil {
			t.Fatal(err)
		}
		if got := string(e.WithModel([]byte(data), `a"b`)); got != want {
			t.Errorf("%s becomes %s, want %s", data, got, want)
		}
	}
	m, err := ParseMessage([]byte(anthropictest.Message("x")))
	if err != nil {
		t.Fatal(err)
	}
	if got, want := string(m.WithModel([]byte(anthropictest.Message("x")), "other")), strings.Replace(anthropictest.Message("x"), `"model":"m"`, `"model":"other"`, 1); got != want {
		t.Errorf("message becomes %s", got)
	}
}

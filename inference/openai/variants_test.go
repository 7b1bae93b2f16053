package openai_test

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/openai"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	"github.com/weir-llm/weir/schemas"
)

// quirk is one way in which a server that calls itself compatible differs, and what becomes of it. Each has its line in
// docs/backends.md.
type quirk struct {
	server, name string
	config       openai.Config
	members      string // of the request
	tell         bool   // the request asks for token ids
	unary        bool
	dials        openaitest.Dials

	events []string // that the caller gets
	code   schemas.Code
	after  time.Duration // when to come back
	usage  string        // prompt and completion tokens that the pipeline learns
}

// sse is a stream of these events with its end mark.
func sse(events ...string) openaitest.Dials { return openaitest.Dials{Events: events} }

// raw is a stream of these bytes.
func raw(bytes string) openaitest.Dials {
	return openaitest.Dials{Body: bytes, Header: map[string]string{"Content-Type": "text/event-stream"}}
}

func refused(status int, body string) openaitest.Dials {
	return openaitest.Dials{Status: status, Body: body}
}

// chunk is a chunk with one choice.
func chunk(choice string) string { return openaitest.Chunk(choice) }

// with adds members to a chunk, after its choices.
func with(chunk, members string) string { return strings.TrimSuffix(chunk, "}") + "," + members + "}" }

const (
	begins = `"delta":{"role":"assistant","content":""},"finish_reason":null`
	hello  = `"delta":{"content":"Hello"},"finish_reason":null`
	ends   = `"delta":{},"finish_reason":"stop"`
	called = `"delta":{},"finish_reason":"tool_calls"`
	tool   = `,"tools":[{"type":"function","function":{"name":"f"}}]`
)

// calls is a delta with calls of tools.
func calls(all string) string {
	return chunk(`"delta":{"role":"assistant","tool_calls":[` + all + `]},"finish_reason":null`)
}

func quirks() []quirk {
	whole := []string{chunk(begins), chunk(hello), chunk(ends)}
	with7 := with(chunk(hello), `"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}`)
	doc := func(message, finish string) string {
		return `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":` + message + `,"finish_reason":"` + finish + `"}]}`
	}
	return []quirk{
		{server: "vLLM", name: "an error that is the whole event", dials: sse(chunk(begins), `{"object":"error","message":"top_k must be -1 or at least 1","type":"BadRequestError","param":null,"code":400}`), events: whole[:1], code: schemas.CodeUpstreamRejected},
		{server: "vLLM", name: "an end mark after an error", dials: sse(chunk(begins), `{"error":{"message":"EngineDeadError","type":"InternalServerError","param":null,"code":500}}`), events: whole[:1], code: schemas.CodeUpstreamError},
		{server: "vLLM", name: "an error reply that is the whole body", dials: refused(404, `{"object":"error","message":"The model m does not exist.","type":"NotFoundError","param":null,"code":404}`), code: schemas.CodeModelNotFound},
		{server: "vLLM", name: "a context length in words alone", dials: refused(400, `{"object":"error","message":"This model's maximum context length is 2048 tokens. However, you requested 4096 tokens.","type":"BadRequestError","param":null,"code":400}`), code: schemas.CodeContextLength},
		{server: "vLLM", name: "an empty list of calls", unary: true, dials: openaitest.Dials{Body: doc(`{"role":"assistant","content":"Hello","reasoning_content":null,"tool_calls":[]}`, "stop")}, events: []string{doc(`{"role":"assistant","content":"Hello","reasoning_content":null,"tool_calls":[]}`, "stop")}},
		{server: "vLLM", name: "usage and token ids that Weir asked for", config: openai.Config{Continue: inference.ContinueTokens}, tell: true,
			dials:  sse(with(chunk(begins), `"prompt_token_ids":[1,2]`), with(chunk(`"delta":{"content":"Hello"},"finish_reason":null,"token_ids":[7]`), `"usage":{"prompt_tokens":2,"completion_tokens":1,"total_tokens":3}`), chunk(ends)),
			events: whole, usage: "2 1"},
		{server: "vLLM", name: "finish_reason abort", dials: sse(chunk(begins), chunk(hello), chunk(`"delta":{},"finish_reason":"abort"`)), events: whole[:2], code: schemas.CodeUpstreamInterrupted},
		{server: "vLLM", name: "members of its own", dials: sse(chunk(begins), chunk(`"delta":{"reasoning_content":"Hm"},"logprobs":null,"finish_reason":null`), chunk(`"delta":{},"finish_reason":"stop","stop_reason":null`)),
			events: []string{chunk(begins), chunk(`"delta":{"reasoning_content":"Hm"},"logprobs":null,"finish_reason":null`), chunk(`"delta":{},"finish_reason":"stop","stop_reason":null`)}},

		{server: "llama.cpp", name: "a field error in place of data", dials: raw("error: {\"code\":400,\"message\":\"the request exceeds the available context size. try increasing it\",\"type\":\"invalid_request_error\"}\n\ndata: [DONE]\n\n"), code: schemas.CodeContextLength},
		{server: "llama.cpp", name: "an end mark without a blank line", dials: raw("data: " + strings.Join(whole, "\n\ndata: ") + "\n\ndata: [DONE]"), events: whole},
		{server: "llama.cpp", name: "content null in the first chunk", dials: sse(chunk(`"delta":{"role":"assistant","content":null},"finish_reason":null`), chunk(hello), chunk(ends)), events: []string{chunk(`"delta":{"role":"assistant","content":null},"finish_reason":null`), chunk(hello), chunk(ends)}},
		{server: "llama.cpp", name: "usage in the last chunk of the answer", dials: sse(chunk(begins), chunk(hello), with(chunk(ends), `"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4},"timings":{"n":1}`)),
			events: []string{chunk(begins), chunk(hello), with(chunk(ends), `"usage":{"prompt_tokens":3,"completion_tokens":1,"total_tokens":4},"timings":{"n":1}`)}, usage: "3 1"},
		{server: "llama.cpp", name: "503 while the model loads", dials: refused(503, `{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}`), code: schemas.CodeUpstreamError},
		{server: "llama.cpp", name: "exceed_context_size_error", dials: refused(400, `{"error":{"code":400,"message":"it is too much","type":"exceed_context_size_error","n_prompt_tokens":9,"n_ctx":8}}`), code: schemas.CodeContextLength},
		{server: "llama.cpp", name: "comments as signs of life", dials: raw(": ping\n\n:\n\ndata: " + strings.Join(whole, "\n\n: ping\n\ndata: ") + "\n\ndata: [DONE]\n\n"), events: whole},

		{server: "Ollama", name: "every call has index 0", members: tool,
			dials: sse(calls(`{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}`), calls(`{"index":0,"id":"b","type":"function","function":{"name":"f","arguments":"{}"}}`), chunk(called)),
			events: []string{calls(`{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{}"}}`),
				calls(`{"index":1,"id":"b","type":"function","function":{"name":"f","arguments":"{}"}}`), chunk(called)}},
		{server: "Ollama", name: "stop after calls of tools", members: tool, dials: sse(calls(`{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}`), chunk(ends)), events: []string{calls(`{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}`), chunk(called)}},
		{server: "Ollama", name: "an error that is a sentence", dials: refused(404, `{"error":"model \"m\" not found, try pulling it first"}`), code: schemas.CodeModelNotFound},
		{server: "Ollama", name: "a sentence as an error in a stream", dials: sse(chunk(begins), `{"error":"an error was encountered while running the model"}`), events: whole[:1], code: schemas.CodeUpstreamError},
		{server: "Ollama", name: "an end mark although the model died", dials: sse(chunk(begins), chunk(hello)), events: whole[:2], code: schemas.CodeUpstreamInterrupted},
		{server: "Ollama", name: "503 when it is busy", dials: refused(503, `{"error":"server busy, please try again.  maximum pending requests exceeded"}`), code: schemas.CodeOverloaded},

		{server: "Gemini", name: "calls without an index", members: tool, dials: sse(calls(`{"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},{"id":"b","type":"function","function":{"name":"f","arguments":"{}"}}`), chunk(called)),
			events: []string{calls(`{"index":0,"id":"a","type":"function","function":{"name":"f","arguments":"{}"}},{"index":1,"id":"b","type":"function","function":{"name":"f","arguments":"{}"}}`), chunk(called)}},
		{server: "Gemini", name: "calls with an empty id", members: tool, dials: sse(calls(`{"id":"","function":{"name":"f","arguments":"{}"}}`), calls(`{"function":{"name":"g","arguments":"{}"}}`), chunk(called)),
			events: []string{calls(`{"index":0,"id":"call_req_1_0","function":{"name":"f","arguments":"{}"}}`), calls(`{"index":1,"id":"call_req_1_1","function":{"name":"g","arguments":"{}"}}`), chunk(called)}},
		{server: "Gemini", name: "an empty id in a whole answer", members: tool, unary: true, dials: openaitest.Dials{Body: doc(`{"role":"assistant","content":null,"tool_calls":[{"id":"","function":{"name":"f","arguments":"{}"},"type":"function"}]}`, "stop")},
			events: []string{doc(`{"role":"assistant","content":null,"tool_calls":[{"id":"call_req_1_0","function":{"name":"f","arguments":"{}"},"type":"function"}]}`, "tool_calls")}},
		{server: "Gemini", name: "stop in the stream of a call", members: tool, dials: sse(chunk(`"delta":{"role":"assistant","tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"stop"`)),
			events: []string{chunk(`"delta":{"role":"assistant","tool_calls":[{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}]},"finish_reason":"tool_calls"`)}},
		{server: "Gemini", name: "an array around an error, with the wait in its details", dials: refused(429, `[{"error":{"code":429,"message":"Quota exceeded.","status":"RESOURCE_EXHAUSTED","details":[{"@type":"type.googleapis.com/google.rpc.Help"},{"@type":"type.googleapis.com/google.rpc.RetryInfo","retryDelay":"34s"}]}}]`), code: schemas.CodeRateLimit, after: 34 * time.Second},
		{server: "Gemini", name: "no end mark", dials: openaitest.Dials{Events: whole, NoDone: true}, events: whole},
		{server: "Gemini", name: "function_call_filter", members: tool, dials: sse(chunk(hello), chunk(`"delta":{},"finish_reason":"function_call_filter: MALFORMED_FUNCTION_CALL"`)), events: []string{chunk(`"delta":{"role":"assistant","content":"Hello"},"finish_reason":null`)}, code: schemas.CodeUpstreamError},
		{server: "Gemini", name: "a filter with its name", dials: sse(chunk(begins), chunk(`"delta":{},"finish_reason":"content_filter: PROHIBITED_CONTENT"`)), events: []string{chunk(begins), chunk(`"delta":{},"finish_reason":"content_filter"`)}},
		{server: "Gemini", name: "signatures of thoughts", members: tool, dials: sse(calls(`{"index":0,"id":"a","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"c2ln"}}}`), chunk(called)),
			events: []string{calls(`{"index":0,"id":"a","function":{"name":"f","arguments":"{}"},"extra_content":{"google":{"thought_signature":"c2ln"}}}`), chunk(called)}},
		{server: "Gemini", name: "usage in every chunk", dials: sse(with7, with(chunk(ends), `"usage":{"prompt_tokens":5,"completion_tokens":9,"total_tokens":14}`)),
			events: []string{with(chunk(`"delta":{"role":"assistant","content":"Hello"},"finish_reason":null`), `"usage":{"prompt_tokens":5,"completion_tokens":1,"total_tokens":6}`), with(chunk(ends), `"usage":{"prompt_tokens":5,"completion_tokens":9,"total_tokens":14}`)}, usage: "5 9"},

		{server: "OpenAI", name: "stop after a tool that was forced", members: tool + `,"tool_choice":{"type":"function","function":{"name":"f"}}`, dials: sse(calls(`{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}`), calls(`{"index":0,"function":{"arguments":" "}}`), chunk(ends)),
			events: []string{calls(`{"index":0,"id":"a","function":{"name":"f","arguments":"{}"}}`), calls(`{"index":0,"function":{"arguments":" "}}`), chunk(ends)}},
		{server: "Azure", name: "a first chunk that only tells of filters", dials: sse(`{"choices":[],"created":0,"id":"","model":"m","object":"","prompt_filter_results":[{"prompt_index":0}]}`, chunk(begins), chunk(ends)),
			events: []string{`{"choices":[],"created":0,"id":"","model":"m","object":"","prompt_filter_results":[{"prompt_index":0}]}`, chunk(begins), chunk(ends)}},
		{server: "OpenRouter", name: "finish_reason error", dials: sse(chunk(begins), chunk(`"delta":{"content":""},"finish_reason":"error"`)), events: whole[:1], code: schemas.CodeUpstreamError},
		{server: "others", name: "error null", dials: sse(with(chunk(begins), `"error":null`), chunk(ends)), events: []string{chunk(begins), chunk(ends)}},
		{server: "others", name: "a chunk without choices", dials: sse(chunk(begins), `{"id":"c","x":1}`, chunk(ends)), events: []string{chunk(begins), `{"id":"c","x":1,"choices":[]}`, chunk(ends)}},
		{server: "others", name: "no role", dials: sse(chunk(hello), chunk(ends)), events: []string{chunk(`"delta":{"role":"assistant","content":"Hello"},"finish_reason":null`), chunk(ends)}},
		{server: "others", name: "an event that is named an error", dials: raw("data: " + chunk(begins) + "\n\nevent: error\ndata: {\"message\":\"x\"}\n\n"), events: whole[:1], code: schemas.CodeUpstreamError},
		{server: "others", name: "events without data, or of a kind of their own", dials: raw("event: x\n\nevent: ping\ndata: {}\n\ndata: " + strings.Join(whole, "\n\ndata: ") + "\n\n"), events: whole},
		{server: "others", name: "no finish_reason at all", config: openai.Config{RequireFinishReason: new(false)}, dials: sse(whole[:2]...), events: whole[:2]},
	}
}

// TestVariants has each known quirk of a server that calls itself compatible.
func TestVariants(t *testing.T) {
	t.Parallel()
	for _, q := range quirks() {
		t.Run(q.server+"/"+q.name, func(t *testing.T) {
			t.Parallel()
			b, _ := start(t, q.config, q.dials)
			body := strings.TrimSuffix(streamed, "}") + q.members + "}"
			if q.unary {
				body = strings.TrimSuffix(unary, "}") + q.members + "}"
			}
			r := request(body)
			r.Tell = q.tell
			events, usage, err := generate(t.Context(), b, r)
			if diff := cmp.Diff(q.events, events); diff != "" {
				t.Errorf("the caller got (-want +got):\n%s", diff)
			}
			var code schemas.Code
			var after time.Duration
			if err != nil {
				code, after = err.Code, err.RetryAfter
			}
			if code != q.code || after != q.after {
				t.Errorf("it ended with %v (after %v), want %q (after %v)", err, after, q.code, q.after)
			}
			if got := counts(usage); q.usage != "" && got != q.usage {
				t.Errorf("usage %s, want %s", got, q.usage)
			}
		})
	}
}

func counts(u *schemas.Usage) string {
	if u == nil {
		return "none"
	}
	return fmt.Sprint(u.PromptTokens, u.CompletionTokens)
}

// TestVariantsAreDocumented holds the table in docs/backends.md against the tests.
func TestVariantsAreDocumented(t *testing.T) {
	t.Parallel()
	page, err := os.ReadFile("../../docs/backends.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, found := strings.Cut(string(page), "| Server | What it does | What becomes of it |\n|---|---|---|\n")
	table, _, ended := strings.Cut(table, "\n\n")
	if !found || !ended {
		t.Fatal("docs/backends.md has no table of servers")
	}
	left := map[string]bool{}
	for line := range strings.Lines(table) {
		cells := strings.Split(line, " | ")
		left[strings.TrimPrefix(cells[0], "| ")+": "+cells[1]] = true
	}
	for _, q := range quirks() {
		if key := q.server + ": " + q.name; !left[key] {
			t.Errorf("docs/backends.md lacks %q", key)
		} else {
			delete(left, key)
		}
	}
	for key := range left {
		t.Errorf("docs/backends.md has %q, which is not tested", key)
	}
}

package anthropic_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/anthropic"
	"github.com/weir-llm/weir/internal/anthropic/anthropictest"
	"github.com/weir-llm/weir/schemas"
)

const (
	messages = `{"model":"m","max_tokens":9,"stream":true,"messages":[{"role":"user","content":[{"type":"text","text":"hi","cache_control":{"type":"ephemeral"}}]}],"thinking":{"type":"enabled","budget_tokens":1024},"later":[1, 2]}`
	chat     = `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`
)

func unary(body string) string { return strings.Replace(body, `"stream":true,`, "", 1) }

// request is a call with a body of one of the constants, or like them.
func request(op schemas.Op, body string) *inference.GenerateRequest {
	return &inference.GenerateRequest{
		Identity: schemas.Identity{Tenant: "acme", Request: "req_1"}, Op: op,
		Body: []byte(body), Stream: strings.Contains(body, `"stream":true`), Attempt: 1, Try: 1,
	}
}

func start(t *testing.T, config anthropic.Config, dials ...anthropictest.Dials) (*anthropic.Backend, *anthropictest.Server) {
	t.Helper()
	server := anthropictest.New(t, dials...)
	config.Name, config.URL = "test", server.URL
	return backend(t, config), server
}

func backend(t testing.TB, config anthropic.Config) *anthropic.Backend {
	t.Helper()
	b, err := anthropic.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// told is what the events say of an answer to whoever does not read them.
type told struct {
	Finish, Model string
	Usage         *schemas.Usage
}

func generate(ctx context.Context, b inference.Backend, r *inference.GenerateRequest) (events []string, says told, err *schemas.Error) {
	for event, e := range b.Generate(ctx, r) {
		if e != nil {
			return events, says, schemas.AsError(e)
		}
		if len(event.Data) > 0 {
			events = append(events, string(event.Data))
		}
		if u := event.Chunk.ParseUsage(); u != nil {
			says.Usage = u
		}
		for _, choice := range event.Chunk.Choices {
			says.Finish += choice.Finish
		}
		if event.Chunk.Model != "" {
			says.Model = event.Chunk.Model
		}
	}
	return events, says, nil
}

var wantTold = told{Finish: "stop", Model: "m", Usage: &schemas.Usage{
	PromptTokens: 15, CompletionTokens: 7, TotalTokens: 22, PromptDetails: json.RawMessage(`{"cached_tokens":3,"cache_write_tokens":2}`),
}}

func TestRelay(t *testing.T) {
	t.Parallel()
	// As servers write them: members in any order, spaces, events and blocks that nobody knows yet.
	all := anthropictest.Whole("end_turn", anthropictest.Thinking(0, "c2lnbmF0dXJl", "hm"), anthropictest.Text(1, "Hello"),
		[]string{`{"index": 2, "type": "content_block_start", "content_block": {"type": "later", "x": [1, 2]}}`, `{"type":"brand_new","y":null}`, `{"type":"content_block_stop","index":2}`})
	b, server := start(t, anthropic.Config{APIKey: "sk-1", Headers: map[string]string{"x-org": "org"}}, anthropictest.Dials{Events: all, Pings: true})
	r := request(schemas.OpMessages, messages)
	r.Header = schemas.Header{
		"traceparent": {"00-a-b-01"}, "Llm-Priority": {"batch"}, "Cookie": {"c"},
		schemas.HeaderAnthropicVersion: {"2026-10-21"}, schemas.HeaderAnthropicBeta: {"one-2025-01-01,two"},
	}
	events, says, err := generate(t.Context(), b, r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(wantTold, says); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	got := server.Requests()[0]
	if got.Path != "/v1/messages" || got.Body != messages {
		t.Errorf("server got %s %s, want the body untouched", got.Path, got.Body)
	}
	for name, want := range map[string]string{
		"X-Api-Key": "sk-1", "Authorization": "", "X-Org": "org", "Traceparent": "00-a-b-01", "Accept": "text/event-stream", "Content-Type": "application/json",
		"Anthropic-Version": "2026-10-21", "Anthropic-Beta": "one-2025-01-01,two", "Llm-Priority": "", "Cookie": "", "Llm-Anthropic-Version": "",
	} {
		if got := got.Header.Get(name); got != want {
			t.Errorf("header %s = %q, want %q", name, got, want)
		}
	}
}

func TestRelayUnary(t *testing.T) {
	t.Parallel()
	pretty := strings.ReplaceAll(anthropictest.Message("Hello  é"), `,"role"`, ",\n  \"role\"")
	for name, body := range map[string]string{"as it is": anthropictest.Message("Hello  é"), "indented": pretty} {
		b, server := start(t, anthropic.Config{}, anthropictest.Dials{Body: body})
		events, says, err := generate(t.Context(), b, request(schemas.OpMessages, unary(messages)))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{anthropictest.Message("Hello  é")}, events); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", name, diff)
		}
		if diff := cmp.Diff(wantTold, says); diff != "" {
			t.Errorf("%s: told (-want +got):\n%s", name, diff)
		}
		if got := server.Requests()[0]; got.Header.Get("Accept") != "application/json" || got.Header.Get("Anthropic-Version") != "2023-06-01" {
			t.Errorf("%s: server got %v", name, got.Header)
		}
	}
}

func TestModelNames(t *testing.T) {
	t.Parallel()
	for _, op := range []schemas.Op{schemas.OpMessages, schemas.OpChat} {
		for _, body := range map[schemas.Op][]string{schemas.OpMessages: {messages, unary(messages)}, schemas.OpChat: {chat, unary(chat)}}[op] {
			real := strings.Replace(anthropictest.Start, `"model":"m"`, `"model":"real"`, 1)
			dials := anthropictest.Dials{Events: append([]string{real}, anthropictest.Answer("a")[1:]...)}
			if !strings.Contains(body, "stream") {
				dials = anthropictest.Dials{Body: strings.Replace(anthropictest.Message("a"), `"model":"m"`, `"model":"real"`, 1)}
			}
			b, server := start(t, anthropic.Config{Model: "real"}, dials)
			events, says, err := generate(t.Context(), b, request(op, body))
			if err != nil {
				t.Fatal(err)
			}
			if got := server.Requests()[0].Body; !strings.Contains(got, `"model":"real"`) {
				t.Errorf("server got %s", got)
			}
			if !strings.Contains(events[0], `"model":"m"`) || says.Model != "real" {
				t.Errorf("caller got %s, and the pipeline was told %q", events[0], says.Model)
			}
		}
	}
}

func TestChat(t *testing.T) {
	t.Parallel()
	all := anthropictest.Whole("tool_use", anthropictest.Thinking(0, "sig", "hm"), anthropictest.Text(1, "Hello"), anthropictest.Tool(2, "t1", "f", `{"a":1}`))
	b, server := start(t, anthropic.Config{MaxTokens: 77}, anthropictest.Dials{Events: all, Pings: true})
	r := request(schemas.OpChat, strings.Replace(chat, `"stream":true`, `"stream":true,"stream_options":{"include_usage":true},"temperature":0.5`, 1))
	r.Header = schemas.Header{schemas.HeaderAnthropicVersion: {"2026-10-21"}}
	events, says, err := generate(t.Context(), b, r)
	if err != nil {
		t.Fatal(err)
	}
	want := wantTold
	want.Finish = "tool_calls"
	if diff := cmp.Diff(want, says); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
	for i, part := range []string{`"role":"assistant"`, `"reasoning_content":"hm"`, `"content":"Hello"`, `"name":"f"`, `"arguments":"{\"a\":1}"`, `"finish_reason":"tool_calls"`, `"prompt_tokens":15`} {
		if len(events) != 7 || !strings.Contains(events[i], part) {
			t.Fatalf("want %s in event %d of\n%s", part, i, strings.Join(events, "\n"))
		}
	}
	got := server.Requests()[0]
	wantBody := `{"max_tokens":77,"model":"m","stream":true,"temperature":0.5,"messages":[{"role":"user","content":[{"type":"text","text":"hi"}]}]}`
	if got.Body != wantBody || got.Header.Get("Anthropic-Version") != "2023-06-01" {
		t.Errorf("server got version %s and %s", got.Header.Get("Anthropic-Version"), got.Body)
	}
}

func TestChatUnary(t *testing.T) {
	t.Parallel()
	b, _ := start(t, anthropic.Config{})
	events, says, err := generate(t.Context(), b, request(schemas.OpChat, unary(chat)))
	if err != nil || len(events) != 1 || !strings.Contains(events[0], `"content":"Hello world"`) || !strings.Contains(events[0], `"finish_reason":"stop"`) {
		t.Errorf("%v, %v", events, err)
	}
	if diff := cmp.Diff(wantTold, says); diff != "" {
		t.Errorf("told (-want +got):\n%s", diff)
	}
}

func TestChatThatCannotBeAsked(t *testing.T) {
	t.Parallel()
	b, server := start(t, anthropic.Config{})
	_, _, err := generate(t.Context(), b, request(schemas.OpChat, strings.Replace(chat, "{", `{"n":2,`, 1)))
	if err == nil || err.Code != schemas.CodeUnsupported || err.Param != "n" || len(server.Requests()) != 0 {
		t.Errorf("error %v after %d calls", err, len(server.Requests()))
	}
	_, _, err = generate(t.Context(), b, request(schemas.OpEmbedding, chat))
	if err == nil || err.Code != schemas.CodeUnsupported {
		t.Errorf("embedding: %v", err)
	}
}

func TestCountTokens(t *testing.T) {
	t.Parallel()
	b, server := start(t, anthropic.Config{Model: "real"})
	events, _, err := generate(t.Context(), b, request(schemas.OpCountTokens, unary(chat)))
	if err != nil || len(events) != 1 || events[0] != `{"input_tokens":42}` {
		t.Errorf("%v, %v", events, err)
	}
	if got := server.Requests()[0]; got.Path != "/v1/messages/count_tokens" || !strings.Contains(got.Body, `"model":"real"`) {
		t.Errorf("server got %s %s", got.Path, got.Body)
	}
	b, _ = start(t, anthropic.Config{}, anthropictest.Dials{Body: `{"tokens":1}`})
	if _, _, err := generate(t.Context(), b, request(schemas.OpCountTokens, unary(chat))); err == nil {
		t.Error("a reply without a count passes for one")
	}
}

func TestHeadersOfModels(t *testing.T) {
	t.Parallel()
	b, server := start(t, anthropic.Config{APIKey: "sk-1"})
	if _, err := b.Models(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := server.Requests()[0]; got.Header.Get("Anthropic-Version") == "" || got.Header.Get("X-Api-Key") != "sk-1" {
		t.Errorf("server got %v", got.Header)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]anthropic.Config{
		"name": {URL: "http://x"}, "url": {Name: "a", URL: "x"}, "version": {Name: "a", URL: "http://x", Version: "new"},
	} {
		if _, err := anthropic.New(config); err == nil {
			t.Errorf("a wrong %s is accepted", name)
		}
	}
}

// TestPings has a server that thinks for long, and whose pings say that it is there.
func TestPings(t *testing.T) {
	t.Parallel()
	idle := inference.Timeouts{Idle: 2 * time.Second}
	pings := anthropictest.Answer("a")
	for range 12 {
		pings = append(pings[:1:1], append([]string{`{"type":"ping"}`}, pings[1:]...)...)
	}
	b, _ := start(t, anthropic.Config{Timeouts: idle}, anthropictest.Dials{Events: pings, Pace: 400 * time.Millisecond})
	if events, _, err := generate(t.Context(), b, request(schemas.OpMessages, messages)); err != nil || len(events) != 6 {
		t.Errorf("a server that pings for more than twice the idle timeout: %d events, %v", len(events), err)
	}
}

func TestStatuses(t *testing.T) {
	t.Parallel()
	for status, want := range map[int]schemas.Code{
		400: schemas.CodeUpstreamRejected, 401: schemas.CodeUpstreamAuth, 402: schemas.CodeUpstreamAuth, 403: schemas.CodeUpstreamAuth, 413: schemas.CodeRequestTooLarge,
		429: schemas.CodeRateLimit, 500: schemas.CodeUpstreamError, 504: schemas.CodeUpstreamTimeout, 529: schemas.CodeOverloaded,
	} {
		body := fmt.Sprintf(`{"type":"error","error":{"type":"x_error","message":"explained"},"request_id":"req_up%d"}`, status)
		b, _ := start(t, anthropic.Config{}, anthropictest.Dials{Status: status, Body: body, Header: map[string]string{"Retry-After": "3"}})
		_, _, err := generate(t.Context(), b, request(schemas.OpMessages, messages))
		if err == nil || err.Code != want || err.RetryAfter != 3*time.Second {
			t.Errorf("HTTP %d: %v, retry after %v; want %s after 3s", status, err, err.RetryAfter, want)
		}
	}
	b, _ := start(t, anthropic.Config{}, anthropictest.Dials{Status: http.StatusFound, Header: map[string]string{"Location": "http://127.0.0.1:1/"}})
	if _, _, err := generate(t.Context(), b, request(schemas.OpMessages, messages)); err == nil || !strings.Contains(err.Message, "redirected") {
		t.Errorf("a redirect: %v", err)
	}
}

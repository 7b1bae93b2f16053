package openai_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/openai"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	"github.com/weir-llm/weir/schemas"
)

const (
	streamed = `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`
	unary    = `{"model":"m","messages":[{"role":"user","content":"hi"}]}`
)

// request is a call with a body of one of the constants, or like them.
func request(body string) *inference.GenerateRequest {
	return &inference.GenerateRequest{
		Identity: schemas.Identity{Tenant: "acme", Request: "req_1"}, Op: schemas.OpChat,
		Body: []byte(body), Stream: strings.Contains(body, `"stream":true`), Attempt: 1, Try: 1,
	}
}

// start makes a backend for a server with these dials.
func start(t *testing.T, config openai.Config, dials ...openaitest.Dials) (*openai.Backend, *openaitest.Upstream) {
	t.Helper()
	upstream := openaitest.New(t, dials...)
	config.Name, config.URL = "test", upstream.URL
	return backend(t, config), upstream
}

func backend(t testing.TB, config openai.Config) *openai.Backend {
	t.Helper()
	b, err := openai.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// generate collects what a call yields: the events that a caller sees, the usage, and the error.
func generate(ctx context.Context, b inference.Backend, r *inference.GenerateRequest) (events []string, usage *schemas.Usage, err *schemas.Error) {
	for event, e := range b.Generate(ctx, r) {
		if e != nil {
			return events, usage, schemas.AsError(e)
		}
		if len(event.Data) > 0 {
			events = append(events, string(event.Data))
		}
		if u := event.Chunk.ParseUsage(); u != nil {
			usage = u
		}
	}
	return events, usage, nil
}

func TestStream(t *testing.T) {
	t.Parallel()
	b, upstream := start(t, openai.Config{APIKey: "sk-1", Headers: map[string]string{"openai-organization": "org"}},
		openaitest.Dials{Events: append(openaitest.Answer("Hello", " world"), openaitest.Usage)})
	r := request(streamed)
	r.Header = schemas.Header{"traceparent": {"00-a-b-01"}, "Llm-Priority": {"batch"}, "Cookie": {"c"}}
	events, usage, err := generate(t.Context(), b, r)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(openaitest.Answer("Hello", " world"), events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(&schemas.Usage{PromptTokens: 3, CompletionTokens: 2, TotalTokens: 5}, usage); diff != "" {
		t.Errorf("usage (-want +got):\n%s", diff)
	}
	got := upstream.Requests()[0]
	want := `{"stream_options":{"include_usage":true},` + streamed[1:]
	if got.Path != "/v1/chat/completions" || got.Body != want {
		t.Errorf("server got %s %s, want %s", got.Path, got.Body, want)
	}
	for name, want := range map[string]string{
		"Authorization": "Bearer sk-1", "Openai-Organization": "org", "Traceparent": "00-a-b-01", "Accept": "text/event-stream",
		"Content-Type": "application/json", "Llm-Priority": "", "Cookie": "", "Accept-Encoding": "",
	} {
		if got := got.Header.Get(name); got != want {
			t.Errorf("header %s = %q, want %q", name, got, want)
		}
	}
}

func TestStreamKeepsUsageThatWasAskedFor(t *testing.T) {
	t.Parallel()
	all := append(openaitest.Answer("a"), openaitest.Usage)
	b, upstream := start(t, openai.Config{}, openaitest.Dials{Events: all})
	body := strings.Replace(streamed, `"stream":true`, `"stream":true,"stream_options":{"include_usage":true}`, 1)
	events, _, err := generate(t.Context(), b, request(body))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all, events); diff != "" {
		t.Errorf("events (-want +got):\n%s", diff)
	}
	if got := upstream.Requests()[0].Body; got != body {
		t.Errorf("server got %s, want it untouched", got)
	}
}

func TestModelNames(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ configured, asked, sent, seen string }{
		{"", "", "m", "m"}, {"m", "", "m", "m"}, {"real", "", "real", "m"}, {"real", "other", "other", "m"},
	} {
		chunk := strings.ReplaceAll(openaitest.Chunk(`"delta":{"content":"a"},"finish_reason":"stop"`), `"model":"m"`, `"model":"`+test.sent+`"`)
		b, upstream := start(t, openai.Config{Model: test.configured}, openaitest.Dials{Events: []string{chunk}})
		r := request(streamed)
		r.Model = test.asked
		events, _, err := generate(t.Context(), b, r)
		if err != nil {
			t.Fatal(err)
		}
		if got := upstream.Requests()[0].Body; !strings.Contains(got, `"model":"`+test.sent+`"`) {
			t.Errorf("%+v: server got %s", test, got)
		}
		if !strings.Contains(events[0], `"model":"`+test.seen+`"`) {
			t.Errorf("%+v: caller got %s", test, events[0])
		}
	}
}

func TestUnary(t *testing.T) {
	t.Parallel()
	pretty := &bytes.Buffer{}
	if err := json.Indent(pretty, []byte(openaitest.Response("Hello")), "", "  "); err != nil {
		t.Fatal(err)
	}
	for name, test := range map[string]struct{ body, want string }{
		"as it is": {openaitest.Response("Hello  é"), openaitest.Response("Hello  é")},
		"indented": {pretty.String(), openaitest.Response("Hello")},
	} {
		b, upstream := start(t, openai.Config{}, openaitest.Dials{Body: test.body})
		events, usage, err := generate(t.Context(), b, request(unary))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{test.want}, events); diff != "" {
			t.Errorf("%s: events (-want +got):\n%s", name, diff)
		}
		if usage == nil || usage.TotalTokens != 5 {
			t.Errorf("%s: usage %+v", name, usage)
		}
		if got := upstream.Requests()[0]; got.Body != unary || got.Header.Get("Accept") != "application/json" {
			t.Errorf("%s: server got %s, accept %s", name, got.Body, got.Header.Get("Accept"))
		}
	}
}

func TestNameOfTheLimit(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		newer      bool
		body, want string
	}{
		{false, `"max_tokens":5`, `"max_tokens":5`}, {true, `"max_tokens" : 5`, `"max_completion_tokens" : 5`}, {true, `"seed":5`, `"seed":5`},
		{true, `"max_tokens":5,"max_completion_tokens":6`, `"max_tokens":5,"max_completion_tokens":6`},
		{true, `"max_completion_tokens":6,"max_tokens":5`, `"max_completion_tokens":6,"max_tokens":5`},
		{true, `"a":{"max_tokens":5}`, `"a":{"max_tokens":5}`},
	} {
		b, upstream := start(t, openai.Config{MaxCompletionTokens: test.newer})
		if _, _, err := generate(t.Context(), b, request(strings.Replace(unary, "{", "{"+test.body+",", 1))); err != nil {
			t.Fatal(err)
		}
		if got, want := upstream.Requests()[0].Body, strings.Replace(unary, "{", "{"+test.want+",", 1); got != want {
			t.Errorf("newer name %t: server got %s, want %s", test.newer, got, want)
		}
	}
}

func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	b, upstream := start(t, openai.Config{})
	for range 10 {
		if _, _, err := generate(t.Context(), b, request(streamed)); err != nil {
			t.Fatal(err)
		}
	}
	// One, but for answers whose connection a busy server ended too late for the next call.
	if got := upstream.Connections(); got > 5 {
		t.Errorf("10 calls used %d connections", got)
	}
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	const address = "127.0.0.1:1" // a port that was free a moment ago may be another test's by now
	b := backend(t, openai.Config{Name: "test", URL: "http://" + address})
	_, _, e := generate(t.Context(), b, request(streamed))
	if e == nil || e.Code != schemas.CodeUpstreamError || !strings.Contains(e.Message, "connection refused") || strings.Contains(e.Message, address) {
		t.Errorf("error %v, want one that says why and not where", e)
	}
}

func TestRedirectIsNotFollowed(t *testing.T) {
	t.Parallel()
	other := openaitest.New(t)
	b, _ := start(t, openai.Config{APIKey: "sk-1"}, openaitest.Dials{Status: http.StatusTemporaryRedirect, Header: map[string]string{"Location": other.URL + "/chat/completions"}})
	_, _, err := generate(t.Context(), b, request(streamed))
	if err == nil || err.Code != schemas.CodeUpstreamError {
		t.Errorf("error %v", err)
	}
	if got := other.Requests(); len(got) != 0 {
		t.Errorf("the redirect was followed with %v", got[0].Header)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for name, config := range map[string]openai.Config{
		"no name": {URL: "http://a/v1"}, "no url": {Name: "a"}, "scheme": {Name: "a", URL: "ftp://a"}, "credentials": {Name: "a", URL: "http://u:p@a"},
		"query": {Name: "a", URL: "http://a/?k=1"}, "negative": {Name: "a", URL: "http://a", MaxInFlight: -1},
		"timeout": {Name: "a", URL: "http://a", Timeouts: inference.Timeouts{Idle: -1}}, "header": {Name: "a", URL: "http://a", Headers: map[string]string{"a": "b\r\nc: d"}},
	} {
		if _, err := openai.New(config); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestSecretIsNeverShown(t *testing.T) {
	t.Parallel()
	config := openai.Config{Name: "a", URL: "http://a", APIKey: "sk-canary"}
	encoded, err := json.Marshal(config)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	slog.New(slog.NewTextHandler(&log, nil)).Info("x", "config", config, "key", config.APIKey)
	for _, shown := range []string{string(encoded), fmt.Sprintf("%v %+v %#v %s %q", config, config, config, config.APIKey, config.APIKey), log.String()} {
		if strings.Contains(shown, "canary") {
			t.Errorf("the key is in %s", shown)
		}
	}
	if config.APIKey.Reveal() != "sk-canary" {
		t.Error("the key is lost")
	}
	if _, err := openai.New(openai.Config{Name: "a", URL: "http://u:canary@a"}); err == nil || strings.Contains(err.Error(), "canary") {
		t.Errorf("error %v", err)
	}
}

func TestReplyErrorsAreCoded(t *testing.T) {
	t.Parallel()
	b, _ := start(t, openai.Config{}, openaitest.Dials{Status: 429, Header: map[string]string{"retry-after-ms": "1500"}, Body: `{"error":{"message":"x"}}`})
	_, _, err := generate(t.Context(), b, request(unary))
	if err == nil || err.Code != schemas.CodeRateLimit || err.RetryAfter != 1500*time.Millisecond {
		t.Errorf("error %v after %v", err, err.RetryAfter)
	}
	if e, ok := errors.AsType[interface {
		error
		HTTPStatus() int
	}](err); !ok || e.HTTPStatus() != 429 {
		t.Errorf("the cause does not tell the status: %v", err)
	}
}

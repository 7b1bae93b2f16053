package openai_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
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

func backend(t *testing.T, config openai.Config) *openai.Backend {
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

func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	b, upstream := start(t, openai.Config{})
	for range 5 {
		if _, _, err := generate(t.Context(), b, request(streamed)); err != nil {
			t.Fatal(err)
		}
	}
	if got := upstream.Connections(); got != 1 {
		t.Errorf("5 calls used %d connections, want 1", got)
	}
}

func TestLoopMayBlock(t *testing.T) {
	t.Parallel()
	b, _ := start(t, openai.Config{Timeouts: inference.Timeouts{Idle: 20 * time.Millisecond, FirstToken: 2 * time.Second}})
	for _, err := range b.Generate(t.Context(), request(streamed)) {
		if err != nil {
			t.Fatalf("the loop's own time counted as the server's: %v", err)
		}
		<-time.After(50 * time.Millisecond)
	}
}

func TestCancelReachesTheServer(t *testing.T) {
	t.Parallel()
	for name, dials := range map[string]openaitest.Dials{
		"before the headers": {Silent: true}, "in the stream": {Hold: 2}, "while it sends": {Pace: time.Millisecond, Events: make([]string, 100_000)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			for i := range dials.Events {
				dials.Events[i] = openaitest.Chunk(`"delta":{"content":"a"}`)
			}
			b, upstream := start(t, openai.Config{}, dials)
			ctx, cancel := context.WithCancelCause(t.Context())
			time.AfterFunc(100*time.Millisecond, func() { cancel(schemas.Errorf(schemas.CodeShutdown, "stopping")) })
			_, _, err := generate(ctx, b, request(streamed))
			if err == nil || err.Code != schemas.CodeShutdown {
				t.Errorf("error %v, want the cause of the cancellation", err)
			}
			left(t, upstream)
		})
	}
}

func TestCancelWhileTheLoopBlocks(t *testing.T) {
	t.Parallel()
	b, upstream := start(t, openai.Config{}, openaitest.Dials{Hold: 1})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for _, err := range b.Generate(ctx, request(streamed)) {
		if err != nil {
			if code := schemas.AsError(err).Code; code != schemas.CodeCancelled {
				t.Errorf("error %v, want %s", err, schemas.CodeCancelled)
			}
			return
		}
		cancel()
		left(t, upstream)
	}
}

func TestBreakReachesTheServer(t *testing.T) {
	t.Parallel()
	b, upstream := start(t, openai.Config{}, openaitest.Dials{Hold: 1})
	for range b.Generate(t.Context(), request(streamed)) {
		break
	}
	left(t, upstream)
}

// left waits until the server notices that its caller left, which it must within a second.
func left(t *testing.T, upstream *openaitest.Upstream) {
	t.Helper()
	select {
	case <-upstream.Gone():
	case <-time.After(time.Second):
		t.Error("the server was still being listened to after a second")
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing, so TLS never comes about
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mute.Close() })
	const short = 60 * time.Millisecond
	slow := openaitest.Dials{Pace: 10 * time.Millisecond, Events: make([]string, 1000)}
	for i := range slow.Events {
		slow.Events[i] = openaitest.Chunk(`"delta":{"content":"a"}`)
	}
	for _, test := range []struct {
		name, url, body string
		timeouts        inference.Timeouts
		dials           openaitest.Dials
	}{
		{"connect timeout", "https://" + mute.Addr().String(), streamed, inference.Timeouts{Connect: short}, openaitest.Dials{}},
		{"first-token timeout", "", streamed, inference.Timeouts{FirstToken: short}, openaitest.Dials{Silent: true}},
		{"idle timeout", "", streamed, inference.Timeouts{Idle: short}, openaitest.Dials{Hold: 2}},
		{"total timeout", "", streamed, inference.Timeouts{Total: short, Idle: time.Second}, slow},
		{"total timeout", "", unary, inference.Timeouts{Total: short}, openaitest.Dials{Silent: true}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			upstream := openaitest.New(t, test.dials)
			url := test.url
			if url == "" {
				url = upstream.URL
			}
			b := backend(t, openai.Config{Name: "test", URL: url, Timeouts: test.timeouts})
			began := time.Now()
			_, _, err := generate(t.Context(), b, request(test.body))
			if err == nil || err.Code != schemas.CodeUpstreamTimeout || !strings.Contains(err.Message, test.name) {
				t.Errorf("error %v, want %s that names the %s", err, schemas.CodeUpstreamTimeout, test.name)
			}
			if took := time.Since(began); took > 2*time.Second {
				t.Errorf("it took %v", took)
			}
			if test.url == "" {
				left(t, upstream)
			}
		})
	}
}

func TestDeadline(t *testing.T) {
	t.Parallel()
	b, upstream := start(t, openai.Config{}, openaitest.Dials{Hold: 1})
	r := request(streamed)
	r.Deadline = time.Now().Add(60 * time.Millisecond)
	if _, _, err := generate(t.Context(), b, r); err == nil || err.Code != schemas.CodeDeadline {
		t.Errorf("error %v, want %s", err, schemas.CodeDeadline)
	}
	left(t, upstream)
}

func TestUnreachable(t *testing.T) {
	t.Parallel()
	closed, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	address := closed.Addr().String()
	closed.Close()
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

func TestModelsAndHealth(t *testing.T) {
	t.Parallel()
	b, _ := start(t, openai.Config{})
	names, err := b.Models(t.Context())
	if diff := cmp.Diff([]string{"m1", "m2"}, names); diff != "" || err != nil {
		t.Errorf("models %v, %v", names, err)
	}
	if err := b.Health(t.Context()); err != nil {
		t.Errorf("health: %v", err)
	}
	sick, _ := start(t, openai.Config{}, openaitest.Dials{Status: 503})
	if err := sick.Health(t.Context()); err == nil {
		t.Error("a server that answers 503 is healthy")
	}
}

func TestOpsThatAreNotThere(t *testing.T) {
	t.Parallel()
	b, upstream := start(t, openai.Config{})
	r := request(unary)
	r.Op = schemas.OpMessages
	if _, _, err := generate(t.Context(), b, r); err == nil || err.Code != schemas.CodeUnsupported || len(upstream.Requests()) != 0 {
		t.Errorf("error %v", err)
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

package openai

import (
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/schemas"
)

func TestReplyError(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		status int
		body   string
		code   schemas.Code
		param  string
	}{
		{"bad request", 400, `{"error":{"message":"top_p must be in (0, 1].","type":"invalid_request_error","param":"top_p","code":null}}`, schemas.CodeUpstreamRejected, "top_p"},
		{"old vLLM", 400, `{"object":"error","message":"nope","type":"BadRequestError","param":null,"code":400}`, schemas.CodeUpstreamRejected, ""},
		{"framework", 422, `{"detail":"field required"}`, schemas.CodeUpstreamRejected, ""},
		{"conflict", 409, `{"error":"busy"}`, schemas.CodeUpstreamRejected, ""},
		{"context", 400, `{"error":{"message":"This model's maximum context length is 8192 tokens.","code":"context_length_exceeded","param":"messages"}}`, schemas.CodeContextLength, "messages"},
		{"context by text", 400, `{"error":{"message":"maximum context length is 10","type":"BadRequestError","code":400}}`, schemas.CodeContextLength, ""},
		{"llama.cpp context", 400, `{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}`, schemas.CodeContextLength, ""},
		{"Ollama context", 400, `{"error":"prompt too long; exceeded max context length by 12 tokens"}`, schemas.CodeContextLength, ""},
		{"Ollama context of a text", 400, `{"error":"the input length exceeds the context length"}`, schemas.CodeContextLength, ""},
		{"Gemini context", 400, `[{"error":{"code":400,"message":"The input token count (1200000) exceeds the maximum number of tokens allowed (1048576).","status":"INVALID_ARGUMENT"}}]`, schemas.CodeContextLength, ""},
		{"Ollama is busy", 503, `{"error":"server busy, please try again.  maximum pending requests exceeded"}`, schemas.CodeOverloaded, ""},
		{"filter", 400, `{"error":{"message":"x","code":"content_filter"}}`, schemas.CodeContentFilter, ""},
		{"key", 401, `{"error":{"message":"Incorrect API key provided: sk-canary","code":"invalid_api_key"}}`, schemas.CodeUpstreamAuth, ""},
		{"forbidden", 403, `<html>`, schemas.CodeUpstreamAuth, ""},
		{"unpaid", 402, ``, schemas.CodeUpstreamAuth, ""},
		{"quota", 429, `{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}`, schemas.CodeUpstreamAuth, ""},
		{"model", 404, `{"error":{"message":"The model x does not exist","code":"model_not_found"}}`, schemas.CodeModelNotFound, "model"},
		{"vLLM model", 404, "{\"error\":{\"message\":\"The model `x` does not exist.\",\"type\":\"NotFoundError\",\"code\":404}}", schemas.CodeModelNotFound, "model"},
		{"Ollama model", 404, `{"error":{"message":"model \"x\" not found, try pulling it first","type":"api_error"}}`, schemas.CodeModelNotFound, "model"},
		{"wrong address", 404, "404 page not found", schemas.CodeUpstreamError, ""},
		{"wrong method", 405, "", schemas.CodeUpstreamError, ""},
		{"redirect", 302, "", schemas.CodeUpstreamError, ""},
		{"too large", 413, "", schemas.CodeRequestTooLarge, ""},
		{"request timeout", 408, "", schemas.CodeUpstreamTimeout, ""},
		{"rate", 429, `{"error":{"message":"slow down","type":"requests","code":"rate_limit_exceeded"}}`, schemas.CodeRateLimit, ""},
		{"rate, no body", 429, "", schemas.CodeRateLimit, ""},
		{"server", 500, `{"error":{"message":"CUDA canary"}}`, schemas.CodeUpstreamError, ""},
		{"gateway page", 502, "<html>canary</html>", schemas.CodeUpstreamError, ""},
		{"unavailable", 503, "", schemas.CodeUpstreamError, ""},
		{"gateway timeout", 504, "", schemas.CodeUpstreamTimeout, ""},
		{"Anthropic", 529, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, schemas.CodeOverloaded, ""},
		{"Gemini", 400, `[{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}]`, schemas.CodeUpstreamRejected, ""},
		{"deep", 400, strings.Repeat("[", 1<<20), schemas.CodeUpstreamRejected, ""},
		{"garbage", 400, "\x00\xffcanary", schemas.CodeUpstreamRejected, ""},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got := ReplyError(test.status, http.Header{"Retry-After": {"3"}}, []byte(test.body))
			if got.Code != test.code || got.Param != test.param || got.RetryAfter != 3*time.Second {
				t.Errorf("got %s of %q after %v, want %s of %q: %s", got.Code, got.Param, got.RetryAfter, test.code, test.param, got.Message)
			}
			if strings.Contains(got.Error(), "canary") {
				t.Errorf("it quotes the server: %v", got)
			}
			if cause, ok := errors.AsType[*UpstreamError](got); !ok || cause.HTTPStatus() != test.status {
				t.Errorf("cause %v, want status %d", cause, test.status)
			}
			if got.Code == schemas.CodeRateLimit && (strings.Contains(got.Message, "quota") || strings.Contains(got.Message, "billing")) {
				t.Errorf("clients give up on this text: %s", got.Message)
			}
		})
	}
}

func TestRejectionExplains(t *testing.T) {
	t.Parallel()
	got := ReplyError(400, nil, []byte(`{"error":{"message":"top_p must be\nin (0, 1]."}}`))
	if want := "the model server refused the request (HTTP 400): top_p must be in (0, 1]; correct it and send it again"; got.Message != want {
		t.Errorf("message %q, want %q", got.Message, want)
	}
	long := ReplyError(400, nil, []byte(`{"error":"`+strings.Repeat("é", 5000)+`"}`))
	if len(long.Message) > 600 || strings.ContainsRune(long.Message, '\uFFFD') {
		t.Errorf("a long explanation became %d bytes: %s", len(long.Message), long.Message)
	}
}

func TestEventError(t *testing.T) {
	t.Parallel()
	for data, want := range map[string]schemas.Code{
		`{"message":"x","type":"server_error","code":null}`:                        schemas.CodeUpstreamError,
		`{"message":"x","code":"rate_limit_exceeded"}`:                             schemas.CodeRateLimit,
		`{"code":503,"message":"x","status":"UNAVAILABLE"}`:                        schemas.CodeUpstreamError,
		`{"code":429,"message":"x","status":"RESOURCE_EXHAUSTED"}`:                 schemas.CodeRateLimit,
		`{"message":"x","type":"BadRequestError","param":null,"code":400}`:         schemas.CodeUpstreamRejected,
		`{"message":"x","type":"invalid_request_error"}`:                           schemas.CodeUpstreamRejected,
		`"model runner has crashed"`:                                               schemas.CodeUpstreamError,
		`{"type":"error","error":{"type":"overloaded_error","message":"x"}}`:       schemas.CodeOverloaded,
		`{"object":"error","message":"x","type":"InternalServerError","code":500}`: schemas.CodeUpstreamError,
		`{"code":1234}`: schemas.CodeUpstreamError,
		``:              schemas.CodeUpstreamError,
		`{}`:            schemas.CodeUpstreamError,
	} {
		if got := EventError([]byte(data)); got.Code != want {
			t.Errorf("%s: %s, want %s", data, got.Code, want)
		}
	}
}

func TestRetryAfter(t *testing.T) {
	t.Parallel()
	date := "Tue, 24 Nov 2026 10:00:00 GMT"
	for _, test := range []struct {
		header map[string]string
		want   time.Duration
	}{
		{nil, 0},
		{map[string]string{"Retry-After": "2"}, 2 * time.Second},
		{map[string]string{"Retry-After": "0.5"}, 500 * time.Millisecond},
		{map[string]string{"Retry-After-Ms": "20", "Retry-After": "7"}, 20 * time.Millisecond},
		{map[string]string{"Retry-After-Ms": "soon", "Retry-After": "7"}, 7 * time.Second},
		{map[string]string{"Retry-After": "Tue, 24 Nov 2026 10:00:30 GMT", "Date": date}, 30 * time.Second},
		{map[string]string{"Retry-After": "Tue, 24 Nov 2026 09:00:00 GMT", "Date": date}, 0},
		{map[string]string{"Retry-After": "-3"}, 0},
		{map[string]string{"Retry-After": "NaN"}, 0},
		{map[string]string{"Retry-After": "1e300"}, maxRetryAfter},
		{map[string]string{"Retry-After": "later"}, 0},
	} {
		h := http.Header{}
		for name, value := range test.header {
			h.Set(name, value)
		}
		if got := RetryAfter(h); got != test.want {
			t.Errorf("%v: %v, want %v", test.header, got, test.want)
		}
	}
}

func TestModels(t *testing.T) {
	t.Parallel()
	body := EncodeModels([]ModelInfo{{ID: "a", Created: 1, OwnedBy: "weir"}})
	want := `{"object":"list","data":[{"id":"a","object":"model","created":1,"owned_by":"weir"}]}`
	if string(body) != want {
		t.Errorf("got %s, want %s", body, want)
	}
	if got := EncodeModels(nil); string(got) != `{"object":"list","data":[]}` {
		t.Errorf("no models: %s", got)
	}
	names, err := DecodeModels(body)
	if diff := cmp.Diff([]string{"a"}, names); diff != "" || err != nil {
		t.Errorf("decoded %v, %v", names, err)
	}
	for _, bad := range []string{"", "<html>", "[]", `{"data":{}}`} {
		if _, err := DecodeModels([]byte(bad)); err == nil {
			t.Errorf("%q was read as a list of models", bad)
		}
	}
}

func TestOutgoing(t *testing.T) {
	t.Parallel()
	if got := WithModel([]byte(`{"x": 1, "model" : "a", "y":"a"}`), `b"`); string(got) != `{"x": 1, "model" : "b\"", "y":"a"}` {
		t.Errorf("WithModel: %s", got)
	}
	for _, test := range []struct {
		in, want string
		injected bool
	}{
		{`{"model":"m"}`, `{"stream_options":{"include_usage":true},"model":"m"}`, true},
		{` { }`, ` {"stream_options":{"include_usage":true} }`, true},
		{`{"stream_options":null}`, `{"stream_options":{"include_usage":true}}`, true},
		{`{"stream_options":{}}`, `{"stream_options":{"include_usage":true}}`, true},
		{`{"stream_options":{"a":1}}`, `{"stream_options":{"include_usage":true,"a":1}}`, true},
		{`{"stream_options":{"include_usage": false},"x":1}`, `{"stream_options":{"include_usage": true},"x":1}`, true},
		{`{"stream_options":{"include_usage":null}}`, `{"stream_options":{"include_usage":true}}`, true},
		{`{"stream_options":{"include_usage":true}}`, `{"stream_options":{"include_usage":true}}`, false},
	} {
		got, injected := WithUsage([]byte(test.in))
		if string(got) != test.want || injected != test.injected {
			t.Errorf("WithUsage(%s) = %s, %v\nwant %s, %v", test.in, got, injected, test.want, test.injected)
		}
	}
	if Choices(schemas.OpChat, []byte(`{"n":3}`)) != 3 || Choices(schemas.OpChat, []byte(`{}`)) != 1 || Model([]byte(`{"model":"m"}`)) != "m" {
		t.Error("Choices or Model is wrong")
	}
}

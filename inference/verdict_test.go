package inference

import (
	"net/http"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference/balance"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// TestVerdicts holds what follows from the errors of each protocol, as servers were seen to send them.
func TestVerdicts(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		protocol, name string
		status         int // 0: inside a stream
		body           string
		verdict        verdict
		result         balance.Result
	}{
		{"openai", "rate limit", 429, `{"error":{"message":"Rate limit reached","type":"requests","code":"rate_limit_exceeded"}}`, again, balance.TooMany},
		{"openai", "ramp", 429, `{"error":{"message":"x","type":"rate_limit_error","code":"slow_down"}}`, again, balance.TooMany},
		{"openai", "quota", 429, `{"error":{"message":"You exceeded your current quota","type":"insufficient_quota","code":"insufficient_quota"}}`, stop, balance.Failed},
		{"openai", "key", 401, `{"error":{"message":"Incorrect API key","code":"invalid_api_key"}}`, stop, balance.Failed},
		{"openai", "forbidden", 403, `{"error":{"message":"x","type":"permission_error"}}`, stop, balance.Failed},
		{"openai", "unpaid", 402, ``, stop, balance.Failed},
		{"openai", "bad request", 400, `{"error":{"message":"top_p","type":"invalid_request_error"}}`, stop, balance.Neutral},
		{"openai", "unprocessable", 422, `{"detail":"field required"}`, stop, balance.Neutral},
		{"openai", "conflict", 409, `{"error":"busy"}`, stop, balance.Neutral},
		{"openai", "too large", 413, ``, stop, balance.Neutral},
		{"openai", "context", 400, `{"error":{"message":"This model's maximum context length is 8192 tokens.","code":"context_length_exceeded"}}`, larger, balance.Neutral},
		{"openai", "filter", 400, `{"error":{"message":"x","code":"content_filter"}}`, stop, balance.Neutral},
		{"openai", "policy", 400, `{"error":{"message":"x","code":"content_policy_violation"}}`, stop, balance.Neutral},
		{"openai", "unknown model", 404, `{"error":{"message":"x","code":"model_not_found"}}`, elsewhere, balance.Failed},
		{"openai", "wrong address", 404, `404 page not found`, elsewhere, balance.Failed},
		{"openai", "redirect", 302, ``, elsewhere, balance.Failed},
		{"openai", "its own timeout", 408, ``, again, balance.Failed},
		{"openai", "failure", 500, `{"error":{"message":"x"}}`, again, balance.Failed},
		{"openai", "gateway", 502, `<html>`, again, balance.Failed},
		{"openai", "unavailable", 503, ``, again, balance.Failed},
		{"openai", "gateway timeout", 504, ``, again, balance.Failed},
		{"openai", "in a stream", 0, `{"message":"x","type":"server_error"}`, again, balance.Failed},
		{"openai", "rate limit in a stream", 0, `{"message":"x","code":"rate_limit_exceeded"}`, again, balance.TooMany},
		{"vllm", "context", 400, `{"object":"error","message":"This model's maximum context length is 4096 tokens","type":"BadRequestError","code":400}`, larger, balance.Neutral},
		{"vllm", "unknown model", 404, `{"object":"error","message":"The model x does not exist.","type":"NotFoundError","code":404}`, elsewhere, balance.Failed},
		{"vllm", "in a stream", 0, `{"object":"error","message":"x","type":"InternalServerError","code":500}`, again, balance.Failed},
		{"llama.cpp", "context", 400, `{"error":{"code":400,"message":"the request exceeds the available context size","type":"exceed_context_size_error"}}`, larger, balance.Neutral},
		{"llama.cpp", "loading", 503, `{"error":{"code":503,"message":"Loading model","type":"unavailable_error"}}`, again, balance.Failed},
		{"ollama", "unknown model", 404, `{"error":"model \"x\" not found, try pulling it first"}`, elsewhere, balance.Failed},
		{"ollama", "crash", 500, `{"error":"model runner has unexpectedly stopped"}`, again, balance.Failed},
		{"gemini", "rate limit", 429, `{"error":{"code":429,"message":"x","status":"RESOURCE_EXHAUSTED"}}`, again, balance.TooMany},
		{"gemini", "unavailable", 503, `[{"error":{"code":503,"message":"x","status":"UNAVAILABLE"}}]`, again, balance.Failed},
		{"gemini", "unavailable in a stream", 0, `{"code":503,"message":"x","status":"UNAVAILABLE"}`, again, balance.Failed},
		{"gemini", "invalid", 400, `[{"error":{"code":400,"message":"bad","status":"INVALID_ARGUMENT"}}]`, stop, balance.Neutral},
		{"anthropic", "invalid", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"max_tokens: Field required"}}`, stop, balance.Neutral},
		{"anthropic", "prefill", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"This model does not support assistant message prefill."}}`, stop, balance.Neutral},
		{"anthropic", "context", 400, `{"type":"error","error":{"type":"invalid_request_error","message":"prompt is too long: 210000 tokens > 200000 maximum"}}`, larger, balance.Neutral},
		{"anthropic", "key", 401, `{"type":"error","error":{"type":"authentication_error","message":"invalid x-api-key"}}`, stop, balance.Failed},
		{"anthropic", "billing", 402, `{"type":"error","error":{"type":"billing_error","message":"x"}}`, stop, balance.Failed},
		{"anthropic", "permission", 403, `{"type":"error","error":{"type":"permission_error","message":"x"}}`, stop, balance.Failed},
		{"anthropic", "too large", 413, `{"type":"error","error":{"type":"request_too_large","message":"x"}}`, stop, balance.Neutral},
		{"anthropic", "rate limit", 429, `{"type":"error","error":{"type":"rate_limit_error","message":"x"}}`, again, balance.TooMany},
		{"anthropic", "failure", 500, `{"type":"error","error":{"type":"api_error","message":"x"}}`, again, balance.Failed},
		{"anthropic", "timeout", 504, `{"type":"error","error":{"type":"timeout_error","message":"x"}}`, again, balance.Failed},
		{"anthropic", "overloaded", 529, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, again, balance.Failed},
		{"anthropic", "overloaded in a stream", 0, `{"type":"error","error":{"type":"overloaded_error","message":"Overloaded"}}`, again, balance.Failed},
	} {
		t.Run(test.protocol+" "+test.name, func(t *testing.T) {
			t.Parallel()
			e := openai.EventError([]byte(test.body))
			if test.status != 0 {
				e = openai.ReplyError(test.status, http.Header{"Retry-After": {"3"}}, []byte(test.body))
			}
			if got := judge(e); got != test.verdict {
				t.Errorf("%s: verdict %d, want %d", e.Code, got, test.verdict)
			}
			got := outcomeOf(&try{called: true}, e)
			if got.Result != test.result || got.Result == balance.TooMany && test.status != 0 && got.RetryAfter != 3*time.Second {
				t.Errorf("%s: outcome %+v, want %d", e.Code, got, test.result)
			}
		})
	}
}

// timedOut is a network error, as of a connection that was not accepted in time.
type timedOut struct{ error }

func (timedOut) Timeout() bool   { return true }
func (timedOut) Temporary() bool { return true }

func TestVerdictsOfOurOwn(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name    string
		err     *schemas.Error
		verdict verdict
		result  balance.Result
	}{
		{"no first token", fails(schemas.CodeUpstreamTimeout), elsewhere, balance.FirstTokenTimeout},
		{"no connection in time", fails(schemas.CodeUpstreamTimeout).WithCause(timedOut{errPlain}), again, balance.Failed},
		{"a broken stream", fails(schemas.CodeUpstreamInterrupted), again, balance.Failed},
		{"no connection", fails(schemas.CodeUpstreamError), again, balance.Failed},
		{"what the protocol cannot do", fails(schemas.CodeUnsupported), elsewhere, balance.Neutral},
		{"cancelled", fails(schemas.CodeCancelled), stop, balance.Neutral},
		{"too late", fails(schemas.CodeDeadline), stop, balance.Neutral},
		{"shutdown", fails(schemas.CodeShutdown), stop, balance.Neutral},
		{"diverged", fails(schemas.CodeStreamDiverged), stop, balance.Neutral},
		{"a bug", schemas.AsError(errPlain), stop, balance.Neutral},
	} {
		if v, o := judge(test.err), outcomeOf(&try{called: true}, test.err); v != test.verdict || o.Result != test.result {
			t.Errorf("%s: verdict %d and result %d, want %d and %d", test.name, v, o.Result, test.verdict, test.result)
		}
	}
	started := &try{called: true, first: time.Now()}
	if o := outcomeOf(started, fails(schemas.CodeUpstreamTimeout)); o.Result != balance.Failed {
		t.Errorf("silence after the first token: %+v", o)
	}
	if o := outcomeOf(&try{called: true}, nil); o.Result != balance.Success {
		t.Errorf("a whole answer: %+v", o)
	}
	if o := outcomeOf(&try{called: true, stopped: true}, nil); o.Result != balance.Neutral {
		t.Errorf("an answer nobody wanted any more: %+v", o)
	}
	if o := outcomeOf(&try{}, nil); o.Result != balance.Neutral {
		t.Errorf("no call: %+v", o)
	}
}

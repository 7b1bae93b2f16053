package openai_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendtest"
	"github.com/weir-llm/weir/inference/openai"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	"github.com/weir-llm/weir/schemas"
)

func TestSuite(t *testing.T) {
	t.Parallel()
	for op, tells := range map[schemas.Op]bool{schemas.OpChat: true, schemas.OpCompletion: false} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			backendtest.Run(t, backendtest.Subject{Start: play, Dial: dial, Op: op, Tools: tells, Reasoning: tells, Embeds: true})
		})
	}
}

func dial(t testing.TB, address string, secure bool, timeouts inference.Timeouts) inference.Backend {
	url := "http://" + address
	if secure {
		url = "https://" + address
	}
	return backend(t, openai.Config{Name: "test", URL: url, Timeouts: timeouts})
}

// played is a server that plays a script.
type played struct{ *openaitest.Upstream }

func (p played) Asked() (models []string) {
	for _, r := range p.Requests() {
		if strings.HasSuffix(r.Path, "/completions") {
			models = append(models, gjson.Get(r.Body, "model").Str)
		}
	}
	return models
}

func play(t testing.TB, s backendtest.Script, timeouts inference.Timeouts) (inference.Backend, backendtest.Server) {
	upstream := openaitest.Serve(func(r openaitest.Request) openaitest.Dials { return dials(s, r) })
	t.Cleanup(upstream.Close)
	return backend(t, openai.Config{Name: "test", URL: upstream.URL, Timeouts: timeouts}), played{upstream}
}

// dials has the server play a script to a request.
func dials(s backendtest.Script, r openaitest.Request) openaitest.Dials {
	d := openaitest.Dials{Silent: s.Fault == backendtest.Hold && s.At < 0, Drop: s.Fault == backendtest.Reset && s.At < 0}
	text := r.Path == "/v1/completions"
	switch {
	case s.Refusal != "" && s.Fault == "":
		d.Status, d.Body = refusal(s.Refusal)
		if s.RetryAfter > 0 {
			d.Header = map[string]string{"Retry-After": strconv.Itoa(int(s.RetryAfter / time.Second))}
		}
	case r.Path == "/v1/models":
	case r.Path == "/v1/embeddings":
		d.Body = openaitest.EmbeddingResponse
	case gjson.Get(r.Body, "stream").Bool():
		d.Pieces, d.Pace = events(s, text), s.Pace
		d.Hold, d.Reset = faultAt(s, backendtest.Hold), faultAt(s, backendtest.Reset)
	default:
		whole := response(s, text)
		d.Pieces = []string{whole[:len(whole)/2], whole[len(whole)/2:]}
		if s.Fault == backendtest.Hold {
			d.Hold = 1
		}
		if s.Fault == backendtest.Reset {
			d.Reset = 1
		}
	}
	return d
}

// opening is how many events come before the first text.
const opening = 1

// faultAt is the number of events before a fault.
func faultAt(s backendtest.Script, fault backendtest.Fault) int {
	if s.Fault != fault {
		return 0
	}
	return opening + s.At
}

// events are those of a stream, up to a fault that is in what is sent.
func events(s backendtest.Script, text bool) []string {
	chunk, member := openaitest.Chunk, func(piece string) string { return fmt.Sprintf(`"delta":{"content":%s}`, quote(piece)) }
	if text {
		chunk, member = openaitest.TextChunk, func(piece string) string { return fmt.Sprintf(`"text":%s`, quote(piece)) }
	}
	var all []string
	add := func(data string) {
		all = append(all, "data: "+strings.Replace(data, `"model":"m"`, `"model":`+quote(s.Model), 1)+"\n\n")
	}
	if text {
		all = append(all, ": a text has no opening\n\n")
	} else {
		add(chunk(`"delta":{"role":"assistant","content":""},"finish_reason":null`))
	}
	for _, piece := range s.Thought {
		add(chunk(`"delta":{"reasoning_content":` + quote(piece) + `},"finish_reason":null`))
	}
	for i, piece := range s.Text {
		if i == s.At && broke(s, add) {
			return all
		}
		add(chunk(member(piece) + `,"finish_reason":null`))
	}
	if len(s.Text) == s.At && broke(s, add) {
		return all
	}
	for i, call := range s.Calls {
		add(chunk(fmt.Sprintf(`"delta":{"tool_calls":[{"index":%d,"id":%q,"type":"function","function":{"name":%q,"arguments":""}}]}`, i, call.ID, call.Name)))
		for _, piece := range call.Arguments {
			add(chunk(fmt.Sprintf(`"delta":{"tool_calls":[{"index":%d,"function":{"arguments":%s}}]}`, i, quote(piece))))
		}
	}
	last := `"delta":{}`
	if text {
		last = `"text":""`
	}
	add(chunk(fmt.Sprintf(`%s,"finish_reason":%q`, last, s.Finish)))
	add(strings.Replace(openaitest.Usage, `{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}`, usage(s), 1))
	return append(all, "data: [DONE]\n\n")
}

// broke adds a fault, and reports whether nothing of the answer follows.
func broke(s backendtest.Script, add func(string)) bool {
	switch s.Fault {
	case backendtest.Cut:
		if s.At%2 == 0 { // which proves nothing
			add("[DONE]")
		}
		return true
	case backendtest.Garbage:
		add(backendtest.Canary)
		return true
	case backendtest.Fail:
		_, body := refusal(s.Refusal)
		add(body)
		return true
	}
	return false
}

func response(s backendtest.Script, text bool) string {
	message := fmt.Sprintf(`"message":{"role":"assistant","content":%s`, quote(strings.Join(s.Text, "")))
	if text {
		message = fmt.Sprintf(`"text":%s`, quote(strings.Join(s.Text, "")))
	}
	if len(s.Thought) > 0 {
		message += `,"reasoning_content":` + quote(strings.Join(s.Thought, ""))
	}
	var calls []string
	for _, call := range s.Calls {
		calls = append(calls, fmt.Sprintf(`{"id":%q,"type":"function","function":{"name":%q,"arguments":%s}}`, call.ID, call.Name, quote(strings.Join(call.Arguments, ""))))
	}
	if len(calls) > 0 {
		message += `,"tool_calls":[` + strings.Join(calls, ",") + "]"
	}
	if !text {
		message += "}"
	}
	return fmt.Sprintf(`{"id":"x","object":"chat.completion","created":1,"model":%q,"choices":[{"index":0,%s,"finish_reason":%q}],"usage":%s}`, s.Model, message, s.Finish, usage(s))
}

func usage(s backendtest.Script) string {
	return fmt.Sprintf(`{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, s.Usage.PromptTokens, s.Usage.CompletionTokens, s.Usage.TotalTokens)
}

// refusal is an error as OpenAI writes it.
func refusal(r backendtest.Refusal) (status int, body string) {
	kind, code := "server_error", "null"
	switch r {
	case backendtest.RateLimit:
		status, kind, code = http.StatusTooManyRequests, "requests", `"rate_limit_exceeded"`
	case backendtest.Overloaded:
		status, kind, code = http.StatusServiceUnavailable, "service_unavailable_error", `"server_is_overloaded"`
	case backendtest.Internal:
		status = http.StatusInternalServerError
	case backendtest.Invalid:
		return http.StatusBadRequest, `{"error":{"message":"top_p: too high","type":"invalid_request_error","param":"top_p","code":null}}`
	case backendtest.Credentials:
		status, kind, code = http.StatusUnauthorized, "invalid_request_error", `"invalid_api_key"`
	case backendtest.UnknownModel:
		status, kind, code = http.StatusNotFound, "invalid_request_error", `"model_not_found"`
	case backendtest.ContextLength:
		return http.StatusBadRequest, `{"error":{"message":"This model's maximum context length is 8192 tokens.","type":"invalid_request_error","code":"context_length_exceeded"}}`
	case backendtest.GaveUp:
		status = http.StatusGatewayTimeout
	}
	return status, fmt.Sprintf(`{"error":{"message":%q,"type":%q,"param":null,"code":%s}}`, backendtest.Canary, kind, code)
}

func quote(text string) string {
	data, _ := json.Marshal(text) // a string can be encoded
	return string(data)
}

package ollama_test

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
	"github.com/weir-llm/weir/inference/ollama"
	"github.com/weir-llm/weir/internal/openai/openaitest"
)

func TestSuite(t *testing.T) {
	t.Parallel()
	backendtest.Run(t, backendtest.Subject{Start: play, Dial: dial, Tools: true, Reasoning: true, Embeds: true})
}

func dial(t testing.TB, address string, secure bool, timeouts inference.Timeouts) inference.Backend {
	url := "http://" + address
	if secure {
		url = "https://" + address
	}
	return backend(t, ollama.Config{URL: url, Timeouts: timeouts})
}

func backend(t testing.TB, config ollama.Config) *ollama.Backend {
	t.Helper()
	config.Name = "test"
	b, err := ollama.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// played is a server that plays a script.
type played struct{ *openaitest.Upstream }

func (p played) Asked() (models []string) {
	for _, r := range p.Requests() {
		if r.Path == "/api/chat" {
			models = append(models, gjson.Get(r.Body, "model").Str)
		}
	}
	return models
}

// serve starts a server that answers as choose says, which need not know the endpoints that are not for models.
func serve(t testing.TB, choose func(openaitest.Request) openaitest.Dials) (*openaitest.Upstream, string) {
	upstream := openaitest.Serve(choose)
	t.Cleanup(upstream.Close)
	return upstream, strings.TrimSuffix(upstream.URL, "/v1")
}

func play(t testing.TB, s backendtest.Script, timeouts inference.Timeouts) (inference.Backend, backendtest.Server) {
	upstream, url := serve(t, func(r openaitest.Request) openaitest.Dials { return dials(s, r) })
	return backend(t, ollama.Config{URL: url, Timeouts: timeouts}), played{upstream}
}

// dials has the server play a script to a request.
func dials(s backendtest.Script, r openaitest.Request) openaitest.Dials {
	d := openaitest.Dials{Silent: s.Fault == backendtest.Hold && s.At < 0, Drop: s.Fault == backendtest.Reset && s.At < 0}
	switch {
	case s.Refusal != "" && s.Fault == "":
		d.Status, d.Body = refusal(s.Refusal)
		if s.RetryAfter > 0 {
			d.Header = map[string]string{"Retry-After": strconv.Itoa(int(s.RetryAfter / time.Second))}
		}
	case r.Path == "/api/version":
		d.Body = `{"version":"0.17.4"}`
	case r.Path == "/api/tags":
		d.Body = `{"models":[{"name":"m1","model":"m1","size":1},{"name":"m2","model":"m2"}]}`
	case r.Path == "/api/embed":
		d.Body = fmt.Sprintf(`{"model":%q,"embeddings":[[1,-2.5]],"prompt_eval_count":2}`, gjson.Get(r.Body, "model").Str)
	case r.Path != "/api/chat":
		d.Status, d.Body = http.StatusNotFound, "404 page not found"
	case gjson.Get(r.Body, "stream").Bool():
		d.Pieces, d.Pace = answer(s), s.Pace
		switch s.Fault {
		case backendtest.Hold:
			d.Hold = 1 + s.At
		case backendtest.Reset:
			d.Reset = 1 + s.At
		}
	default:
		whole := response(s)
		d.Pieces = []string{whole[:len(whole)/2], whole[len(whole)/2:]}
		switch s.Fault {
		case backendtest.Hold:
			d.Hold = 1
		case backendtest.Reset:
			d.Reset = 1
		}
	}
	return d
}

// answer is a stream, up to a fault that is in what is sent.
func answer(s backendtest.Script) (all []string) {
	add := func(members string) { all = append(all, line(s, members)+"\n") }
	say := func(content string) {
		add(`"message":{"role":"assistant","content":` + quote(content) + `},"done":false`)
	}
	broke := func(at int) bool {
		switch {
		case s.At != at:
			return false
		case s.Fault == backendtest.Garbage:
			all = append(all, backendtest.Canary+"\n")
		case s.Fault == backendtest.Fail:
			_, body := refusal(s.Refusal)
			all = append(all, body+"\n")
		}
		return s.Fault == backendtest.Cut || s.Fault == backendtest.Garbage || s.Fault == backendtest.Fail
	}
	say("") // as it begins with some models
	for _, piece := range s.Thought {
		add(`"message":{"role":"assistant","content":"","thinking":` + quote(piece) + `},"done":false`)
	}
	for i, piece := range s.Text {
		if broke(i) {
			return all
		}
		say(piece)
	}
	if broke(len(s.Text)) {
		return all
	}
	for _, call := range s.Calls { // each whole, in a line of its own, and numbered anew
		add(`"message":{"role":"assistant","content":"","tool_calls":[` + toolCall(call) + `]},"done":false`)
	}
	add(`"message":{"role":"assistant","content":""},` + end(s))
	return all
}

func line(s backendtest.Script, members string) string {
	return fmt.Sprintf(`{"model":%s,"created_at":"2026-11-24T10:00:00.123456Z",%s}`, quote(s.Model), members)
}

func end(s backendtest.Script) string {
	reason := "stop" // of calls too
	if s.Finish == "length" {
		reason = "length"
	}
	return fmt.Sprintf(`"done":true,"done_reason":%q,"total_duration":5,"prompt_eval_count":%d,"eval_count":%d`, reason, s.Usage.PromptTokens, s.Usage.CompletionTokens)
}

func toolCall(call backendtest.Call) string {
	return fmt.Sprintf(`{"id":%q,"function":{"index":0,"name":%q,"arguments":%s}}`, call.ID, call.Name, strings.Join(call.Arguments, ""))
}

func response(s backendtest.Script) string {
	members := `"role":"assistant","content":` + quote(strings.Join(s.Text, ""))
	if len(s.Thought) > 0 {
		members += `,"thinking":` + quote(strings.Join(s.Thought, ""))
	}
	var calls []string
	for _, call := range s.Calls {
		calls = append(calls, toolCall(call))
	}
	if len(calls) > 0 {
		members += `,"tool_calls":[` + strings.Join(calls, ",") + "]"
	}
	return line(s, `"message":{`+members+`},`+end(s))
}

// refusal is an error as Ollama writes it: a sentence.
func refusal(r backendtest.Refusal) (status int, body string) {
	explanation := backendtest.Canary
	switch r {
	case backendtest.RateLimit: // of the hosted service
		status = http.StatusTooManyRequests
	case backendtest.Overloaded:
		status, explanation = http.StatusServiceUnavailable, "server busy, please try again.  maximum pending requests exceeded"
	case backendtest.Internal:
		status = http.StatusInternalServerError
	case backendtest.Invalid:
		status, explanation = http.StatusBadRequest, `"m" does not support tools`
	case backendtest.Credentials:
		status = http.StatusUnauthorized
	case backendtest.UnknownModel:
		status, explanation = http.StatusNotFound, `model "m" not found, try pulling it first`
	case backendtest.ContextLength:
		status, explanation = http.StatusBadRequest, "prompt too long; exceeded max context length by 12 tokens"
	case backendtest.GaveUp:
		status = http.StatusGatewayTimeout
	}
	return status, fmt.Sprintf(`{"error":%q}`, explanation)
}

func quote(text string) string {
	data, _ := json.Marshal(text) // a string can be encoded
	return string(data)
}

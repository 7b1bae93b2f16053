package anthropic_test

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
	"github.com/weir-llm/weir/inference/anthropic"
	"github.com/weir-llm/weir/inference/backendtest"
	dialect "github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/internal/anthropic/anthropictest"
	"github.com/weir-llm/weir/schemas"
)

func TestSuite(t *testing.T) {
	t.Parallel()
	for _, op := range []schemas.Op{schemas.OpChat, schemas.OpMessages} {
		s := backendtest.Subject{Start: play, Dial: dial, Op: op, Tools: true, Reasoning: true}
		if op == schemas.OpMessages { // relayed: the chunk of a whole answer tells what the pipeline needs, and not the text
			s.Tools, s.Reasoning = false, false
			s.Shown = func(e inference.Event) string {
				if !strings.HasPrefix(string(e.Data), `{"id":`) {
					return ""
				}
				return dialect.Text(e.Data)
			}
		}
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			backendtest.Run(t, s)
		})
	}
}

func dial(t testing.TB, address string, secure bool, timeouts inference.Timeouts) inference.Backend {
	url := "http://" + address
	if secure {
		url = "https://" + address
	}
	return backend(t, anthropic.Config{Name: "test", URL: url, Timeouts: timeouts})
}

// played is a server that plays a script.
type played struct{ *anthropictest.Server }

func (p played) Asked() (models []string) {
	for _, r := range p.Requests() {
		if r.Path == "/v1/messages" {
			models = append(models, gjson.Get(r.Body, "model").Str)
		}
	}
	return models
}

func play(t testing.TB, s backendtest.Script, timeouts inference.Timeouts) (inference.Backend, backendtest.Server) {
	server := anthropictest.Serve(t, func(r anthropictest.Request) anthropictest.Dials { return dials(s, r) })
	return backend(t, anthropic.Config{Name: "test", URL: server.URL, Timeouts: timeouts}), played{server}
}

// dials has the server play a script to a request.
func dials(s backendtest.Script, r anthropictest.Request) anthropictest.Dials {
	d := anthropictest.Dials{Silent: s.Fault == backendtest.Hold && s.At < 0, Drop: s.Fault == backendtest.Reset && s.At < 0}
	switch {
	case s.Refusal != "" && s.Fault == "":
		d.Status, d.Body = refusal(s.Refusal)
		if s.RetryAfter > 0 {
			d.Header = map[string]string{"Retry-After": strconv.Itoa(int(s.RetryAfter / time.Second))}
		}
	case r.Path == "/v1/models":
	case gjson.Get(r.Body, "stream").Bool():
		d.Pace, d.Pings = s.Pace, true
		var before int
		d.Events, before = events(s)
		switch s.Fault {
		case backendtest.Hold:
			d.Hold = before
		case backendtest.Reset:
			d.Reset = before
		case backendtest.Cut:
			d.Cut = before
		}
	default:
		whole := message(s)
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

// events are those of a stream, and how many of them come before the fault.
func events(s backendtest.Script) (all []string, before int) {
	var blocks [][]string
	if len(s.Thought) > 0 {
		blocks = append(blocks, anthropictest.Thinking(0, "c2ln", s.Thought...))
	}
	blocks = append(blocks, anthropictest.Text(len(blocks), s.Text...))
	before = 2 + s.At // the start of the message and of the block; scripts with a thought have no fault
	for _, call := range s.Calls {
		blocks = append(blocks, anthropictest.Tool(len(blocks), call.ID, call.Name, call.Arguments...))
	}
	all = anthropictest.Whole(stopReason(s.Finish), blocks...)
	const start = `"usage":{"input_tokens":10,"cache_creation_input_tokens":2,"cache_read_input_tokens":3,"output_tokens":1}`
	all[0] = strings.Replace(all[0], start, fmt.Sprintf(`"usage":{"input_tokens":%d,"output_tokens":1}`, s.Usage.PromptTokens), 1)
	all[0] = strings.Replace(all[0], `"model":"m"`, `"model":`+quote(s.Model), 1)
	end := len(all) - 2
	all[end] = strings.Replace(all[end], `"output_tokens":7`, fmt.Sprintf(`"output_tokens":%d`, s.Usage.CompletionTokens), 1)
	switch s.Fault {
	case backendtest.Garbage:
		all = append(all[:before:before], backendtest.Canary)
	case backendtest.Fail:
		_, body := refusal(s.Refusal)
		all = append(all[:before:before], body)
	}
	return all, before
}

// message is a whole unary answer.
func message(s backendtest.Script) string {
	var blocks []string
	if len(s.Thought) > 0 {
		blocks = append(blocks, `{"type":"thinking","signature":"c2ln","thinking":`+quote(strings.Join(s.Thought, ""))+"}")
	}
	blocks = append(blocks, `{"type":"text","text":`+quote(strings.Join(s.Text, ""))+"}")
	for _, call := range s.Calls {
		blocks = append(blocks, fmt.Sprintf(`{"type":"tool_use","id":%q,"name":%q,"input":%s}`, call.ID, call.Name, strings.Join(call.Arguments, "")))
	}
	return fmt.Sprintf(`{"id":"msg_up","type":"message","role":"assistant","model":%q,"content":[%s],"stop_reason":%q,"stop_sequence":null,"usage":{"input_tokens":%d,"output_tokens":%d}}`,
		s.Model, strings.Join(blocks, ","), stopReason(s.Finish), s.Usage.PromptTokens, s.Usage.CompletionTokens)
}

func stopReason(finish string) string {
	return map[string]string{"stop": "end_turn", "length": "max_tokens", "tool_calls": "tool_use"}[finish]
}

// refusal is an error as Anthropic writes it.
func refusal(r backendtest.Refusal) (status int, body string) {
	kind, explanation := "api_error", backendtest.Canary
	switch r {
	case backendtest.RateLimit:
		status, kind = http.StatusTooManyRequests, "rate_limit_error"
	case backendtest.Overloaded:
		status, kind = 529, "overloaded_error"
	case backendtest.Internal:
		status = http.StatusInternalServerError
	case backendtest.Invalid:
		status, kind, explanation = http.StatusBadRequest, "invalid_request_error", "messages.0: odd"
	case backendtest.Credentials:
		status, kind = http.StatusUnauthorized, "authentication_error"
	case backendtest.UnknownModel:
		status, kind, explanation = http.StatusNotFound, "not_found_error", "model: real"
	case backendtest.ContextLength:
		status, kind, explanation = http.StatusBadRequest, "invalid_request_error", "prompt is too long: 250000 tokens > 200000 maximum"
	case backendtest.GaveUp:
		status, kind = http.StatusGatewayTimeout, "timeout_error"
	}
	return status, fmt.Sprintf(`{"type":"error","error":{"type":%q,"message":%q},"request_id":"req_up"}`, kind, explanation)
}

func quote(text string) string {
	data, _ := json.Marshal(text) // a string can be encoded
	return string(data)
}

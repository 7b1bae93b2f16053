package responses

import (
	"github.com/tidwall/gjson"
)

// memberContinues stands in a body in the place of previous_response_id once the door has put that response's conversation
// in front of the input.
const memberContinues = "x_previous_response_id"

// Request is what a Responses body says of how it is answered and kept. It is never changed and safe for concurrent use.
type Request struct {
	Background bool   // the caller does not wait, and the response goes on without anyone
	Store      bool   // the response may be retrieved afterwards
	Previous   string // the id of the response to go on from, not yet resolved; empty if none

	summary bool   // reasoning is shown as a summary
	echo    []byte // the members of the response object that repeat the request, each with a comma before it
}

// Parse reads a body that [openai.ParseRequest] accepts. The error is a [schemas.Error].
func Parse(body []byte) (*Request, error) {
	root := gjson.ParseBytes(oneLine(body))
	r := &Request{Store: true}
	for _, flag := range [...]struct {
		name string
		to   *bool
	}{{"background", &r.Background}, {"store", &r.Store}} {
		switch value := root.Get(flag.name); value.Type {
		case gjson.True, gjson.False:
			*flag.to = value.Bool()
		case gjson.Null: // also when it is absent
		default:
			return nil, invalid(flag.name, "must be true or false")
		}
	}
	if r.Background && !r.Store {
		return nil, invalid("store", "is false, but a background response is there to be retrieved: leave store out, or background")
	}
	previous := root.Get("previous_response_id")
	if given(previous) && (previous.Type != gjson.String || previous.Str == "") {
		return nil, invalid("previous_response_id", "must be the id of a response")
	}
	r.Previous = previous.Str
	summary := root.Get("reasoning.summary")
	if !given(summary) {
		summary = root.Get("reasoning.generate_summary") // its older name
	}
	r.summary = given(summary)
	r.echo = appendEcho(nil, root)
	return r, nil
}

// echoed are the members of a response that repeat what was asked, with what stands for those that were left out.
var echoed = [...]struct{ name, fallback string }{
	{"model", `""`},
	{"background", "false"},
	{"instructions", "null"},
	{"max_output_tokens", "null"},
	{"max_tool_calls", "null"},
	{"metadata", "{}"},
	{"parallel_tool_calls", "true"},
	{"prompt_cache_key", "null"},
	{"reasoning", `{"effort":null,"summary":null}`},
	{"safety_identifier", "null"},
	{"store", "true"},
	{"temperature", "1.0"},
	{"text", `{"format":{"type":"text"}}`},
	{"tool_choice", `"auto"`},
	{"tools", "[]"},
	{"top_logprobs", "0"},
	{"top_p", "1.0"},
	{"truncation", `"disabled"`},
	{"user", "null"},
}

func appendEcho(dst []byte, body gjson.Result) []byte {
	for _, member := range echoed {
		raw := member.fallback
		if value := body.Get(member.name); given(value) {
			raw = value.Raw
		}
		if member.name == "text" {
			raw = textConfig(body.Get("text"), raw)
		}
		dst = appendMember(dst, member.name, raw)
	}
	previous := "null"
	if value := body.Get(memberContinues); value.Type == gjson.String {
		previous = value.Raw
	}
	return appendMember(dst, "previous_response_id", previous)
}

// textConfig completes a text member that leaves its format out, as SDKs read it without asking.
func textConfig(text gjson.Result, raw string) string {
	if !text.IsObject() || given(text.Get("format")) {
		return raw
	}
	b := []byte(`{"format":{"type":"text"}`)
	text.ForEach(func(name, value gjson.Result) bool {
		if name.Str != "format" {
			b = append(append(append(append(b, ','), name.Raw...), ':'), value.Raw...)
		}
		return true
	})
	return string(append(b, '}'))
}

package responses

import (
	"strings"

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
	m := membersOf(oneLine(body))
	r := &Request{Store: true}
	if err := readBool("background", m.values[background], &r.Background); err != nil {
		return nil, err
	}
	if err := readBool("store", m.values[store], &r.Store); err != nil {
		return nil, err
	}
	if r.Background && !r.Store {
		return nil, invalid("store", "is false, but a background response is there to be retrieved: leave store out, or background")
	}
	if given(m.previous) && (m.previous.Type != gjson.String || m.previous.Str == "") {
		return nil, invalid("previous_response_id", "must be the id of a response")
	}
	r.Previous = strings.Clone(m.previous.Str) // without the body that it was cut from
	summary := m.values[reasoning].Get("summary")
	if !given(summary) {
		summary = m.values[reasoning].Get("generate_summary") // its older name
	}
	r.summary = given(summary)
	r.echo = m.appendEcho(nil)
	return r, nil
}

func readBool(name string, value gjson.Result, to *bool) error {
	switch value.Type {
	case gjson.True, gjson.False:
		*to = value.Bool()
	case gjson.Null: // also when it is absent
	default:
		return invalid(name, "must be true or false")
	}
	return nil
}

// echoed are the members of a response that repeat what was asked, with what stands for those that were left out.
var echoed = [...]struct{ name, fallback string }{
	background: {"background", "false"},
	store:      {"store", "true"},
	reasoning:  {"reasoning", `{"effort":null,"summary":null}`},
	textMember: {"text", `{"format":{"type":"text"}}`},
	{"model", `""`},
	{"instructions", "null"},
	{"max_output_tokens", "null"},
	{"max_tool_calls", "null"},
	{"metadata", "{}"},
	{"parallel_tool_calls", "true"},
	{"prompt_cache_key", "null"},
	{"safety_identifier", "null"},
	{"temperature", "1.0"},
	{"tool_choice", `"auto"`},
	{"tools", "[]"},
	{"top_logprobs", "0"},
	{"top_p", "1.0"},
	{"truncation", `"disabled"`},
	{"user", "null"},
}

// Places in echoed.
const (
	background = iota
	store
	reasoning
	textMember
)

// members are those of a body that a response repeats, found in one pass.
type members struct {
	values              [len(echoed)]gjson.Result
	previous, continues gjson.Result
}

func membersOf(body []byte) *members {
	m := &members{}
	gjson.ParseBytes(body).ForEach(func(name, value gjson.Result) bool {
		switch name.Str {
		case "previous_response_id":
			m.previous = value
		case memberContinues:
			m.continues = value
		}
		for i := range echoed {
			if echoed[i].name == name.Str {
				m.values[i] = value
				break
			}
		}
		return true
	})
	return m
}

func (m *members) appendEcho(dst []byte) []byte {
	for i, member := range echoed {
		raw := member.fallback
		if value := m.values[i]; given(value) {
			raw = value.Raw
		}
		if i == textMember {
			raw = textConfig(m.values[i], raw)
		}
		dst = appendMember(dst, member.name, raw)
	}
	previous := "null"
	if m.continues.Type == gjson.String {
		previous = m.continues.Raw
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

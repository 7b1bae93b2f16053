package openai

import (
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// toolCalls are the calls of one choice so far.
type toolCalls struct {
	calls []toolCall
	next  int // the index that a new call gets if its own cannot be used
}

type toolCall struct {
	number int // its index as callers see it
	given  int // that of the server; noIndex = none
	id     string
}

const noIndex = -1

// maxToolCalls bounds the calls of one choice that are kept in mind; more are passed on as they are.
const maxToolCalls = 1024

// toolFix is what a call in a delta needs.
type toolFix struct {
	number int
	index  bool   // its index is missing or taken
	id     string // its id is missing; empty = it is not
}

// fixTools gives calls of tools the index that Gemini leaves out, one of their own where Ollama numbers all of them 0, and
// an id where there is none.
func (m *Mender) fixTools(data []byte, c *Chunk) {
	for i := range c.Choices {
		o := &c.Choices[i]
		if o.ToolCalls == "" || o.Index < 0 || o.Index >= maxChoices {
			continue
		}
		var fixes []toolFix
		needed := false
		state := m.toolsOf(o.Index)
		gjson.Parse(o.ToolCalls).ForEach(func(_, call gjson.Result) bool {
			fix := m.place(state, o.Index, call)
			fixes = append(fixes, fix)
			needed = needed || fix.index || fix.id != ""
			return true
		})
		if needed {
			m.applyTools(data, c, i, fixes)
		}
	}
}

func (m *Mender) toolsOf(choice int) *toolCalls {
	if m.tools == nil {
		m.tools = make(map[int]*toolCalls)
	}
	if m.tools[choice] == nil {
		m.tools[choice] = &toolCalls{}
	}
	return m.tools[choice]
}

// place finds the call that a part of one belongs to, or begins one.
func (m *Mender) place(t *toolCalls, choice int, part gjson.Result) toolFix {
	index, id, name := part.Get("index"), part.Get("id").Str, part.Get("function.name").Str
	given := noIndex
	if index.Type == gjson.Number {
		given = int(index.Num)
	}
	if call := t.find(given, id, name); call != nil {
		return toolFix{number: call.number, index: call.number != given}
	}
	if len(t.calls) == maxToolCalls {
		return toolFix{}
	}
	number := t.next
	if given != noIndex && !t.taken(given) {
		number = given
	}
	t.calls = append(t.calls, toolCall{number, given, id})
	t.next = max(t.next, number+1)
	fix := toolFix{number: number, index: number != given}
	if id == "" && name != "" && m.Request != "" {
		fix.id = "call_" + m.Request + "_" + strconv.Itoa(number)
		if choice > 0 {
			fix.id = "call_" + m.Request + "_" + strconv.Itoa(choice) + "_" + strconv.Itoa(number)
		}
	}
	return fix
}

// find is the open call that a part goes on with; nil = it begins another.
func (t *toolCalls) find(given int, id, name string) *toolCall {
	for i := len(t.calls) - 1; i >= 0; i-- {
		call := &t.calls[i]
		if call.given != given {
			continue
		}
		another := id != "" && id != call.id && (name != "" || given == noIndex) || id == "" && name != "" && given == noIndex
		if another {
			return nil
		}
		return call
	}
	return nil
}

func (t *toolCalls) taken(number int) bool {
	for _, call := range t.calls {
		if call.number == number {
			return true
		}
	}
	return false
}

// applyTools writes what the calls of a choice need.
func (m *Mender) applyTools(data []byte, c *Chunk, i int, fixes []toolFix) {
	base := c.choices.value
	choice := gjson.GetBytes(data[base:c.choices.end], strconv.Itoa(i))
	calls, streamed := choice.Get("delta.tool_calls"), true
	if !calls.IsArray() {
		calls, streamed = choice.Get("message.tool_calls"), false // whose calls have no index
	}
	at := 0
	calls.ForEach(func(_, call gjson.Result) bool {
		if at == len(fixes) { // a delta with the member twice
			return false
		}
		fix := fixes[at]
		at++
		if !call.IsObject() {
			return true
		}
		m.said = true
		open := base + call.Index + 1
		var missing []string
		set := func(name, value string) {
			if given := call.Get(name); given.Exists() {
				m.edit(base+given.Index, base+given.Index+len(given.Raw), value)
				return
			}
			missing = append(missing, strconv.Quote(name)+":"+value)
		}
		if fix.index && streamed {
			set("index", strconv.Itoa(fix.number))
		}
		if fix.id != "" {
			set("id", string(appendString(nil, fix.id)))
		}
		if len(missing) > 0 {
			comma := ","
			if len(call.Map()) == 0 {
				comma = ""
			}
			m.edit(open, open, strings.Join(missing, ",")+comma)
		}
		return true
	})
}

const filtered = "content_filter"

// fixReasons makes the reason why a choice ended one that clients know: tool_calls where tools were called and a server says
// stop, as Gemini and older Ollamas do, and content_filter without the filter's name. A caller that forced a tool gets stop
// from OpenAI too.
func (m *Mender) fixReasons(data []byte, c *Chunk) {
	for i := range c.Choices {
		o := &c.Choices[i]
		reason := ""
		switch {
		case o.Finish == "stop" && m.called(o) && !forcesTool(m.Body):
			reason = "tool_calls"
		case strings.HasPrefix(o.Finish, filtered+":"):
			reason = filtered
		default:
			continue
		}
		at := gjson.GetBytes(data[c.choices.value:c.choices.end], strconv.Itoa(i)+".finish_reason")
		if at.Index > 0 {
			m.edit(c.choices.value+at.Index, c.choices.value+at.Index+len(at.Raw), strconv.Quote(reason))
			m.said = true
		}
	}
}

func (m *Mender) called(o *Choice) bool {
	t := m.tools[o.Index]
	return t != nil && len(t.calls) > 0
}

// forcesTool reports whether a request names the tool that must be called.
func forcesTool(body []byte) bool { return gjson.GetBytes(body, "tool_choice").IsObject() }

// Failed is the error of an answer that a server ended with a reason that is none: "error" of OpenRouter, "abort" of vLLM and
// SGLang when they stop, and Gemini's of a call of a tool that it could not read. It is nil for every other.
func (c *Chunk) Failed() *schemas.Error {
	for i := range c.Choices {
		switch reason := c.Choices[i].Finish; {
		case reason == "error":
			return schemas.Errorf(schemas.CodeUpstreamError, "the model server ended the answer with finish_reason \"error\"; try again")
		case reason == "abort":
			return schemas.Errorf(schemas.CodeUpstreamInterrupted, "the model server gave the answer up (finish_reason \"abort\"); try again")
		case strings.HasPrefix(reason, "function_call_filter:"):
			return schemas.Errorf(schemas.CodeUpstreamError, "the model called a tool in a way that its server cannot read; try again")
		}
	}
	return nil
}

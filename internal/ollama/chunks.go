package ollama

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"github.com/go-json-experiment/json/jsontext"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
)

// IDPrefix begins the id of a chat answer.
const IDPrefix = "chatcmpl-"

// Chunks turns the lines of an answer into the chunks of a chat answer. It is owned by one goroutine. What it returns is
// valid until its next call.
type Chunks struct {
	ID    string // of the answer; the server gives none
	Model string // as the caller named it

	begun  bool
	calls  int    // of tools so far
	head   []byte // of every chunk, up to and with `"choices":[`
	buf    []byte
	chunk  openai.Chunk
	choice [1]openai.Choice
}

// Add takes the next line and returns the chunk that it makes, as JSON and as what it says. Data is empty when there is
// nothing for the caller. An error is for the caller of Add to recognise.
func (t *Chunks) Add(e *Event) (data []byte, chunk *openai.Chunk) {
	first := !t.begun
	if first {
		t.begin(e)
	}
	t.choice[0] = openai.Choice{Content: e.content, Reasoning: e.thinking, ToolCalls: t.toolCalls(e, true)}
	o := &t.choice[0]
	o.Finish = e.finish(t.calls)
	if e.logProbs != "" {
		o.LogProbs = `{"content":` + e.logProbs + `,"refusal":null}`
	}
	if first {
		o.Role = "assistant"
	}
	t.chunk = openai.Chunk{ID: t.ID, Model: e.model}
	if !first && o.Content == "" && o.Reasoning == "" && o.ToolCalls == "" && o.LogProbs == "" && o.Finish == "" {
		return nil, &t.chunk
	}
	t.chunk.Choices = t.choice[:]
	b := append(append(t.buf[:0], t.head...), `{"index":0,"delta":{`...)
	b = append(appendMembers(b, o), '}')
	t.buf = append(appendEnd(b, o), "}]}"...)
	return t.buf, &t.chunk
}

// Usage is the chunk that tells what the answer cost, which its last line says.
func (t *Chunks) Usage(e *Event) (data []byte, chunk *openai.Chunk) {
	t.chunk = openai.Chunk{ID: t.ID, Model: e.model, Usage: e.usage()}
	b := append(append(t.buf[:0], t.head...), `],"usage":`...)
	t.buf = append(append(b, t.chunk.Usage...), '}')
	return t.buf, &t.chunk
}

// Response turns a whole answer into that of a unary chat request.
func (t *Chunks) Response(e *Event) []byte {
	o := openai.Choice{Role: "assistant", Content: e.content, Reasoning: e.thinking, ToolCalls: t.toolCalls(e, false)}
	o.Finish = e.finish(t.calls)
	b := t.opening("chat.completion", e)
	b = append(b, `{"index":0,"message":{`...)
	b = append(appendMembers(b, &o), `,"refusal":null},"logprobs":`...)
	if e.logProbs != "" {
		b = append(append(append(b, `{"content":`...), e.logProbs...), `,"refusal":null}`...)
	} else {
		b = append(b, "null"...)
	}
	b = append(appendString(append(b, `,"finish_reason":`...), o.Finish), `}],"usage":`...)
	return append(append(b, e.usage()...), '}')
}

func (t *Chunks) begin(e *Event) {
	t.begun, t.head = true, t.opening("chat.completion.chunk", e)
}

func (t *Chunks) opening(object string, e *Event) []byte {
	b := appendString([]byte(`{"id":`), t.ID)
	b = appendString(append(b, `,"object":`...), object)
	b = strconv.AppendInt(append(b, `,"created":`...), e.unix(time.Now()), 10)
	b = appendString(append(b, `,"model":`...), t.Model)
	return append(b, `,"choices":[`...)
}

// appendMembers writes the members of a delta or a message.
func appendMembers(b []byte, o *openai.Choice) []byte {
	comma := ""
	member := func(name string) {
		b = append(append(append(append(b, comma...), '"'), name...), `":`...)
		comma = ","
	}
	if o.Role != "" {
		member("role")
		b = appendString(b, o.Role)
	}
	if o.Content != "" || o.Role != "" {
		member("content")
		b = appendString(b, o.Content)
	}
	if o.Reasoning != "" {
		member("reasoning_content")
		b = appendString(b, o.Reasoning)
	}
	if o.ToolCalls != "" {
		member("tool_calls")
		b = append(b, o.ToolCalls...)
	}
	return b
}

// appendEnd writes what follows a delta.
func appendEnd(b []byte, o *openai.Choice) []byte {
	if o.LogProbs != "" {
		b = append(append(b, `,"logprobs":`...), o.LogProbs...)
	}
	if o.Finish == "" {
		return append(b, `,"finish_reason":null`...)
	}
	return appendString(append(b, `,"finish_reason":`...), o.Finish)
}

// toolCalls are the calls in a line, each of which is whole, as JSON; empty when there are none. The server numbers them
// anew in each line, and older ones give them no id.
func (t *Chunks) toolCalls(e *Event, indexed bool) string {
	if !e.toolCalls.IsArray() {
		return ""
	}
	b := []byte{'['}
	e.toolCalls.ForEach(func(_, call gjson.Result) bool {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(b, '{')
		if indexed {
			b = append(strconv.AppendInt(append(b, `"index":`...), int64(t.calls), 10), ',')
		}
		id := call.Get("id").Str
		if id == "" {
			id = "call_" + strings.TrimPrefix(t.ID, IDPrefix) + "_" + strconv.Itoa(t.calls)
		}
		b = appendString(append(b, `"id":`...), id)
		b = appendString(append(b, `,"type":"function","function":{"name":`...), call.Get("function.name").Str)
		b = append(appendString(append(b, `,"arguments":`...), arguments(call.Get("function.arguments"))), "}}"...)
		t.calls++
		return true
	})
	if len(b) == 1 {
		return ""
	}
	return string(append(b, ']'))
}

// arguments are an object; a proxy may have made text of it.
func arguments(value gjson.Result) string {
	switch {
	case value.Type == gjson.String:
		return value.Str
	case !value.IsObject():
		return "{}"
	}
	var compact bytes.Buffer
	if json.Compact(&compact, []byte(value.Raw)) != nil {
		return value.Raw // unreachable: Peek has validated it
	}
	return compact.String()
}

// usage is what the answer cost, as JSON.
func (e *Event) usage() string {
	b := strconv.AppendInt([]byte(`{"prompt_tokens":`), int64(e.prompt), 10)
	b = strconv.AppendInt(append(b, `,"completion_tokens":`...), int64(e.answer), 10)
	b = strconv.AppendInt(append(b, `,"total_tokens":`...), int64(e.prompt+e.answer), 10)
	return string(append(b, '}'))
}

// appendString appends s as a JSON string.
func appendString(dst []byte, s string) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // the error tells of invalid UTF-8, which is replaced
	return dst
}

package anthropic

import (
	"errors"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
)

// Types of events.
const (
	MessageStart      = "message_start"
	ContentBlockStart = "content_block_start"
	ContentBlockDelta = "content_block_delta"
	ContentBlockStop  = "content_block_stop"
	MessageDelta      = "message_delta"
	MessageStop       = "message_stop"
	pingType          = "ping"
	errorType         = "error"
)

// Types of blocks and deltas.
const (
	textBlock     = "text"
	thinkingBlock = "thinking"
	toolBlock     = "tool_use"

	textDelta     = "text_delta"
	thinkingDelta = "thinking_delta"
	inputDelta    = "input_json_delta"
)

// Event is what the pipeline needs to know of an event. Its strings do not share memory with the data.
type Event struct {
	Type  string
	Error string // the error object of an error event, as JSON

	index      int
	block      string // type of the block that begins
	delta      string // type of the delta
	text       string // of a block that begins, or of a delta of any type
	id, name   string // of the message or the tool
	model      string
	modelAt    int // where the model's name stands in the data, as JSON; 0 = nowhere
	modelSize  int
	stopReason string
	usage      gjson.Result
}

// errNoType says that a JSON object is no event.
var errNoType = errors.New("it has no type")

// Peek reads data, which must be one JSON object, into e. It replaces all that e held.
func (e *Event) Peek(data []byte) error {
	*e = Event{}
	root, err := openai.ParseObject(data)
	if err != nil {
		return err
	}
	root.ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "type":
			e.Type = value.Str
		case "index":
			e.index = int(value.Num)
		case "content_block":
			e.peekBlock(value)
		case "delta":
			e.peekDelta(value)
		case "message":
			e.peekMessage(value)
		case "usage":
			e.usage = value
		case "error":
			e.Error = value.Raw
		}
		return true
	})
	if e.Type == "" {
		return errNoType
	}
	return nil
}

func (e *Event) peekBlock(block gjson.Result) {
	block.ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "type":
			e.block = value.Str
		case "id":
			e.id = value.Str
		case "name":
			e.name = value.Str
		case "text", "thinking":
			e.text = value.Str
		}
		return true
	})
}

func (e *Event) peekDelta(delta gjson.Result) {
	delta.ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "type":
			e.delta = value.Str
		case "text", "thinking", "partial_json":
			e.text = value.Str
		case "stop_reason":
			e.stopReason = value.Str
		}
		return true
	})
}

func (e *Event) peekMessage(message gjson.Result) {
	message.ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "id":
			e.id = value.Str
		case "model":
			e.model, e.modelAt, e.modelSize = value.Str, value.Index, len(value.Raw)
		case "usage":
			e.usage = value
		case "stop_reason":
			e.stopReason = value.Str
		}
		return true
	})
}

// says reports whether the event is a piece of text or of thought.
func (e *Event) says() bool { return e.delta == textDelta || e.delta == thinkingDelta }

// Ping reports whether the event only says that the server is there.
func (e *Event) Ping() bool { return e.Type == pingType }

// Failed reports whether the event is an error.
func (e *Event) Failed() bool { return e.Type == errorType }

// WithModel returns the data that e was read from with another name for the model, if the event names one.
func (e *Event) WithModel(data []byte, model string) []byte {
	if e.modelAt == 0 || e.model == model {
		return data
	}
	out := appendString(append(make([]byte, 0, len(data)+len(model)), data[:e.modelAt]...), model)
	return append(out, data[e.modelAt+e.modelSize:]...)
}

// usage is the tokens of an answer. The counts of a stream are cumulative: the last one that is given holds.
type usage struct {
	input, cacheWrite, cacheRead, output int64
	known                                bool
}

func (u *usage) update(value gjson.Result) {
	if !value.IsObject() {
		return
	}
	u.known = true
	value.ForEach(func(key, value gjson.Result) bool {
		if value.Type != gjson.Number {
			return true
		}
		switch key.Str {
		case "input_tokens":
			u.input = value.Int()
		case "cache_creation_input_tokens":
			u.cacheWrite = value.Int()
		case "cache_read_input_tokens":
			u.cacheRead = value.Int()
		case "output_tokens":
			u.output = value.Int()
		}
		return true
	})
}

// prompt is the tokens of all that was read, cached or not.
func (u *usage) prompt() int64 { return u.input + u.cacheWrite + u.cacheRead }

// encodeOpenAI writes the usage object of the other dialect.
func (u *usage) encodeOpenAI() string {
	if !u.known {
		return ""
	}
	prompt := u.prompt()
	b := strconv.AppendInt([]byte(`{"prompt_tokens":`), prompt, 10)
	b = strconv.AppendInt(append(b, `,"completion_tokens":`...), u.output, 10)
	b = strconv.AppendInt(append(b, `,"total_tokens":`...), prompt+u.output, 10)
	b = strconv.AppendInt(append(b, `,"prompt_tokens_details":{"cached_tokens":`...), u.cacheRead, 10)
	b = strconv.AppendInt(append(b, `,"cache_write_tokens":`...), u.cacheWrite, 10)
	return string(append(b, "}}"...))
}

// appendUsage appends the usage object of this dialect.
func (u *usage) append(b []byte) []byte {
	b = strconv.AppendInt(append(b, `{"input_tokens":`...), u.input, 10)
	b = strconv.AppendInt(append(b, `,"cache_creation_input_tokens":`...), u.cacheWrite, 10)
	b = strconv.AppendInt(append(b, `,"cache_read_input_tokens":`...), u.cacheRead, 10)
	b = strconv.AppendInt(append(b, `,"output_tokens":`...), u.output, 10)
	return append(b, '}')
}

// usageOf reads the usage object of the other dialect, in which the input counts the cached part too.
func usageOf(o gjson.Result) usage {
	u := usage{
		known: o.IsObject(), input: o.Get("prompt_tokens").Int(), output: o.Get("completion_tokens").Int(),
		cacheRead: o.Get("prompt_tokens_details.cached_tokens").Int(), cacheWrite: o.Get("prompt_tokens_details.cache_write_tokens").Int(),
	}
	u.input = max(0, u.input-u.cacheRead-u.cacheWrite)
	return u
}

// finishOf is the finish_reason that a stop_reason stands for.
func finishOf(stopReason string) string {
	switch stopReason {
	case "":
		return ""
	case "max_tokens", "model_context_window_exceeded":
		return "length"
	case "tool_use":
		return "tool_calls"
	case "refusal":
		return "content_filter"
	}
	return "stop" // end_turn, stop_sequence, pause_turn
}

// stopReasonOf is the stop_reason that a finish_reason stands for.
func stopReasonOf(finish string, tools, refused bool) string {
	switch {
	case finish == "length":
		return "max_tokens"
	case finish == "content_filter", refused:
		return "refusal"
	case finish == "tool_calls", finish == "function_call", tools: // some servers end a call of tools with "stop"
		return "tool_use"
	}
	return "end_turn"
}

package anthropic

import (
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// FromResponse turns a whole chat response into a message. The id and the model are those of the message.
func FromResponse(data []byte, id, model string, inputTokens int) ([]byte, error) {
	root, err := openai.ParseObject(data)
	if err != nil {
		return nil, schemas.Errorf(schemas.CodeUpstreamError, "the model server's answer cannot be read; try again").WithCause(err)
	}
	choice := root.Get("choices.0")
	message, finish := choice.Get("message"), choice.Get("finish_reason").Str
	content := object{}
	if thought := first(message.Get("reasoning_content").Str, message.Get("reasoning").Str); thought != "" {
		content.next()
		content.out = appendString(append(content.out, `{"type":"thinking","thinking":`...), thought)
		content.out = append(content.out, `,"signature":""}`...)
	}
	refusal := message.Get("refusal").Str
	if text := message.Get("content").Str + refusal; text != "" {
		content.next()
		content.out = append(appendString(append(content.out, `{"type":"text","text":`...), text), '}')
	}
	calls := message.Get("tool_calls").Array()
	for i, call := range calls {
		if err := content.toolUse(call, id, i, finish); err != nil {
			return nil, err
		}
	}
	used := usageOf(root.Get("usage"))
	if !used.known {
		used.input = int64(inputTokens)
	}
	b := appendString([]byte(`{"id":`), id)
	b = appendString(append(b, `,"type":"message","role":"assistant","model":`...), model)
	b = append(append(b, `,"content":[`...), content.out...)
	b = append(append(b, `],"stop_reason":"`...), stopReasonOf(finish, len(calls) > 0, refusal != "")...)
	return append(used.append(append(b, `","stop_sequence":null,"usage":`...)), '}'), nil
}

// toolUse writes a call of a tool as a block.
func (o *object) toolUse(call gjson.Result, message string, i int, finish string) error {
	input := line(call.Get("function.arguments").Str)
	switch {
	case strings.TrimSpace(input) == "":
		input = "{}"
	case isObject(input):
	case finish == "length": // the limit fell into the arguments
		input = "{}"
	default:
		return schemas.Errorf(schemas.CodeUpstreamError, "the model called a tool with arguments that are not a JSON object; try again")
	}
	o.next()
	o.out = appendString(append(o.out, `{"type":"tool_use","id":`...), first(call.Get("id").Str, "toolu_"+message+"_"+strconv.Itoa(i)))
	o.out = appendString(append(o.out, `,"name":`...), call.Get("function.name").Str)
	o.out = append(append(append(o.out, `,"input":`...), input...), '}')
	return nil
}

// ToResponse turns a whole message into a chat response.
func ToResponse(data []byte, model string, created int64) ([]byte, error) {
	root, err := openai.ParseObject(data)
	if err != nil {
		return nil, schemas.Errorf(schemas.CodeUpstreamError, "the model server's answer cannot be read; try again").WithCause(err)
	}
	var text, thought strings.Builder
	calls := object{}
	root.Get("content").ForEach(func(_, block gjson.Result) bool {
		switch block.Get("type").Str {
		case textBlock:
			text.WriteString(block.Get("text").Str)
		case thinkingBlock:
			thought.WriteString(block.Get("thinking").Str)
		case toolBlock:
			calls.toolCall(block)
		}
		return true
	})
	b := appendString([]byte(`{"id":`), root.Get("id").Str)
	b = strconv.AppendInt(append(b, `,"object":"chat.completion","created":`...), created, 10)
	b = appendString(append(b, `,"model":`...), model)
	b = append(b, `,"choices":[{"index":0,"message":{"role":"assistant","content":`...)
	if text.Len() == 0 && len(calls.out) > 0 {
		b = append(b, "null"...)
	} else {
		b = appendString(b, text.String())
	}
	if thought.Len() > 0 {
		b = appendString(append(b, `,"reasoning_content":`...), thought.String())
	}
	b = append(b, `,"refusal":null`...)
	if len(calls.out) > 0 {
		b = append(append(append(b, `,"tool_calls":[`...), calls.out...), ']')
	}
	b = append(b, `},"logprobs":null,"finish_reason":`...)
	b = append(appendString(b, finishOf(root.Get("stop_reason").Str)), "}]"...)
	var used usage
	if used.update(root.Get("usage")); used.known {
		b = append(append(b, `,"usage":`...), used.encodeOpenAI()...)
	}
	return append(b, '}'), nil
}

// toolCall writes a block of a tool's use as a call.
func (o *object) toolCall(block gjson.Result) {
	o.next()
	o.out = appendString(append(o.out, `{"id":`...), block.Get("id").Str)
	o.out = appendString(append(o.out, `,"type":"function","function":{"name":`...), block.Get("name").Str)
	o.out = append(appendString(append(o.out, `,"arguments":`...), first(block.Get("input").Raw, "{}")), "}}"...)
}

// first returns a, or b when a is empty.
func first(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// Message is what the pipeline needs to know of a whole answer.
type Message struct {
	Event
	Message bool   // it is a message
	Counted bool   // it is a count of tokens
	Finish  string // in the terms of the other dialect
	Error   string // the error object, when it is one

	usage  usage
	choice [1]openai.Choice
}

// ParseMessage reads the body of a reply.
func ParseMessage(data []byte) (*Message, error) {
	root, err := openai.ParseObject(data)
	if err != nil {
		return nil, err
	}
	m := &Message{Message: root.Get("type").Str == "message", Counted: root.Get("input_tokens").Type == gjson.Number}
	m.peekMessage(root)
	m.Finish = finishOf(m.stopReason)
	m.usage.update(m.Event.usage)
	if failure := root.Get("error"); failure.Exists() {
		m.Error = failure.Raw
	}
	return m, nil
}

// Note says in the terms of the other dialect what the answer tells. It fills c.
func (m *Message) Note(c *openai.Chunk) {
	m.choice[0] = openai.Choice{Finish: m.Finish}
	*c = openai.Chunk{ID: m.id, Model: m.model, Choices: m.choice[:], Usage: m.usage.encodeOpenAI()}
}

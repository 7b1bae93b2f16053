package responses

import (
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// messages converts instructions and input into the messages of a chat.
func (c *converter) messages() error {
	t := transcript{out: []byte{'['}}
	switch {
	case c.instructions.Type == gjson.String && c.instructions.Str == "":
	case c.instructions.Type == gjson.String:
		t.message(`"system"`, c.instructions.Raw)
	case given(c.instructions):
		return invalid("instructions", "must be a string; send several messages as input")
	}
	if c.input.Type == gjson.String {
		t.message(`"user"`, c.input.Raw)
	}
	var err error
	if c.input.IsArray() {
		i := 0
		c.input.ForEach(func(_, item gjson.Result) bool {
			err = t.item(element("input", i), item)
			i++
			return err == nil
		})
	}
	t.flush()
	if err != nil {
		return err
	}
	c.add("messages", string(append(t.out, ']')))
	return nil
}

// transcript writes messages. Items that are parts of one turn of the assistant become one message: its reasoning, its
// text and its tool calls.
type transcript struct {
	out []byte

	open      bool   // an assistant's message is being put together
	content   string // its raw content, empty so far if none
	calls     []byte // its tool calls
	reasoning []byte // what the assistant thought before it said anything
}

func (t *transcript) item(at string, item gjson.Result) error {
	switch kind := item.Get("type").Str; kind {
	case "", "message":
		return t.messageItem(at, item)
	case "function_call":
		return t.call(at, item)
	case "function_call_output":
		return t.output(at, item)
	case "reasoning":
		t.think(item)
		return nil
	case "item_reference":
		return unsupported(at, "refers to a stored item: send the item itself, or name its response as previous_response_id")
	default:
		return unsupported(at, "is of type %.40q: send messages, function_call, function_call_output and reasoning items", kind)
	}
}

func (t *transcript) messageItem(at string, item gjson.Result) error {
	role := item.Get("role")
	switch role.Str {
	case "user", "assistant", "system", "developer":
	default:
		return invalid(at+".role", "must be user, assistant, system or developer")
	}
	content, err := contentOf(at+".content", item.Get("content"))
	if err != nil {
		return err
	}
	if role.Str != "assistant" {
		t.message(role.Raw, content)
		return nil
	}
	if t.open && t.content != "" { // the next turn of the same speaker
		t.flush()
	}
	t.open, t.content = true, content
	return nil
}

func (t *transcript) call(at string, item gjson.Result) error {
	for _, member := range [...]string{"call_id", "name", "arguments"} {
		if item.Get(member).Type != gjson.String {
			return invalid(at+"."+member, "must be a string, as the function_call item of a response has it")
		}
	}
	if t.open = true; len(t.calls) > 0 {
		t.calls = append(t.calls, ',')
	}
	t.calls = append(append(t.calls, `{"id":`...), item.Get("call_id").Raw...)
	t.calls = append(append(t.calls, `,"type":"function","function":{"name":`...), item.Get("name").Raw...)
	t.calls = append(append(append(t.calls, `,"arguments":`...), item.Get("arguments").Raw...), "}}"...)
	return nil
}

func (t *transcript) output(at string, item gjson.Result) error {
	id := item.Get("call_id")
	if id.Type != gjson.String {
		return invalid(at+".call_id", "must be the call_id of the function_call that this is the output of")
	}
	content, err := contentOf(at+".output", item.Get("output"))
	if err != nil {
		return err
	}
	t.begin(`"tool"`)
	t.out = appendMember(t.out, "tool_call_id", id.Raw)
	t.out = append(appendMember(t.out, "content", content), '}')
	return nil
}

// think remembers reasoning in the open. Only servers that show it take it back; a summary or a cipher they would not
// understand.
func (t *transcript) think(item gjson.Result) {
	t.flush()
	item.Get("content").ForEach(func(_, part gjson.Result) bool {
		if part.Get("type").Str == "reasoning_text" {
			t.reasoning = append(t.reasoning, part.Get("text").Str...)
		}
		return true
	})
}

// message writes a message that is not the assistant's.
func (t *transcript) message(role, content string) {
	t.begin(role)
	t.out = append(appendMember(t.out, "content", content), '}')
}

func (t *transcript) begin(role string) {
	t.flush()
	t.reasoning = t.reasoning[:0] // it belonged to a turn that was left out
	if len(t.out) > 1 {
		t.out = append(t.out, ',')
	}
	t.out = append(append(t.out, `{"role":`...), role...)
}

// flush ends the assistant's message.
func (t *transcript) flush() {
	if !t.open {
		return
	}
	if len(t.out) > 1 {
		t.out = append(t.out, ',')
	}
	if t.content == "" {
		t.content = "null"
	}
	t.out = appendMember(append(t.out, `{"role":"assistant"`...), "content", t.content)
	if len(t.reasoning) > 0 {
		t.out = appendString(append(t.out, `,"reasoning_content":`...), t.reasoning)
	}
	if len(t.calls) > 0 {
		t.out = append(append(append(t.out, `,"tool_calls":[`...), t.calls...), ']')
	}
	t.out = append(t.out, '}')
	t.open, t.content, t.calls, t.reasoning = false, "", t.calls[:0], t.reasoning[:0]
}

// contentOf converts the content of a message. A single text becomes a string, which every server takes in every role.
func contentOf(at string, content gjson.Result) (string, error) {
	switch {
	case content.Type == gjson.String:
		return content.Raw, nil
	case !content.IsArray():
		return "", invalid(at, "must be a string or an array of parts")
	}
	parts := content.Array()
	if len(parts) == 1 && isText(parts[0]) {
		return parts[0].Get("text").Raw, nil
	}
	b := []byte{'['}
	for i, part := range parts {
		if i > 0 {
			b = append(b, ',')
		}
		var err *schemas.Error
		if b, err = appendPart(b, element(at, i), part); err != nil {
			return "", err
		}
	}
	if len(parts) == 0 {
		return `""`, nil
	}
	return string(append(b, ']')), nil
}

func isText(part gjson.Result) bool {
	kind := part.Get("type").Str
	return (kind == "input_text" || kind == "output_text" || kind == "text") && part.Get("text").Type == gjson.String
}

func appendPart(b []byte, at string, part gjson.Result) ([]byte, *schemas.Error) {
	switch kind := part.Get("type").Str; {
	case isText(part):
		b = append(append(b, `{"type":"text","text":`...), part.Get("text").Raw...)
	case kind == "refusal" && part.Get("refusal").Type == gjson.String:
		b = append(append(b, `{"type":"refusal","refusal":`...), part.Get("refusal").Raw...)
	case kind == "input_image" && part.Get("image_url").Type == gjson.String:
		b = append(append(b, `{"type":"image_url","image_url":{"url":`...), part.Get("image_url").Raw...)
		if detail := part.Get("detail"); given(detail) {
			b = appendMember(b, "detail", detail.Raw)
		}
		b = append(b, '}')
	case kind == "input_image":
		return b, unsupported(at, "has no image_url: files are not kept here; send the image as a URL or as a data: URL")
	case kind == "input_file" && (given(part.Get("file_data")) || given(part.Get("file_id"))):
		b = append(append(b, `{"type":"file","file":`...), without(part, "type")...)
	case kind == "input_file":
		return b, unsupported(at, "has neither file_data nor file_id: send the file's content as file_data")
	case kind == "input_audio" && part.Get("input_audio").IsObject():
		b = append(append(b, `{"type":"input_audio","input_audio":`...), part.Get("input_audio").Raw...)
	default:
		return b, invalid(at, "is of type %.40q or lacks what that needs: use input_text, input_image, input_file, input_audio, output_text or refusal", kind)
	}
	return append(b, '}'), nil
}

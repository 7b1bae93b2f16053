package triton

import (
	"errors"
	"slices"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// Template writes a chat down as one text. None begins with the mark for the beginning of a text, which vLLM's tokenizer
// adds itself.
type Template string

// The templates.
const (
	Raw    Template = "raw"    // the contents, a blank line between them; for a model that has a template of its own in Triton
	ChatML Template = "chatml" // Qwen, and many others
	Llama3 Template = "llama3" // Llama 3 to 3.3
)

// Templates lists their names.
func Templates() []string { return []string{string(Raw), string(ChatML), string(Llama3)} }

// Validate reports a template that is not known. None at all is none.
func (t Template) Validate() error {
	if t != "" && !slices.Contains(Templates(), string(t)) {
		return errors.New("template is not known: use " + strings.Join(Templates(), ", "))
	}
	return nil
}

// marks are what a template sets between turns. A content that holds one could forge a turn.
func (t Template) marks() []string {
	switch t {
	case ChatML:
		return []string{"<|im_start|>", "<|im_end|>"}
	case Llama3:
		return []string{"<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|eom_id|>", "<|begin_of_text|>", "<|end_of_text|>"}
	}
	return nil
}

// turn writes a turn, or with no content the beginning of the one that the model is to say.
func (t Template) turn(b *strings.Builder, role, content string, ends bool) {
	switch t {
	case ChatML:
		b.WriteString("<|im_start|>" + role + "\n" + content)
		if ends {
			b.WriteString("<|im_end|>\n")
		}
	case Llama3:
		b.WriteString("<|start_header_id|>" + role + "<|end_header_id|>\n\n" + strings.TrimSpace(content))
		if ends {
			b.WriteString("<|eot_id|>")
		}
	default:
		if b.Len() > 0 && ends {
			b.WriteString("\n\n")
		}
		b.WriteString(content)
	}
}

// chat writes down the messages of a validated body.
func (t Template) chat(body gjson.Result) (string, error) {
	if t == "" {
		return "", schemas.Errorf(schemas.CodeUnsupported, "the model server takes plain text and no template is set for chats; send a completion, or have the operator set the backend's template")
	}
	var text strings.Builder
	for i, message := range body.Get("messages").Array() {
		role, content, err := t.message(i, message)
		if err != nil {
			return "", err
		}
		t.turn(&text, role, content, true)
	}
	t.turn(&text, "assistant", "", false)
	return text.String(), nil
}

func (t Template) message(i int, message gjson.Result) (role, content string, err error) {
	switch role = message.Get("role").Str; role {
	case "developer":
		role = "system"
	case "system", "user", "assistant":
	default:
		return "", "", unsupported(at(i, "role"), "is not one that the model has: it has no tools")
	}
	if len(message.Get("tool_calls").Array()) > 0 || message.Get("function_call").IsObject() {
		return "", "", unsupported(at(i, "tool_calls"), "cannot be told to the model: it has no tools")
	}
	if content, err = contentOf(i, message.Get("content")); err != nil {
		return "", "", err
	}
	for _, mark := range t.marks() {
		if strings.Contains(content, mark) {
			return "", "", schemas.Errorf(schemas.CodeInvalidValue, "%s holds %s, which sets the model's turns apart; remove it", at(i, "content"), mark).WithParam(at(i, "content"))
		}
	}
	return role, content, nil
}

// contentOf is the text of a message, which may come in parts.
func contentOf(i int, value gjson.Result) (string, error) {
	if !value.IsArray() {
		return value.Str, nil
	}
	var text strings.Builder
	for _, part := range value.Array() {
		if part.Get("type").Str != "text" {
			return "", unsupported(at(i, "content"), "holds something other than text, which the model cannot read")
		}
		text.WriteString(part.Get("text").Str)
	}
	return text.String(), nil
}

// completion is the prompt of a validated body.
func completion(body gjson.Result) (string, error) {
	prompt := body.Get("prompt")
	if prompt.IsArray() {
		all := prompt.Array()
		if len(all) != 1 || all[0].Type != gjson.String {
			return "", unsupported("prompt", "is several prompts, or tokens: the model takes one text at a time")
		}
		prompt = all[0]
	}
	return prompt.Str, nil
}

func at(i int, member string) string { return "messages[" + strconv.Itoa(i) + "]." + member }

func unsupported(param, problem string) *schemas.Error {
	return schemas.Errorf(schemas.CodeUnsupported, "%s %s; leave it out, or choose another model", param, problem).WithParam(param)
}

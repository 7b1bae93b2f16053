package ollama

import (
	"encoding/base64"
	"encoding/json"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
)

// message is a turn of a conversation.
type message struct {
	Role       string     `json:"role"`
	Content    string     `json:"content"`
	Thinking   string     `json:"thinking,omitempty"`
	Images     []string   `json:"images,omitempty"` // base64
	ToolCalls  []toolCall `json:"tool_calls,omitempty"`
	ToolName   string     `json:"tool_name,omitempty"`
	ToolCallID string     `json:"tool_call_id,omitempty"`
}

type toolCall struct {
	ID       string   `json:"id,omitempty"`
	Function function `json:"function"`
}

type function struct {
	Index     int             `json:"index"`
	Name      string          `json:"name"`
	Arguments json.RawMessage `json:"arguments"`
}

// messages writes the turns.
func (w *writer) messages(messages gjson.Result) {
	tools := map[string]string{} // names by the id of the call
	for i, given := range messages.Array() {
		m := message{Role: given.Get("role").Str}
		switch m.Role {
		case "developer":
			m.Role = "system"
		case "system", "user":
		case "assistant":
			if m.Thinking = given.Get("reasoning_content").Str; m.Thinking == "" {
				m.Thinking = given.Get("reasoning").Str
			}
			w.calls(&m, i, given.Get("tool_calls"), tools)
		case "tool":
			m.ToolCallID = given.Get("tool_call_id").Str
			m.ToolName = tools[m.ToolCallID]
		default:
			w.refuse(at("messages", i, ".role"), "must be system, developer, user, assistant or tool for this model")
		}
		if w.bad == nil {
			w.content(&m, i, given.Get("content"))
		}
		if w.bad != nil {
			return
		}
		if refusal := given.Get("refusal").Str; refusal != "" && m.Content == "" {
			m.Content = refusal
		}
		w.request.Messages = append(w.request.Messages, m)
	}
}

// content reads text and images. Parts of text are lines.
func (w *writer) content(m *message, i int, content gjson.Result) {
	if !content.IsArray() {
		m.Content = content.Str
		return
	}
	var text []string
	for j, part := range content.Array() {
		where := at("messages", i, at(".content", j, ""))
		switch part.Get("type").Str {
		case "text":
			text = append(text, part.Get("text").Str)
		case "refusal":
			text = append(text, part.Get("refusal").Str)
		case "image_url":
			data, ok := imageData(part.Get("image_url.url").Str)
			if !ok {
				w.refuse(where+".image_url.url", "must be a data URL with base64, such as data:image/png;base64,…: this model's server fetches nothing")
				return
			}
			m.Images = append(m.Images, data)
		default:
			w.refuse(where+".type", "must be text or image_url for this model")
			return
		}
	}
	m.Content = strings.Join(text, "\n")
}

// imageData is the base64 of a data URL.
func imageData(url string) (string, bool) {
	kind, data, ok := strings.Cut(url, ";base64,")
	if !ok || !strings.HasPrefix(kind, "data:") {
		return "", false
	}
	_, err := base64.StdEncoding.DecodeString(data)
	return data, err == nil
}

// calls reads the calls of tools in a turn of the model.
func (w *writer) calls(m *message, i int, calls gjson.Result, tools map[string]string) {
	for j, call := range calls.Array() {
		c := toolCall{ID: call.Get("id").Str, Function: function{Index: j, Name: call.Get("function.name").Str}}
		tools[c.ID] = c.Function.Name
		arguments := strings.TrimSpace(call.Get("function.arguments").Str)
		if arguments == "" {
			arguments = "{}"
		}
		if _, err := openai.ParseObject([]byte(arguments)); err != nil { // it comes from a string: nobody has looked at it yet
			w.refuse(at("messages", i, at(".tool_calls", j, ".function.arguments")), "must be the text of a JSON object for this model")
			return
		}
		c.Function.Arguments = json.RawMessage(arguments)
		m.ToolCalls = append(m.ToolCalls, c)
	}
}

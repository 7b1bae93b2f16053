package anthropic

import (
	"strings"

	"github.com/tidwall/gjson"
)

// messages writes the turns of a chat request. Instructions become the member system, and what one side says in several
// messages becomes one turn.
func (w *messagesWriter) messages(messages gjson.Result) {
	var system []string
	t := turns{object: object{out: make([]byte, 0, len(messages.Raw))}}
	for i, message := range messages.Array() {
		content := message.Get("content")
		switch role := message.Get("role").Str; role {
		case "system", "developer":
			if text := plain(content); text != "" {
				system = append(system, text)
			}
		case "user":
			t.turn("user")
			w.content(&t, i, content)
		case "assistant":
			t.turn("assistant")
			w.content(&t, i, content)
			if refusal := message.Get("refusal"); refusal.Type == gjson.String {
				t.text(refusal, gjson.Result{})
			}
			w.calls(&t, i, message.Get("tool_calls"))
		case "tool":
			t.turn("user")
			w.result(&t, i, message)
		default:
			w.bad = unsupported(at("messages", i, ".role"), "is "+printable(role)+": this model knows system, developer, user, assistant and tool")
		}
		if w.bad != nil {
			return
		}
	}
	t.close()
	if len(system) > 0 {
		w.text("system", strings.Join(system, "\n\n"))
	}
	w.name("messages")
	w.out = append(append(append(w.out, '['), t.out...), ']')
}

// turns writes messages of alternating roles.
type turns struct {
	object
	role   string
	blocks object
}

// turn makes role the one that speaks.
func (t *turns) turn(role string) {
	if t.role != role {
		t.close()
		t.role = role
	}
}

// close ends the turn. One without blocks is left out, since the dialect has no empty messages.
func (t *turns) close() {
	if len(t.blocks.out) > 0 {
		t.message(t.role, "["+string(t.blocks.out)+"]", "")
	}
	t.role, t.blocks = "", object{out: t.blocks.out[:0]}
}

// block writes a block whose members follow its type.
func (t *turns) block(kind, members string, cache gjson.Result) {
	t.blocks.next()
	b := append(append(append(t.blocks.out, `{"type":"`...), kind...), '"')
	b = append(b, members...)
	if cache.IsObject() {
		b = append(append(b, `,"cache_control":`...), cache.Raw...)
	}
	t.blocks.out = append(b, '}')
}

// text writes a block of text, unless it is empty, which the dialect refuses.
func (t *turns) text(text, cache gjson.Result) {
	if text.Str != "" {
		t.block(textBlock, `,"text":`+text.Raw, cache)
	}
}

func (w *messagesWriter) content(t *turns, i int, content gjson.Result) {
	if !content.IsArray() {
		if content.Type == gjson.String {
			t.text(content, gjson.Result{})
		}
		return
	}
	for j, part := range content.Array() {
		where := at("messages", i, at(".content", j, ""))
		cache := part.Get("cache_control")
		switch kind := part.Get("type").Str; kind {
		case "text":
			if text := part.Get("text"); text.Type == gjson.String {
				t.text(text, cache)
			}
		case "refusal":
			if text := part.Get("refusal"); text.Type == gjson.String {
				t.text(text, cache)
			}
		case "image_url":
			t.block("image", `,"source":`+source(part.Get("image_url.url").Str), cache)
		case "file":
			data := part.Get("file.file_data").Str
			if data == "" {
				w.bad = unsupported(where+".file", "must hold file_data for this model: files of another provider cannot be read here")
				return
			}
			t.block("document", `,"source":`+source(data), cache)
		default:
			w.bad = unsupported(where+".type", "is "+printable(kind)+": this model takes text, image_url and file parts")
			return
		}
	}
}

// source is where an image or a document comes from: the data of a data URL, or the address.
func source(url string) string {
	o := object{out: []byte{'{'}}
	kind, data, ok := strings.Cut(url, ";base64,")
	if media, inline := strings.CutPrefix(kind, "data:"); ok && inline {
		o.text("type", "base64")
		o.text("media_type", media)
		o.text("data", data)
	} else {
		o.text("type", "url")
		o.text("url", url)
	}
	return string(append(o.out, '}'))
}

// calls writes the calls of tools in a turn of the model.
func (w *messagesWriter) calls(t *turns, i int, calls gjson.Result) {
	for j, call := range calls.Array() {
		arguments := line(strings.TrimSpace(call.Get("function.arguments").Str))
		if arguments == "" {
			arguments = "{}"
		}
		if !isObject(arguments) {
			w.bad = invalid(at("messages", i, at(".tool_calls", j, ".function.arguments")), "must be the text of a JSON object for this model")
			return
		}
		o := object{comma: true}
		o.text("id", call.Get("id").Str)
		o.text("name", call.Get("function.name").Str)
		o.raw("input", arguments)
		t.block(toolBlock, string(o.out), gjson.Result{})
	}
}

// result writes what a tool returned.
func (w *messagesWriter) result(t *turns, i int, message gjson.Result) {
	inner := turns{}
	if w.content(&inner, i, message.Get("content")); w.bad != nil {
		return
	}
	o := object{comma: true}
	o.text("tool_use_id", message.Get("tool_call_id").Str)
	o.raw("content", "["+string(inner.blocks.out)+"]")
	t.block("tool_result", string(o.out), message.Get("cache_control"))
}

package anthropic

import (
	"strings"

	"github.com/tidwall/gjson"
)

// messages writes system and messages as the messages of a chat request.
func (w *chatWriter) messages(root gjson.Result) {
	w.name("messages")
	list := object{out: append(w.out, '[')}
	if system := root.Get("system"); given(system) {
		if w.bad = onlyTexts("system", system); w.bad != nil {
			return
		}
		if text := plain(system); text != "" {
			list.message("system", string(appendString(nil, text)), "")
		}
	}
	for i, message := range root.Get("messages").Array() {
		content := message.Get("content")
		if content.Type != gjson.String && !content.IsArray() {
			w.bad = invalid(at("messages", i, ".content"), "must be a string or an array of blocks")
			return
		}
		switch role := message.Get("role").Str; role {
		case "user":
			w.user(&list, i, content)
		case "assistant":
			w.assistant(&list, i, content)
		case "system":
			if w.bad = onlyTexts(at("messages", i, ".content"), content); w.bad == nil {
				list.message(role, string(appendString(nil, plain(content))), "")
			}
		default:
			w.bad = invalid(at("messages", i, ".role"), "must be user or assistant")
		}
		if w.bad != nil {
			return
		}
	}
	w.out = append(list.out, ']')
}

// message writes a message whose content is JSON; more are members that begin with a comma.
func (o *object) message(role, content, more string) {
	o.next()
	o.out = append(append(o.out, `{"role":"`...), role...)
	o.out = append(append(o.out, `","content":`...), content...)
	o.out = append(append(o.out, more...), '}')
}

// onlyTexts refuses instructions that are not text, of which the model would otherwise not hear.
func onlyTexts(where string, content gjson.Result) error {
	switch {
	case content.Type == gjson.String:
		return nil
	case !content.IsArray():
		return invalid(where, "must be a string or an array of text blocks")
	}
	for i, block := range content.Array() {
		if block.Get("text").Type != gjson.String {
			return invalid(at(where, i, ""), "must be a text block: instructions are text")
		}
	}
	return nil
}

// plain is the text of a content that is a string or blocks of text.
func plain(content gjson.Result) string {
	if !content.IsArray() {
		return content.Str
	}
	var texts []string
	content.ForEach(func(_, block gjson.Result) bool {
		if text := block.Get("text").Str; text != "" {
			texts = append(texts, text)
		}
		return true
	})
	return strings.Join(texts, "\n\n")
}

// user writes the results of tools as messages of their own, which must follow the calls, and then what else was said.
func (w *chatWriter) user(list *object, i int, content gjson.Result) {
	if content.Type == gjson.String {
		list.message("user", content.Raw, "")
		return
	}
	parts, count, text := object{out: w.parts[:0]}, 0, ""
	for j, block := range content.Array() {
		where := at("messages", i, at(".content", j, ""))
		if block.Get("type").Str != "tool_result" {
			if w.part(&parts, where, block); w.bad != nil {
				return
			}
			count, text = count+1, onlyText(block)
			continue
		}
		list.message("tool", string(appendString(nil, plain(block.Get("content")))),
			`,"tool_call_id":`+string(appendString(nil, block.Get("tool_use_id").Str)))
		for k, inner := range block.Get("content").Array() {
			if inner.IsObject() && inner.Get("type").Str != "text" {
				if w.part(&parts, at(where+".content", k, ""), inner); w.bad != nil {
					return
				}
				count, text = count+1, ""
			}
		}
	}
	w.parts = parts.out
	switch {
	case count == 1 && text != "":
		list.message("user", text, "")
	case count > 0:
		list.message("user", "["+string(parts.out)+"]", "")
	}
}

// onlyText is the text of a block as JSON, or empty.
func onlyText(block gjson.Result) string {
	if block.Get("type").Str != "text" {
		return ""
	}
	return textOf(block)
}

// textOf is the text of a block as JSON.
func textOf(block gjson.Result) string {
	if text := block.Get("text"); text.Type == gjson.String {
		return text.Raw
	}
	return `""`
}

// part writes a block as a part of a chat message.
func (w *chatWriter) part(parts *object, where string, block gjson.Result) {
	source := block.Get("source")
	switch kind := block.Get("type").Str; kind {
	case "text":
		parts.next()
		parts.out = append(append(append(parts.out, `{"type":"text","text":`...), textOf(block)...), '}')
	case "image":
		url := location(source)
		if url == "" {
			w.bad = unsupported(where+".source", "must have the type base64 or url for this model")
			return
		}
		parts.next()
		parts.out = append(appendString(append(parts.out, `{"type":"image_url","image_url":{"url":`...), url), "}}"...)
	case "document":
		w.document(parts, where, block, source)
	default:
		w.bad = unsupported(where+".type", "is "+printable(kind)+", which only an Anthropic server can take: send text, image, document or tool_result blocks")
	}
}

func (w *chatWriter) document(parts *object, where string, block, source gjson.Result) {
	title := block.Get("title").Str
	switch source.Get("type").Str {
	case "text":
		text := source.Get("data").Str
		if title != "" {
			text = title + "\n\n" + text
		}
		parts.next()
		parts.out = append(appendString(append(parts.out, `{"type":"text","text":`...), text), '}')
	case "base64":
		if title == "" {
			title = "document.pdf"
		}
		parts.next()
		parts.out = appendString(append(parts.out, `{"type":"file","file":{"filename":`...), title)
		parts.out = append(appendString(append(parts.out, `,"file_data":`...), location(source)), "}}"...)
	default:
		w.bad = unsupported(where+".source", "must have the type text or base64 for this model")
	}
}

// location is the URL of a source, with the data in it when it has them.
func location(source gjson.Result) string {
	switch source.Get("type").Str {
	case "base64":
		return "data:" + source.Get("media_type").Str + ";base64," + source.Get("data").Str
	case "url":
		return source.Get("url").Str
	}
	return ""
}

// assistant writes a turn of the model. What it thought is left out: the signatures belong to another server.
func (w *chatWriter) assistant(list *object, i int, content gjson.Result) {
	if content.Type == gjson.String {
		list.message("assistant", content.Raw, "")
		return
	}
	var text strings.Builder
	calls := object{}
	for j, block := range content.Array() {
		switch kind := block.Get("type").Str; kind {
		case "text":
			text.WriteString(block.Get("text").Str)
		case "thinking", "redacted_thinking":
		case "tool_use":
			input := line(block.Get("input").Raw)
			if input == "" {
				input = "{}"
			}
			calls.next()
			calls.out = appendString(append(calls.out, `{"id":`...), block.Get("id").Str)
			calls.out = appendString(append(calls.out, `,"type":"function","function":{"name":`...), block.Get("name").Str)
			calls.out = append(appendString(append(calls.out, `,"arguments":`...), input), "}}"...)
		default:
			w.bad = unsupported(at("messages", i, at(".content", j, ".type")), "is "+printable(kind)+", which only an Anthropic server can take: send text and tool_use blocks")
			return
		}
	}
	said := string(appendString(nil, text.String()))
	if len(calls.out) == 0 {
		list.message("assistant", said, "")
		return
	}
	if text.Len() == 0 {
		said = "null"
	}
	list.message("assistant", said, `,"tool_calls":[`+string(calls.out)+"]")
}

// printable shortens a name from outside for a message.
func printable(name string) string {
	if name == "" {
		return "missing"
	}
	if len(name) > 40 {
		name = strings.ToValidUTF8(name[:40], "") + "…"
	}
	return name
}

package echo

import (
	"strings"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// form is how the answer to an op looks, in the pieces between what differs from answer to answer. A choice begins with
// its index.
type form struct {
	prefix                  string // of the id
	chunk, whole            string // the object of a chunk and of a unary response
	opening, closing        string // members of a choice; a closing goes on with the finish reason. No opening: there is none
	before, after           string // members of a choice, around a token
	wholeBefore, wholeAfter string // the same around the text of a unary response; it goes on with the finish reason
	questions               func(body gjson.Result) []question
}

// question is a prompt to be answered.
type question struct {
	before string // what the answer begins with
	text   string
	tokens int
}

func formOf(op schemas.Op) (*form, error) {
	switch op {
	case schemas.OpChat, "":
		return chat, nil
	case schemas.OpCompletion:
		return completion, nil
	}
	return nil, schemas.Errorf(schemas.CodeUnsupported, "the echo model has no operation %q; use %q, %q or %q", op, schemas.OpChat, schemas.OpCompletion, schemas.OpEmbedding)
}

// The forms are shared and never changed.
var (
	chat = &form{
		prefix: "chatcmpl-", chunk: "chat.completion.chunk", whole: "chat.completion", questions: conversation,
		opening: `"delta":{"role":"assistant","content":""},"finish_reason":null`, closing: `"delta":{},"finish_reason":"`,
		before: `"delta":{"content":`, after: `},"finish_reason":null`,
		wholeBefore: `,"message":{"role":"assistant","content":`, wholeAfter: `,"refusal":null},"logprobs":null,"finish_reason":"`,
	}
	completion = &form{
		prefix: "cmpl-", chunk: "text_completion", whole: "text_completion", questions: prompts,
		closing: `"text":"","logprobs":null,"finish_reason":"`,
		before:  `"text":`, after: `,"logprobs":null,"finish_reason":null`,
		wholeBefore: `,"text":`, wholeAfter: `,"logprobs":null,"finish_reason":"`,
	}
)

// conversation answers the last user message; all messages are its prompt.
func conversation(body gjson.Result) []question {
	var q question
	body.Get("messages").ForEach(func(_, message gjson.Result) bool {
		text := content(message.Get("content"))
		q.tokens += len(tokenise(text))
		if message.Get("role").Str == "user" {
			q.text = text
		}
		return true
	})
	return []question{q}
}

// prompts answers each prompt of a completion, and begins with it when the member echo asks for that.
func prompts(body gjson.Result) (all []question) {
	echo := body.Get("echo").Bool()
	for _, text := range texts(body.Get("prompt")) {
		q := question{text: text, tokens: len(tokenise(text))}
		if echo {
			q.before = text
		}
		all = append(all, q)
	}
	return all
}

// texts are the inputs of a completion or an embedding. Tokens are read as numbers, since there is no vocabulary.
func texts(input gjson.Result) (all []string) {
	if !input.IsArray() || input.Get("0").Type == gjson.Number {
		return []string{inputText(input)}
	}
	input.ForEach(func(_, element gjson.Result) bool {
		all = append(all, inputText(element))
		return true
	})
	return all
}

func inputText(input gjson.Result) string {
	switch {
	case input.Type == gjson.String:
		return input.Str
	case input.IsObject():
		return input.Get("text").Str
	case !input.IsArray():
		return ""
	}
	var numbers []string
	input.ForEach(func(_, token gjson.Result) bool {
		numbers = append(numbers, token.Raw)
		return true
	})
	return strings.Join(numbers, " ")
}

// content is the text of a message, which may come in parts.
func content(value gjson.Result) string {
	if value.Type == gjson.String {
		return value.Str
	}
	var text strings.Builder
	value.ForEach(func(_, part gjson.Result) bool {
		if part.Get("type").Str == "text" {
			text.WriteString(part.Get("text").Str)
		}
		return true
	})
	return text.String()
}

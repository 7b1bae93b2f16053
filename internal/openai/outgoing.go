package openai

import (
	"bytes"
	"encoding/json"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// Model is the model that a request body or an answer names.
func Model(body []byte) string { return gjson.GetBytes(body, "model").Str }

// Choices is how many answers a validated request body asks for.
func Choices(op schemas.Op, body []byte) int {
	n := max(1, int(gjson.GetBytes(body, "n").Int()))
	if op == schemas.OpCompletion {
		n *= prompts(gjson.GetBytes(body, "prompt"))
	}
	return n
}

// prompts is how many prompts a completion has. An array of numbers is one, in tokens.
func prompts(prompt gjson.Result) (count int) {
	if !prompt.IsArray() || prompt.Get("0").Type == gjson.Number {
		return 1
	}
	prompt.ForEach(func(_, _ gjson.Result) bool {
		count++
		return true
	})
	return max(count, 1)
}

// WithModel returns a validated body with another model name and every other byte as it is.
func WithModel(body []byte, model string) []byte {
	value := gjson.GetBytes(body, "model")
	name := string(appendString(nil, model))
	if !value.Exists() || value.Raw == name {
		return body
	}
	return replace(body, value.Index, value.Index+len(value.Raw), name)
}

// WithUsage returns a validated body that asks for the usage chunk, and whether it did not do so before.
func WithUsage(body []byte) ([]byte, bool) {
	options := gjson.GetBytes(body, "stream_options")
	if !options.IsObject() {
		if options.Exists() {
			return replace(body, options.Index, options.Index+len(options.Raw), `{"include_usage":true}`), true
		}
		return prepend(body, `"stream_options":{"include_usage":true}`), true
	}
	include := options.Get("include_usage")
	if include.Type == gjson.True {
		return body, false
	}
	if include.Exists() {
		return replace(body, include.Index, include.Index+len(include.Raw), "true"), true
	}
	end := options.Index + len(options.Raw)
	return replace(body, options.Index, end, string(prepend([]byte(options.Raw), `"include_usage":true`))), true
}

// WithRunning returns a body that WithUsage has made and that asks for what a [Running] is told with. It returns false for
// one that asks for a part of that itself, which its caller then wants to see.
func WithRunning(body []byte) ([]byte, bool) {
	options := gjson.GetBytes(body, "stream_options")
	if options.Get("continuous_usage_stats").Exists() || gjson.GetBytes(body, "return_token_ids").Exists() {
		return body, false
	}
	end := options.Index + len(options.Raw)
	body = replace(body, options.Index, end, string(prepend([]byte(options.Raw), `"continuous_usage_stats":true`)))
	return prepend(body, `"return_token_ids":true`), true
}

// WithMaxCompletionTokens returns a validated body that names its limit max_completion_tokens and not max_tokens.
func WithMaxCompletionTokens(body []byte) []byte {
	const newer = `"max_completion_tokens"`
	out := body
	gjson.ParseBytes(body).ForEach(func(key, _ gjson.Result) bool {
		switch key.Str {
		case "max_tokens":
			out = replace(body, key.Index, key.Index+len(key.Raw), newer)
		case "max_completion_tokens": // both: the caller knows what the server takes
			out = body
			return false
		}
		return true
	})
	return out
}

// IncludesUsage reports whether a validated body asks for the usage chunk.
func IncludesUsage(body []byte) bool {
	return gjson.GetBytes(body, "stream_options.include_usage").Bool()
}

// WithAnswerUsage returns a unary answer, which must be a JSON object, with its usage set.
func WithAnswerUsage(answer []byte, usage string) []byte {
	if value := gjson.GetBytes(answer, "usage"); value.Exists() {
		return replace(answer, value.Index, value.Index+len(value.Raw), usage)
	}
	end := bytes.LastIndexByte(answer, '}')
	comma := ","
	if before := bytes.TrimRight(answer[:end], " \t\r\n"); before[len(before)-1] == '{' {
		comma = ""
	}
	return replace(answer, end, end, comma+`"usage":`+usage)
}

// OneLine returns JSON without line breaks, data itself when it has none.
func OneLine(data []byte) []byte {
	if bytes.IndexByte(data, '\n') < 0 && bytes.IndexByte(data, '\r') < 0 {
		return data
	}
	var line bytes.Buffer
	if json.Compact(&line, data) != nil {
		return data // unreachable: it was validated before
	}
	return line.Bytes()
}

// WithValue returns valid JSON with another value, which is JSON too, where path leads; data itself when that is nowhere.
func WithValue(data []byte, path, value string) []byte {
	at := gjson.GetBytes(data, path)
	if at.Index == 0 || at.Raw == value {
		return data
	}
	return replace(data, at.Index, at.Index+len(at.Raw), value)
}

// prepend puts a member first into a JSON object.
func prepend(object []byte, member string) []byte {
	open := bytes.IndexByte(object, '{') + 1
	if rest := bytes.TrimLeft(object[open:], " \t\r\n"); len(rest) > 0 && rest[0] != '}' {
		member += ","
	}
	return replace(object, open, open, member)
}

func replace(data []byte, start, end int, text string) []byte {
	out := make([]byte, 0, len(data)-(end-start)+len(text))
	out = append(append(out, data[:start]...), text...)
	return append(out, data[end:]...)
}

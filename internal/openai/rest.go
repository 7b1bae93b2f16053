package openai

import (
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// RestOfChat returns a validated chat body that asks for the rest of an answer which begins with text, of which used
// tokens were counted. The server must know add_generation_prompt and continue_final_message, as vLLM and llama.cpp do, or
// go on with a last message of the assistant by itself.
func RestOfChat(body []byte, text string, used int) ([]byte, error) {
	messages := gjson.GetBytes(body, "messages")
	role := ""
	for _, message := range messages.Array() {
		role = message.Get("role").Str
	}
	if role == "assistant" || gjson.GetBytes(body, "continue_final_message").Exists() || gjson.GetBytes(body, "add_generation_prompt").Exists() {
		return nil, schemas.Errorf(schemas.CodeUnsupported, "the request begins the answer itself, so that no other beginning can be given to it")
	}
	end := messages.Index + len(messages.Raw) - 1
	message := appendString([]byte(`,{"role":"assistant","content":`), text)
	out := replace(body, end, end, string(append(message, '}')))
	return WithLess(prepend(out, `"add_generation_prompt":false,"continue_final_message":true`), used), nil
}

// RestOfCompletion is RestOfChat for a completion, whose prompt must be one text.
func RestOfCompletion(body []byte, text string, used int) ([]byte, error) {
	prompt := gjson.GetBytes(body, "prompt")
	if prompt.Type != gjson.String || given(gjson.GetBytes(body, "suffix")) || gjson.GetBytes(body, "echo").Bool() {
		return nil, schemas.Errorf(schemas.CodeUnsupported, "the prompt cannot be gone on with: it is not one text, or a suffix or an echo is asked for")
	}
	return WithLess(replace(body, prompt.Index, prompt.Index+len(prompt.Raw), string(appendString(nil, prompt.Str+text))), used), nil
}

// RestOfTokens returns the body of a completion that asks for the rest of the answer to a validated chat or completion
// body, given the token ids of the prompt and of the used tokens that it was answered with. What only chat has is left
// out.
func RestOfTokens(body []byte, ids []int64, used int) []byte {
	out := make([]byte, 0, len(body)+8*len(ids))
	out = append(out, `{"add_special_tokens":false,"prompt":[`...)
	for i, id := range ids {
		if i > 0 {
			out = append(out, ',')
		}
		out = strconv.AppendInt(out, id, 10)
	}
	out = append(out, ']')
	limit := "null" // not the 16 tokens that a completion has without a limit
	gjson.ParseBytes(body).ForEach(func(key, value gjson.Result) bool {
		switch key.Str {
		case "max_tokens", "max_completion_tokens":
			if given(value) {
				limit = strconv.Itoa(less(value, used))
			}
		case "messages", "prompt", "add_special_tokens", "tools", "tool_choice", "parallel_tool_calls", "functions", "function_call",
			"response_format", "reasoning_effort", "modalities", "audio", "verbosity", "prediction", "web_search_options",
			"chat_template_kwargs", "add_generation_prompt", "continue_final_message", "documents", "logprobs", "top_logprobs", "echo", "suffix":
		case "min_tokens":
			out = strconv.AppendInt(append(out, `,"min_tokens":`...), int64(atLeast(value, used)), 10)
		default:
			out = append(append(append(append(out, ','), key.Raw...), ':'), value.Raw...)
		}
		return true
	})
	return append(append(append(out, `,"max_tokens":`...), limit...), '}')
}

// WithLess returns a validated body whose limits are lowered by the used tokens of an answer that is to be gone on with: how
// long it may be, and how long it must be.
func WithLess(body []byte, used int) []byte {
	if least := gjson.GetBytes(body, "min_tokens"); given(least) {
		body = replace(body, least.Index, least.Index+len(least.Raw), strconv.Itoa(atLeast(least, used)))
	}
	for _, name := range [...]string{"max_tokens", "max_completion_tokens"} {
		if value := gjson.GetBytes(body, name); given(value) {
			body = replace(body, value.Index, value.Index+len(value.Raw), strconv.Itoa(less(value, used)))
		}
	}
	return body
}

// less is what is left of a limit: something, for a server that was cut before it said that it is at its limit.
func less(limit gjson.Result, used int) int { return max(1, int(limit.Int())-used) }

// atLeast is what is left of a least length. A server refuses one above the limit, which is why both are lowered alike.
func atLeast(least gjson.Result, used int) int { return max(0, int(least.Int())-used) }

func given(value gjson.Result) bool { return value.Exists() && value.Type != gjson.Null }

// Stops are the strings that end an answer, as a validated body names them in either dialect.
func Stops(body []byte) (stops []string) {
	stop := gjson.GetBytes(body, "stop")
	if !stop.Exists() {
		stop = gjson.GetBytes(body, "stop_sequences")
	}
	if stop.Type == gjson.String {
		return []string{stop.Str}
	}
	for _, s := range stop.Array() {
		if s.Str != "" {
			stops = append(stops, s.Str)
		}
	}
	return stops
}

// Straddles reports whether the end of text may be the beginning of a string that ends an answer, so that nobody who is
// shown only what follows could notice it.
func Straddles(text string, stops []string) bool {
	for _, stop := range stops {
		for n := 1; n < len(stop); n++ {
			if strings.HasSuffix(text, stop[:n]) {
				return true
			}
		}
	}
	return false
}

// AppendChatChunk appends the chunk of a chat answer that says what a choice of a text completion does.
func AppendChatChunk(dst []byte, from Origin, c *Chunk) []byte {
	return appendChunk(dst, from, "chat.completion.chunk", c, func(dst []byte, o *Choice) []byte {
		if dst = append(dst, `"delta":{`...); o.Content != "" {
			dst = appendString(append(dst, `"content":`...), o.Content)
		}
		return append(dst, '}')
	})
}

// AppendTextChunk appends the chunk of a text completion.
func AppendTextChunk(dst []byte, from Origin, c *Chunk) []byte {
	return appendChunk(dst, from, "text_completion", c, func(dst []byte, o *Choice) []byte {
		return appendString(append(dst, `"text":`...), o.Content)
	})
}

func appendChunk(dst []byte, from Origin, object string, c *Chunk, said func([]byte, *Choice) []byte) []byte {
	dst = append(append(dst, `{"id":`...), from.ID...)
	dst = append(append(append(dst, `,"object":"`...), object...), `","created":`...)
	dst = append(append(append(dst, from.Created...), `,"model":`...), from.Model...)
	dst = append(dst, `,"choices":[`...)
	for i := range c.Choices {
		if i > 0 {
			dst = append(dst, ',')
		}
		o := &c.Choices[i]
		dst = append(strconv.AppendInt(append(dst, `{"index":`...), int64(o.Index), 10), ',')
		dst = append(said(dst, o), `,"logprobs":null,"finish_reason":`...)
		if o.Finish == "" {
			dst = append(dst, `null}`...)
		} else {
			dst = append(appendString(dst, o.Finish), '}')
		}
	}
	dst = append(dst, ']')
	if c.Usage != "" {
		dst = append(append(dst, `,"usage":`...), c.Usage...)
	}
	return append(dst, '}')
}

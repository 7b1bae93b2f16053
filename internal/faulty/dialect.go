package faulty

import (
	"fmt"
	"net/http"
	"strconv"
	"strings"
)

// Dialect is how a protocol over HTTP says what the scenarios say.
type Dialect struct {
	Name string

	// Answer is a whole answer in pieces as they are sent, one for each event; the last is the end mark. Reason is why it
	// ended, in the dialect's words for it.
	Answer func(reason string, words ...string) []string
	Ending int // pieces of an answer after its words

	Stop, Filtered string // reasons: the answer is whole, the content filter ended it; empty when it has no such reason
	Garbage        string // an event that cannot be read

	refuse func(status int, kind, code, message string) string
}

// Refusal is an answer that is none.
type Refusal struct {
	Status int
	Header map[string]string
	Body   string
}

// Usage of every whole answer.
const (
	PromptTokens     = 11
	CompletionTokens = 7
)

// OpenAI is the dialect of POST /chat/completions.
func OpenAI() Dialect {
	chunk := func(members string) string {
		return `data: {"id":"chatcmpl-1","object":"chat.completion.chunk","created":1764000000,"model":"m",` + members + "}\n\n"
	}
	return Dialect{
		Name: "openai", Ending: 3, Stop: "stop", Filtered: "content_filter", Garbage: "data: {\"choices\":[{\n\n",
		Answer: func(reason string, words ...string) []string {
			all := []string{chunk(`"choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]`)}
			for _, word := range words {
				all = append(all, chunk(fmt.Sprintf(`"choices":[{"index":0,"delta":{"content":%s},"finish_reason":null}]`, quote(word))))
			}
			return append(all,
				chunk(fmt.Sprintf(`"choices":[{"index":0,"delta":{},"finish_reason":%q}]`, reason)),
				chunk(fmt.Sprintf(`"choices":[],"usage":{"prompt_tokens":%d,"completion_tokens":%d,"total_tokens":%d}`, PromptTokens, CompletionTokens, PromptTokens+CompletionTokens)),
				"data: [DONE]\n\n")
		},
		refuse: func(_ int, kind, code, message string) string {
			return fmt.Sprintf(`{"error":{"message":%q,"type":%q,"param":null,"code":%q}}`, message, kind, code)
		},
	}
}

// Anthropic is the dialect of POST /messages.
func Anthropic() Dialect {
	event := func(name, members string) string {
		return fmt.Sprintf("event: %s\ndata: {\"type\":%q%s}\n\n", name, name, members)
	}
	return Dialect{
		Name: "anthropic", Ending: 3, Stop: "end_turn", Filtered: "refusal", Garbage: "event: content_block_delta\ndata: {\"type\":\n\n",
		Answer: func(reason string, words ...string) []string {
			all := []string{
				event("message_start", fmt.Sprintf(`,"message":{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":%d,"output_tokens":1}}`, PromptTokens)),
				event("content_block_start", `,"index":0,"content_block":{"type":"text","text":""}`),
			}
			for _, word := range words {
				all = append(all, event("content_block_delta", fmt.Sprintf(`,"index":0,"delta":{"type":"text_delta","text":%s}`, quote(word))))
			}
			return append(all,
				event("content_block_stop", `,"index":0`),
				event("message_delta", fmt.Sprintf(`,"delta":{"stop_reason":%q,"stop_sequence":null},"usage":{"output_tokens":%d}`, reason, CompletionTokens)),
				event("message_stop", ""))
		},
		refuse: func(_ int, kind, _, message string) string {
			return fmt.Sprintf(`{"type":"error","error":{"type":%q,"message":%q}}`, kind, message)
		},
	}
}

// Ollama is the dialect of POST /api/chat.
func Ollama() Dialect {
	line := func(word, members string) string {
		return fmt.Sprintf(`{"model":"m","created_at":"2026-11-26T10:00:00Z","message":{"role":"assistant","content":%s},%s}`+"\n", quote(word), members)
	}
	return Dialect{
		Name: "ollama", Ending: 1, Stop: "stop", Garbage: "{\"message\":\n",
		Answer: func(reason string, words ...string) (all []string) {
			for _, word := range words {
				all = append(all, line(word, `"done":false`))
			}
			return append(all, line("", fmt.Sprintf(`"done":true,"done_reason":%q,"prompt_eval_count":%d,"eval_count":%d`, reason, PromptTokens, CompletionTokens)))
		},
		refuse: func(_ int, _, _, message string) string { return fmt.Sprintf(`{"error":%q}`, message) },
	}
}

// quote is JSON without escapes, so that what is beyond ASCII is sent as it is.
func quote(s string) string { return `"` + strings.ReplaceAll(s, `"`, `\"`) + `"` }

// Words are what a whole answer says.
func Words() []string { return []string{"one ", "two ", "three ", "four ", "five ", "six"} }

// Whole is the whole answer in pieces.
func (d Dialect) Whole() []string { return d.Answer(d.Stop, Words()...) }

// Answers answers whole.
func Answers() Reply { return func(c *Call) { c.Send(c.Dialect.Whole()...) } }

// Says sends these pieces and ends the reply.
func Says(pieces func(d Dialect) []string) Reply {
	return func(c *Call) { c.Send(pieces(c.Dialect)...) }
}

// Fails refuses with a status that says nothing of the request.
func Fails(status int) Reply {
	return func(c *Call) {
		c.Refuse(Refusal{Status: status, Body: c.Dialect.refuse(status, "api_error", "", "canary: "+http.StatusText(status))})
	}
}

// Limits refuses with a 429; after is its Retry-After in seconds, -1 for none.
func Limits(after int) Reply {
	return func(c *Call) {
		header := map[string]string{}
		if after >= 0 {
			header["Retry-After"] = strconv.Itoa(after)
		}
		c.Refuse(Refusal{429, header, c.Dialect.refuse(429, "rate_limit_error", "rate_limit_exceeded", "canary: slow down")})
	}
}

// TooLong refuses a request that does not fit the context.
func TooLong() Reply {
	return func(c *Call) {
		c.Refuse(Refusal{400, nil, c.Dialect.refuse(400, "invalid_request_error", "context_length_exceeded", "prompt is too long: 9 tokens > 8 maximum")})
	}
}

// NoPrefill refuses to go on from an answer that has begun.
func NoPrefill() Reply {
	return func(c *Call) {
		c.Refuse(Refusal{400, nil, c.Dialect.refuse(400, "invalid_request_error", "", "This model does not support assistant message prefill. The conversation must end with a user message.")})
	}
}

// NoAccount refuses the operator's key.
func NoAccount() Reply {
	return func(c *Call) {
		c.Refuse(Refusal{401, nil, c.Dialect.refuse(401, "authentication_error", "invalid_api_key", "canary: no such key")})
	}
}

// Resets breaks the connection before the reply.
func Resets() Reply { return (*Call).Reset }

// Hangs never answers.
func Hangs() Reply { return (*Call).Hang }

// Cuts sends a part of the answer and ends the reply as if all were well.
func Cuts(part float64) Reply {
	return func(c *Call) {
		whole := c.Dialect.Whole()
		c.Send(whole[:int(part*float64(len(whole)))]...)
	}
}

// Stalls sends a part of the answer and then nothing.
func Stalls(part float64) Reply {
	return func(c *Call) {
		Cuts(part)(c)
		c.Hang()
	}
}

// Doubles sends the pieces from one place to another twice each; places count from the end of the answer's words.
func Doubles(from, to int) Reply {
	return func(c *Call) {
		whole := c.Dialect.Whole()
		words := len(whole) - c.Dialect.Ending
		for i, piece := range whole {
			if c.Send(piece); i >= words+from && i < words+to {
				c.Send(piece)
			}
		}
	}
}

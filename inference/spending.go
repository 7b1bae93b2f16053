package inference

import (
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// spending is what an answer cost before a call goes on with it: the caller pays for its prompt once, and for everything that
// it was shown.
type spending struct {
	prompt int64 // tokens of the caller's own prompt; -1 = unknown
	output int64 // tokens of the answer so far
}

// plus is the usage of the whole answer, given that of the call which went on with it. Without a usage there is none.
func (u *spending) plus(told string) string {
	if u == nil || told == "" {
		return told
	}
	call := &schemas.Usage{}
	if call.UnmarshalJSON([]byte(told)) != nil {
		return told
	}
	whole := schemas.Usage{PromptTokens: u.prompt, CompletionTokens: call.CompletionTokens}
	if u.prompt < 0 {
		whole.PromptTokens = max(0, call.PromptTokens-u.output) // the call's prompt held the answer so far
		whole.CompletionTokens += u.output
	} else {
		whole.CompletionTokens += max(u.output, call.PromptTokens-u.prompt)
	}
	whole.TotalTokens = whole.PromptTokens + whole.CompletionTokens
	data, err := whole.MarshalJSON()
	if err != nil {
		return told
	}
	return string(data)
}

// added is an event of the call that went on, with the usage of the whole answer.
func (u *spending) added(data []byte, c *openai.Chunk) []byte {
	if u == nil || c.Usage == "" || len(data) == 0 {
		return data
	}
	at := gjson.GetBytes(data, "usage")
	if at.Index == 0 || !at.IsObject() {
		return data
	}
	out := make([]byte, 0, len(data)+32)
	out = append(append(out, data[:at.Index]...), u.plus(at.Raw)...)
	return append(out, data[at.Index+len(at.Raw):]...)
}

// bytesPerToken is how many bytes a token of a prompt has, as far as nobody has counted.
const bytesPerToken = 3.6

// estimate is the usage of a call whose server did not tell it, from what came.
func estimate(body []byte, output int64) *schemas.Usage {
	prompt := int64(float64(len(body)) / bytesPerToken)
	return &schemas.Usage{PromptTokens: prompt, CompletionTokens: output, TotalTokens: prompt + output, Estimated: true}
}

// speaks reports whether a chunk holds some of the answer, which most servers send a token at a time.
func speaks(c *openai.Chunk) bool {
	for i := range c.Choices {
		if o := &c.Choices[i]; o.Content != "" || o.Reasoning != "" || o.ToolCalls != "" {
			return true
		}
	}
	return false
}

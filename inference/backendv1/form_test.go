package backendv1_test

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/weir-llm/weir/inference/backendtest"
)

// form writes the chunks of a chat or of a text completion.
type form struct {
	model      string
	completion bool
}

func (f form) chunk(choice string) string {
	object := "chat.completion.chunk"
	if f.completion {
		object = "text_completion"
	}
	return fmt.Sprintf(`{"id":"x-1","object":%q,"created":1764000000,"model":%q,"choices":[{"index":0,%s}]}`, object, f.model, choice)
}

func (f form) opening(s backendtest.Script) []string {
	if f.completion {
		return nil
	}
	chunks := []string{f.chunk(`"delta":{"role":"assistant","content":""},"finish_reason":null`)}
	for _, thought := range s.Thought {
		chunks = append(chunks, f.chunk(fmt.Sprintf(`"delta":{"reasoning_content":%s},"finish_reason":null`, quote(thought))))
	}
	return chunks
}

func (f form) text(text string) string {
	if f.completion {
		return f.chunk(fmt.Sprintf(`"text":%s,"logprobs":null,"finish_reason":null`, quote(text)))
	}
	return f.chunk(fmt.Sprintf(`"delta":{"content":%s},"finish_reason":null`, quote(text)))
}

func (f form) finish(reason string) string {
	if f.completion {
		return f.chunk(fmt.Sprintf(`"text":"","logprobs":null,"finish_reason":%q`, reason))
	}
	return f.chunk(fmt.Sprintf(`"delta":{},"finish_reason":%q`, reason))
}

func (f form) calls(s backendtest.Script) (chunks []string) {
	for i, call := range s.Calls {
		chunks = append(chunks, f.chunk(fmt.Sprintf(`"delta":{"tool_calls":[{"index":%d,"id":%q,"type":"function","function":{"name":%q,"arguments":""}}]},"finish_reason":null`, i, call.ID, call.Name)))
		for _, piece := range call.Arguments {
			chunks = append(chunks, f.chunk(fmt.Sprintf(`"delta":{"tool_calls":[{"index":%d,"function":{"arguments":%s}}]},"finish_reason":null`, i, quote(piece))))
		}
	}
	return chunks
}

func (f form) document(s backendtest.Script) string {
	text := quote(strings.Join(s.Text, ""))
	if f.completion {
		return fmt.Sprintf(`{"id":"x-1","object":"text_completion","created":1764000000,"model":%q,"choices":[{"index":0,"text":%s,"logprobs":null,"finish_reason":%q}]}`, f.model, text, s.Finish)
	}
	var more strings.Builder
	if len(s.Thought) > 0 {
		more.WriteString(`,"reasoning_content":` + quote(strings.Join(s.Thought, "")))
	}
	for i, call := range s.Calls {
		before := ","
		if i == 0 {
			before = `,"tool_calls":[`
		}
		more.WriteString(fmt.Sprintf(`%s{"id":%q,"type":"function","function":{"name":%q,"arguments":%s}}`, before, call.ID, call.Name, quote(strings.Join(call.Arguments, ""))))
	}
	if len(s.Calls) > 0 {
		more.WriteString("]")
	}
	return fmt.Sprintf(`{"id":"x-1","object":"chat.completion","created":1764000000,"model":%q,"choices":[{"index":0,"message":{"role":"assistant","content":%s%s},"finish_reason":%q}],"usage":null}`, f.model, text, more.String(), s.Finish)
}

func quote(s string) string {
	b, err := json.Marshal(s)
	if err != nil {
		panic(err) // strings always marshal
	}
	return string(b)
}

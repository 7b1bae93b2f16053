package anthropic

import (
	"strings"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
)

// Text is what an event, or a whole message, shows to a reader: text, thought, and the input of tools. It is empty for
// what is of another dialect.
func Text(data []byte) string {
	root, err := openai.ParseObject(data)
	if err != nil {
		return ""
	}
	switch root.Get("type").Str {
	case ContentBlockDelta:
		delta := root.Get("delta")
		return delta.Get("text").Str + delta.Get("thinking").Str + delta.Get("partial_json").Str
	case ContentBlockStart:
		return shown(root.Get("content_block"))
	case "message":
		var text strings.Builder
		root.Get("content").ForEach(func(_, block gjson.Result) bool {
			text.WriteString(shown(block))
			if block.Get("type").Str == toolBlock {
				text.WriteString(block.Get("input").Raw)
			}
			return true
		})
		return text.String()
	}
	return ""
}

func shown(block gjson.Result) string {
	return block.Get("thinking").Str + block.Get("text").Str + block.Get("name").Str
}

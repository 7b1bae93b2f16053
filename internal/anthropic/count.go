package anthropic

import (
	"strconv"

	"github.com/tidwall/gjson"
)

// bytesPerToken and imageTokens make up the estimate.
const (
	bytesPerToken = 3.6
	imageTokens   = 1600
)

// EstimateTokens guesses how many tokens the input of a messages request has, from its length: bytes / 3.6, with a fixed
// number for each image and document that comes as data.
func EstimateTokens(body []byte) int {
	root := gjson.ParseBytes(body)
	bytes, data := 0, 0
	for _, name := range [...]string{"system", "messages", "tools"} {
		bytes += len(root.Get(name).Raw)
	}
	root.Get("messages").ForEach(func(_, message gjson.Result) bool {
		encoded(message.Get("content"), &bytes, &data)
		return true
	})
	return max(1, int(float64(bytes)/bytesPerToken)+data*imageTokens)
}

// encoded takes out what is data and not text, also where tools returned it.
func encoded(content gjson.Result, bytes, data *int) {
	if !content.IsArray() {
		return
	}
	content.ForEach(func(_, block gjson.Result) bool {
		if source := block.Get("source"); source.Get("type").Str == "base64" {
			*bytes -= len(source.Get("data").Raw)
			*data++
		}
		encoded(block.Get("content"), bytes, data)
		return true
	})
}

// CountResponse is the body of a reply that tells how many tokens an input has.
func CountResponse(tokens int) []byte {
	return append(strconv.AppendInt([]byte(`{"input_tokens":`), int64(tokens), 10), '}')
}

package anthropic

import (
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
)

// RestOfMessage returns a validated messages body that asks for the rest of an answer which begins with text, of which used
// tokens were counted. The text becomes the last turn of the assistant, or the end of the one that the caller began.
func RestOfMessage(body []byte, text string, used int) ([]byte, error) {
	if Thinks(body) {
		return nil, unsupported("thinking", "is enabled, so that no beginning of the answer can be given to the model")
	}
	body = openai.WithLess(body, used)
	messages := gjson.GetBytes(body, "messages")
	turns := messages.Array()
	at := "messages." + strconv.Itoa(len(turns)-1)
	if len(turns) == 0 || turns[len(turns)-1].Get("role").Str != "assistant" {
		turn := append(appendString([]byte(`,{"role":"assistant","content":`), text), "}]"...)
		return openai.WithValue(body, "messages", messages.Raw[:len(messages.Raw)-1]+string(turn)), nil
	}
	if at += ".content"; gjson.GetBytes(body, at).IsArray() {
		blocks := gjson.GetBytes(body, at).Array()
		if at += "." + strconv.Itoa(len(blocks)-1); gjson.GetBytes(body, at+".type").Str != textBlock {
			at = ""
		} else {
			at += ".text"
		}
	}
	begun := gjson.GetBytes(body, at)
	if begun.Type != gjson.String {
		return nil, unsupported("messages", "ends with a turn of the assistant that is not text, so that the answer cannot be added to it")
	}
	return openai.WithValue(body, at, string(appendString(nil, begun.Str+text))), nil
}

// Thinks reports whether a body asks the model to think before it answers: such an answer cannot be given its beginning.
func Thinks(body []byte) bool {
	kind := gjson.GetBytes(body, "thinking.type").Str
	return kind != "" && kind != "disabled"
}

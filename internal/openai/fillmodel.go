package openai

import (
	"bytes"
	"unicode/utf8"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// FillModel gives a body that names the model: the same one if it does already, else one with the member added. A body that
// names another model is refused with a [schemas.Error], and so is a model that no body can name because it is not UTF-8. A
// body that is no object is left for [ParseRequest] to refuse.
func FillModel(body []byte, model string) ([]byte, error) {
	named := gjson.GetBytes(body, "model")
	if named.Exists() {
		if named.Type == gjson.String && named.Str != model {
			return nil, schemas.Errorf(schemas.CodeInvalidValue, "the body is for model %.128q, but the subject for %q: make them the same, or leave model out of the body", named.Str, model).WithParam("model")
		}
		return body, nil
	}
	start := bytes.IndexByte(body, '{')
	if start < 0 || len(bytes.TrimLeft(body[:start], " \t\r\n")) > 0 {
		return body, nil
	}
	rest := bytes.TrimLeft(body[start+1:], " \t\r\n")
	if !utf8.ValidString(model) {
		return nil, schemas.Errorf(schemas.CodeInvalidValue, "the subject is for model %q, which is not UTF-8: use the name of a model that GET /v1/models lists", model).WithParam("model")
	}
	out := make([]byte, 0, len(body)+len(model)+16)
	out = appendString(append(out, `{"model":`...), model)
	if len(rest) > 0 && rest[0] != '}' {
		out = append(out, ',')
	}
	return append(out, rest...), nil
}

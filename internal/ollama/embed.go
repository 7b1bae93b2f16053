package ollama

import (
	"encoding/json"
	"errors"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// embedRequest is the body of POST /api/embed.
type embedRequest struct {
	Model      string                     `json:"model"`
	Input      json.RawMessage            `json:"input"`
	Dimensions json.RawMessage            `json:"dimensions,omitempty"`
	KeepAlive  json.RawMessage            `json:"keep_alive,omitempty"`
	Options    map[string]json.RawMessage `json:"options,omitempty"`
	Truncate   bool                       `json:"truncate"` // false: a text that does not fit is an error
}

// FromEmbedding turns the body of an embedding request, which must have been validated, into that of POST /api/embed. The
// error is a [schemas.Error].
func FromEmbedding(body []byte, model string, policy Policy) ([]byte, error) {
	root := gjson.ParseBytes(body)
	input := root.Get("input")
	if first := input.Get("0"); input.IsArray() && first.Type != gjson.String {
		return nil, schemas.Errorf(schemas.CodeUnsupported, "input must be text for this model: tokens of another model mean nothing to it").WithParam("input")
	}
	r := embedRequest{Model: model, Input: json.RawMessage(input.Raw), KeepAlive: keepAlive(policy.KeepAlive)}
	if dimensions := root.Get("dimensions"); dimensions.Type == gjson.Number {
		r.Dimensions = json.RawMessage(dimensions.Raw)
	}
	if policy.NumCtx > 0 {
		r.Options = map[string]json.RawMessage{"num_ctx": json.RawMessage(strconv.Itoa(policy.NumCtx))}
	}
	return encode(r), nil
}

// ToEmbeddings turns an answer of POST /api/embed into that of an embedding request, with vectors of numbers.
func ToEmbeddings(data []byte, model string) ([]byte, error) {
	root, err := openai.ParseObject(data)
	if err != nil {
		return nil, err
	}
	vectors := root.Get("embeddings")
	if !vectors.IsArray() {
		return nil, errors.New("no list of vectors")
	}
	b := []byte(`{"object":"list","data":[`)
	for i, vector := range vectors.Array() {
		if i > 0 {
			b = append(b, ',')
		}
		b = strconv.AppendInt(append(b, `{"object":"embedding","index":`...), int64(i), 10)
		b = append(append(append(b, `,"embedding":`...), vector.Raw...), '}')
	}
	b = appendString(append(b, `],"model":`...), model)
	tokens := int64(count(root.Get("prompt_eval_count")))
	b = strconv.AppendInt(append(b, `,"usage":{"prompt_tokens":`...), tokens, 10)
	b = strconv.AppendInt(append(b, `,"total_tokens":`...), tokens, 10)
	return append(b, "}}"...), nil
}

// DecodeModels reads the names of the models from an answer of GET /api/tags.
func DecodeModels(body []byte) ([]string, error) {
	root, err := openai.ParseObject(body)
	if err != nil {
		return nil, err
	}
	models := root.Get("models")
	if !models.IsArray() {
		return nil, errors.New("no list of models")
	}
	var names []string
	for _, model := range models.Array() {
		if name := model.Get("name").Str; name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

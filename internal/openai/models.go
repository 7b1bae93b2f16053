package openai

import (
	"encoding/json"
	"errors"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// ModelInfo is an entry of GET /v1/models.
type ModelInfo struct {
	ID      string `json:"id"`
	Object  string `json:"object"` // always model
	Created int64  `json:"created"`
	OwnedBy string `json:"owned_by"`
}

// EncodeModels writes the body of GET /v1/models.
func EncodeModels(models []ModelInfo) []byte {
	list := struct {
		Object string      `json:"object"`
		Data   []ModelInfo `json:"data"`
	}{"list", make([]ModelInfo, 0, len(models))}
	for _, model := range models {
		model.Object = "model"
		list.Data = append(list.Data, model)
	}
	return encode(list)
}

// EncodeModel writes the body of GET /v1/models/{id}.
func EncodeModel(model ModelInfo) []byte {
	model.Object = "model"
	return encode(model)
}

func encode(v any) []byte {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err) // strings and integers always marshal
	}
	return data
}

// DecodeModels reads the model names from a body of GET /v1/models.
func DecodeModels(body []byte) ([]string, error) {
	if tooDeep(body) || !schemas.ValidMember(body) {
		return nil, ErrNotJSON
	}
	data := gjson.GetBytes(body, "data")
	if !data.IsArray() {
		return nil, errors.New("no list of models")
	}
	var names []string
	for _, model := range data.Array() {
		if id := model.Get("id").Str; id != "" {
			names = append(names, id)
		}
	}
	return names, nil
}

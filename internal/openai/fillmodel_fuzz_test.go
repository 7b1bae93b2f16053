package openai

import (
	"bytes"
	"encoding/json"
	"testing"

	"github.com/weir-llm/weir/schemas"
)

// FuzzFillModel puts the model of a subject into a body: afterwards the body names that model and no other, and says what it
// said.
func FuzzFillModel(f *testing.F) {
	f.Add([]byte(`{"messages":[{"role":"user","content":"hi"}]}`), "gpt-4.1")
	f.Add([]byte(` { } `), "m")
	f.Add([]byte(`{"model":"m","messages":[]}`), "m")
	f.Add([]byte(`{"model":"a","model":"b"}`), "a")
	f.Add([]byte(`{"mod\u0065l":"b"}`), "a\"b")
	f.Add([]byte(`[]`), "m")
	f.Fuzz(func(t *testing.T, body []byte, model string) {
		if _, err := schemas.EncodeModel(model); err != nil {
			return
		}
		filled, err := FillModel(bytes.Clone(body), model)
		if err != nil {
			return
		}
		parsed, err := ParseRequest(schemas.OpChat, filled, Policy{})
		if err != nil {
			return // what else is wrong with it is told by the door
		}
		if parsed.Model != model {
			t.Errorf("%q for %q became %q, of model %q", body, model, filled, parsed.Model)
		}
		var before, after map[string]json.RawMessage
		if json.Unmarshal(body, &before) != nil || json.Unmarshal(filled, &after) != nil {
			t.Fatalf("%q became %q", body, filled)
		}
		for name, value := range before {
			if !bytes.Equal(after[name], value) {
				t.Errorf("%q for %q became %q: member %q", body, model, filled, name)
			}
		}
	})
}

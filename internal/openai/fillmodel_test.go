package openai

import (
	"testing"

	"github.com/weir-llm/weir/schemas"
)

func TestFillModel(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ body, want string }{
		{`{"messages":[]}`, `{"model":"a/\"b\"","messages":[]}`},
		{" {\n \"x\":1 }", `{"model":"a/\"b\"","x":1 }`},
		{`{}`, `{"model":"a/\"b\""}`},
		{`{ } `, `{"model":"a/\"b\""} `},
		{`{"x":{"model":"other"}}`, `{"model":"a/\"b\"","x":{"model":"other"}}`},
		{`{"model":"a/\"b\""}`, `{"model":"a/\"b\""}`},
		{`{"model":"a/\u0022b\u0022"}`, `{"model":"a/\u0022b\u0022"}`},
		{`{"model":7}`, `{"model":7}`}, // for ParseRequest to refuse, like all that follows
		{`{"model":null}`, `{"model":null}`},
		{`[{}]`, `[{}]`},
		{`"{"`, `"{"`},
		{`hello`, `hello`},
		{``, ``},
	} {
		got, err := FillModel([]byte(test.body), `a/"b"`)
		if err != nil || string(got) != test.want {
			t.Errorf("%s: %s, %v; want %s", test.body, got, err, test.want)
		}
	}
	if _, err := FillModel([]byte(`{"model":"other"}`), "m"); err == nil || schemas.AsError(err).Param != "model" {
		t.Errorf("another model: %v", err)
	}
	// A key that is spelled with an escape is the same key: were it missed, the model would be there twice.
	body, err := FillModel([]byte(`{"mod\u0065l":"other","messages":[{"role":"user","content":"x"}]}`), "m")
	if err == nil {
		_, err = ParseRequest(schemas.OpChat, body, Policy{})
	}
	if err == nil {
		t.Errorf("accepted: %s", body)
	}
}

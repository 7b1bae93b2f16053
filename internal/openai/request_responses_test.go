package openai

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/schemas"
)

func TestParseResponsesRequest(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"model":"m","input":"hi","stream":true}`,
		`{"model":"m","input":"","stream":true,"stream_options":{"include_obfuscation":false}}`,
		`{"model":"m","stream":true,"input":[{"role":"user","content":"hi"},{"type":"x","n":[1,{"a":null}]}],"messages":1}`,
	} {
		got, err := ParseRequest(schemas.OpResponses, []byte(body), Policy{})
		if err != nil {
			t.Fatalf("%s: %v", body, err)
		}
		if diff := cmp.Diff(&Request{Model: "m", N: 1, Stream: true, Body: []byte(body)}, got); diff != "" {
			t.Errorf("%s: %s", body, diff)
		}
	}
	got, err := ParseRequest(schemas.OpResponses, []byte(`{"model":"m","service_tier":"flex","input":"hi"}`), Policy{})
	if err != nil || string(got.Body) != `{"model":"m","input":"hi"}` {
		t.Errorf("stripped to %s, %v", got.Body, err)
	}
}

func TestParseResponsesRequestRefuses(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]struct {
		code  schemas.Code
		param string
	}{
		`{"model":"m"}`:                          {schemas.CodeMissingParameter, "input"},
		`{"input":"hi"}`:                         {schemas.CodeMissingParameter, "model"},
		`{"model":"m","input":[]}`:               {schemas.CodeMissingParameter, "input"},
		`{"model":"m","input":null}`:             {schemas.CodeInvalidValue, "input"},
		`{"model":"m","input":{"role":"user"}}`:  {schemas.CodeInvalidValue, "input"},
		`{"model":"m","input":[{},"x"]}`:         {schemas.CodeInvalidValue, "input[1]"},
		`{"model":"m","Input":"x","input":"hi"}`: {schemas.CodeInvalidValue, "Input"},
		`{"model":"m","input":[{]}`:              {schemas.CodeInvalidJSON, ""},
		`{"model":"m","input":` + strings.Repeat("[", 99) + strings.Repeat("]", 99) + `}`: {schemas.CodeInvalidJSON, ""},
	} {
		_, err := ParseRequest(schemas.OpResponses, []byte(body), Policy{})
		e, ok := errors.AsType[*schemas.Error](err)
		if !ok || e.Code != want.code || e.Param != want.param {
			t.Errorf("%.80s: got %v, want %s of %q", body, err, want.code, want.param)
		}
	}
}

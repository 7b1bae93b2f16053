package openai

import (
	"bytes"
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/schemas"
)

const minimal = `{"model":"m","messages":[{"role":"user","content":"hi"}]}`

func with(members string) string {
	return strings.Replace(minimal, `{"model"`, "{"+members+`,"model"`, 1)
}

func TestParseRequest(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, body string
		want       Request
	}{
		{"minimal", minimal, Request{Model: "m", N: 1}},
		{"white space", " \n" + minimal + "\r\n ", Request{Model: "m", N: 1}},
		{"nulls", with(`"stream":null,"n":null,"max_tokens":null,"temperature":null,"tools":null,"stream_options":null,"response_format":null,"logprobs":null`),
			Request{Model: "m", N: 1}},
		{"stream", with(`"stream":true,"stream_options":{"include_usage":true,"include_obfuscation":false}`),
			Request{Model: "m", N: 1, Stream: true, IncludeUsage: true}},
		{"options first", with(`"stream_options":{"include_usage":false},"stream":true`), Request{Model: "m", N: 1, Stream: true}},
		{"not streaming", with(`"stream":false`), Request{Model: "m", N: 1}},
		{"numbers", with(`"n":3,"max_tokens":7,"temperature":0`), Request{Model: "m", N: 3, MaxTokens: 7, Temperature: new(0.0)}},
		{"newer limit counts", with(`"max_completion_tokens":9,"max_tokens":7,"temperature":1.5`), Request{Model: "m", N: 1, MaxTokens: 9, Temperature: new(1.5)}},
		{"tools", with(`"tools":[{"type":"function","function":{"name":"f"}}]`), Request{Model: "m", N: 1, Tools: true}},
		{"no tools", with(`"tools":[],"functions":[ ]`), Request{Model: "m", N: 1}},
		{"json mode", with(`"response_format":{"type":"json_object"}`), Request{Model: "m", N: 1, Structured: true}},
		{"text format", with(`"response_format":{"type":"text"}`), Request{Model: "m", N: 1}},
		{"guided", with(`"guided_choice":["a","b"]`), Request{Model: "m", N: 1, Structured: true}},
		{"logprobs", with(`"logprobs":true`), Request{Model: "m", N: 1, LogProbs: true}},
		{"no logprobs", with(`"logprobs":false,"top_logprobs":0`), Request{Model: "m", N: 1}},
		{"unknown members", with(`"top_k":5,"chat_template_kwargs":{"a":[1,{"b":null}]},"x":"\u00e9\ud83d\ude00"`), Request{Model: "m", N: 1}},
		{"escaped names", `{"mo\u0064el":"\u006d","messages":[{"\u0072ole":"user"}]}`, Request{Model: "m", N: 1}},
		{"depth 64", with(`"x":` + strings.Repeat("[", 63) + strings.Repeat("]", 63)), Request{Model: "m", N: 1}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseRequest(schemas.OpChat, []byte(test.body), Policy{})
			if err != nil {
				t.Fatal(err)
			}
			test.want.Body = []byte(test.body)
			if diff := cmp.Diff(&test.want, got); diff != "" {
				t.Errorf("request (-want +got):\n%s", diff)
			}
		})
	}
}

func TestParseRequestRefuses(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, body string
		code       schemas.Code
		param      string
	}{
		{"empty body", "", schemas.CodeInvalidJSON, ""},
		{"white space", " \n", schemas.CodeInvalidJSON, ""},
		{"too large", `{"a":"` + strings.Repeat("x", schemas.MaxBodyBytes) + `"}`, schemas.CodeRequestTooLarge, ""},
		{"array", `[1]`, schemas.CodeInvalidJSON, ""},
		{"string", `"a"`, schemas.CodeInvalidJSON, ""},
		{"half", minimal[:30], schemas.CodeInvalidJSON, ""},
		{"two objects", minimal + minimal, schemas.CodeInvalidJSON, ""},
		{"rubbish behind", minimal + "x", schemas.CodeInvalidJSON, ""},
		{"trailing comma", `{"model":"m",}`, schemas.CodeInvalidJSON, ""},
		{"trailing comma in messages", `{"messages":[{"role":"user"},]}`, schemas.CodeInvalidJSON, ""},
		{"wrong bracket", `{"messages":[{"role":"user"}}`, schemas.CodeInvalidJSON, ""},
		{"number as name", `{1:2}`, schemas.CodeInvalidJSON, ""},
		{"NaN", with(`"temperature":NaN`), schemas.CodeInvalidJSON, ""},
		{"bad UTF-8", with(`"x":"` + "\xff" + `"`), schemas.CodeInvalidJSON, ""},
		{"lone surrogate", with(`"x":"\ud800"`), schemas.CodeInvalidJSON, ""},
		{"byte order mark", "\xEF\xBB\xBF" + minimal, schemas.CodeInvalidJSON, ""},
		{"duplicate", with(`"model":"other"`), schemas.CodeInvalidJSON, ""},
		{"escaped duplicate", with(`"mo\u0064el":"other"`), schemas.CodeInvalidJSON, ""},
		{"deep duplicate", with(`"x":{"y":[{"z":1,"z":2}]}`), schemas.CodeInvalidJSON, ""},
		{"depth 65", with(`"x":` + strings.Repeat("[", 64) + strings.Repeat("]", 64)), schemas.CodeInvalidJSON, ""},
		{"bottomless", with(`"x":` + strings.Repeat(`{"a":[`, 1<<20)), schemas.CodeInvalidJSON, ""},
		{"no model", `{"messages":[{"role":"user"}]}`, schemas.CodeMissingParameter, "model"},
		{"empty model", `{"model":"","messages":[{"role":"user"}]}`, schemas.CodeMissingParameter, "model"},
		{"model is a number", `{"model":1,"messages":[{"role":"user"}]}`, schemas.CodeInvalidValue, "model"},
		{"model is null", `{"model":null,"messages":[{"role":"user"}]}`, schemas.CodeInvalidValue, "model"},
		{"no messages", `{"model":"m"}`, schemas.CodeMissingParameter, "messages"},
		{"empty messages", `{"model":"m","messages":[]}`, schemas.CodeMissingParameter, "messages"},
		{"messages is an object", `{"model":"m","messages":{}}`, schemas.CodeInvalidValue, "messages"},
		{"message is a string", `{"model":"m","messages":["hi"]}`, schemas.CodeInvalidValue, "messages[0]"},
		{"no role", `{"model":"m","messages":[{"role":"user"},{"content":"x"}]}`, schemas.CodeMissingParameter, "messages[1].role"},
		{"role is null", `{"model":"m","messages":[{"role":null}]}`, schemas.CodeInvalidValue, "messages[0].role"},
		{"stream is a string", with(`"stream":"true"`), schemas.CodeInvalidValue, "stream"},
		{"n is 0", with(`"n":0`), schemas.CodeInvalidValue, "n"},
		{"n is broken", with(`"n":1.5`), schemas.CodeInvalidValue, "n"},
		{"n is large", with(`"n":129`), schemas.CodeInvalidValue, "n"},
		{"n is huge", with(`"n":99999999999999999999`), schemas.CodeInvalidValue, "n"},
		{"n is a string", with(`"n":"1"`), schemas.CodeInvalidValue, "n"},
		{"max_tokens is 0", with(`"max_tokens":0`), schemas.CodeInvalidValue, "max_tokens"},
		{"max_completion_tokens is negative", with(`"max_completion_tokens":-1`), schemas.CodeInvalidValue, "max_completion_tokens"},
		{"temperature is a string", with(`"temperature":"0"`), schemas.CodeInvalidValue, "temperature"},
		{"temperature is endless", with(`"temperature":1e999`), schemas.CodeInvalidValue, "temperature"},
		{"options without stream", with(`"stream_options":{}`), schemas.CodeInvalidValue, "stream_options"},
		{"options is a list", with(`"stream":true,"stream_options":[]`), schemas.CodeInvalidValue, "stream_options"},
		{"include_usage is a number", with(`"stream":true,"stream_options":{"include_usage":1}`), schemas.CodeInvalidValue, "stream_options.include_usage"},
		{"model in capitals", with(`"MODEL":"other"`), schemas.CodeInvalidValue, "MODEL"},
		{"messages with a long s", with(`"me\u017fsages":[]`), schemas.CodeInvalidValue, "me\u017fsages"},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			got, err := ParseRequest(schemas.OpChat, []byte(test.body), Policy{})
			e, ok := errors.AsType[*schemas.Error](err)
			if !ok {
				t.Fatalf("request %+v, error %v: want a coded error", got, err)
			}
			if e.Code != test.code || e.Param != test.param {
				t.Errorf("error %s of %q, want %s of %q: %s", e.Code, e.Param, test.code, test.param, e.Message)
			}
		})
	}
}

// TestErrorsQuoteNoText: an error is stored, and shown by tools, where the request may not be.
func TestErrorsQuoteNoText(t *testing.T) {
	t.Parallel()
	for _, text := range []string{`\ud800 king`, `\ud800\u0king`, `\uking`, `\king`, "\x01king", "\xffking", `\ud800`} {
		_, err := ParseRequest(schemas.OpChat, []byte(with(`"x":"`+text+`"`)), Policy{})
		if e := schemas.AsError(err); e.Code != schemas.CodeInvalidJSON || strings.Contains(e.Message, "ki") || strings.Contains(e.Message, "ud8") || !strings.Contains(e.Message, "at byte ") {
			t.Errorf("%q: %s", text, e.Message)
		}
	}
}

func TestParseRequestPolicyAndOps(t *testing.T) {
	t.Parallel()
	if _, err := ParseRequest(schemas.OpChat, []byte(with(`"n":3`)), Policy{MaxChoices: 2}); err == nil {
		t.Error("n above the policy was accepted")
	}
	_, err := ParseRequest("rerank", []byte(minimal), Policy{})
	if e := schemas.AsError(err); e.Code != schemas.CodeUnsupported {
		t.Errorf("an op that is not there: %v", err)
	}
}

func TestParseOtherOps(t *testing.T) {
	t.Parallel()
	const completion, embedding = schemas.OpCompletion, schemas.OpEmbedding
	list := func(element string, n int) string { return "[" + strings.Repeat(element+",", n-1) + element + "]" }
	for _, test := range []struct {
		name  string
		op    schemas.Op
		body  string
		n     int          // answers, when it is valid
		param string       // at fault, when not
		code  schemas.Code // default invalid_value
	}{
		{"prompt", completion, `{"model":"m","prompt":"a"}`, 1, "", ""},
		{"no prompt given but null", completion, `{"model":"m","prompt":null}`, 1, "", ""},
		{"prompts", completion, `{"model":"m","prompt":["a","b"],"n":3}`, 6, "", ""},
		{"n first", completion, `{"n":3,"model":"m","prompt":["a","b"]}`, 6, "", ""},
		{"tokens", completion, `{"model":"m","prompt":[1,2,3],"n":2}`, 2, "", ""},
		{"lists of tokens", completion, `{"model":"m","prompt":[[1,2],[3]],"logprobs":0,"stream":true,"stream_options":{"include_usage":true}}`, 2, "", ""},
		{"1,024 answers", completion, `{"model":"m","n":8,"prompt":` + list(`"a"`, 128) + `}`, 1024, "", ""},
		{"1,032 answers", completion, `{"model":"m","n":8,"prompt":` + list(`"a"`, 129) + `}`, 0, "prompt", ""},
		{"many tokens are one prompt", completion, `{"model":"m","prompt":` + list("7", 5000) + `}`, 1, "", ""},
		{"no prompt", completion, `{"model":"m"}`, 0, "prompt", schemas.CodeMissingParameter},
		{"empty prompts", completion, `{"model":"m","prompt":[]}`, 0, "prompt", schemas.CodeMissingParameter},
		{"prompt is an object", completion, `{"model":"m","prompt":{}}`, 0, "prompt", ""},
		{"prompt is a number", completion, `{"model":"m","prompt":1}`, 0, "prompt", ""},
		{"prompts are mixed", completion, `{"model":"m","prompt":["a",1]}`, 0, "prompt[1]", ""},
		{"tokens are mixed", completion, `{"model":"m","prompt":[1,"a"]}`, 0, "prompt[1]", ""},
		{"a negative token", completion, `{"model":"m","prompt":[1,-1]}`, 0, "prompt", ""},
		{"half a token", completion, `{"model":"m","prompt":[[1.5]]}`, 0, "prompt[0]", ""},
		{"no tokens", completion, `{"model":"m","prompt":[[]]}`, 0, "prompt[0]", ""},
		{"an object among prompts", completion, `{"model":"m","prompt":[{}]}`, 0, "prompt[0]", ""},
		{"prompt in capitals", completion, `{"model":"m","prompt":"a","Prompt":"b"}`, 0, "Prompt", ""},

		{"input", embedding, `{"model":"m","input":"a","dimensions":3,"encoding_format":"base64"}`, 1, "", ""},
		{"inputs", embedding, `{"model":"m","input":["a","b"],"encoding_format":"float","dimensions":null}`, 1, "", ""},
		{"token inputs", embedding, `{"model":"m","input":[[1],[2]],"encoding_format":null,"stream":false}`, 1, "", ""},
		{"images", embedding, `{"model":"m","input":[{"image":"x"},"a"]}`, 1, "", ""},
		{"2,048 inputs", embedding, `{"model":"m","input":` + list(`"a"`, 2048) + `}`, 1, "", ""},
		{"2,049 inputs", embedding, `{"model":"m","input":` + list(`"a"`, 2049) + `}`, 0, "input", ""},
		{"no input", embedding, `{"model":"m","messages":[]}`, 0, "input", schemas.CodeMissingParameter},
		{"no model", embedding, `{"input":"a"}`, 0, "model", schemas.CodeMissingParameter},
		{"null input", embedding, `{"model":"m","input":null}`, 0, "input", ""},
		{"other format", embedding, `{"model":"m","input":"a","encoding_format":"int8"}`, 0, "encoding_format", ""},
		{"format is a number", embedding, `{"model":"m","input":"a","encoding_format":1}`, 0, "encoding_format", ""},
		{"no dimensions", embedding, `{"model":"m","input":"a","dimensions":0}`, 0, "dimensions", ""},
		{"dimensions as text", embedding, `{"model":"m","input":"a","dimensions":"3"}`, 0, "dimensions", ""},
		{"a stream", embedding, `{"model":"m","input":"a","stream":true}`, 0, "stream", ""},
	} {
		got, err := ParseRequest(test.op, []byte(test.body), Policy{})
		if test.param == "" {
			if err != nil || got.N != test.n || string(got.Body) != test.body {
				t.Errorf("%s: %+v, %v; want %d answers", test.name, got, err, test.n)
			}
			continue
		}
		want := test.code
		if want == "" {
			want = schemas.CodeInvalidValue
		}
		if e, ok := errors.AsType[*schemas.Error](err); !ok || e.Code != want || e.Param != test.param {
			t.Errorf("%s: %v; want %s of %q", test.name, err, want, test.param)
		}
	}
}

func TestParseRequestNeverQuotes(t *testing.T) {
	t.Parallel()
	for _, body := range []string{
		`{"model":"m","messages":[{"role":"user","content":"canary` + "\x01" + `"}]}`,
		`{"model":"m","messages":[{"role":"user","content":"canary"},,]}`,
		`{"model":"m","messages":"canary"}`,
		`{"model":"m","messages":[{"role":["canary"]}]}`,
	} {
		_, err := ParseRequest(schemas.OpChat, []byte(body), Policy{})
		if err == nil || strings.Contains(err.Error(), "canary") {
			t.Errorf("%s: error %v", body, err)
		}
	}
}

func TestParseRequestStrips(t *testing.T) {
	t.Parallel()
	const messages = `"messages":[{"role":"user"}]`
	for _, test := range []struct{ body, want string }{
		{`{"priority":1,"model":"m", ` + messages + `}`, `{"model":"m", ` + messages + `}`},
		{`{ "model":"m" ,"cache_salt" : "x" , ` + messages + ` }`, `{ "model":"m" , ` + messages + ` }`},
		{`{"model":"m",` + messages + `,"request_id":"r","session_id":{"a":[1,2]}}`, `{"model":"m",` + messages + `}`},
		{`{"priority":1,"request_id":2,"model":"m","chat_template":"t",` + messages + "\n}", `{"model":"m",` + messages + "\n}"},
		{`{"model":"m",` + messages + `,"Service_Tier":"flex","kv_tran\u0073fer_params":{},"return_token_ids":true,"x":1}`, `{"model":"m",` + messages + `,"x":1}`},
		{`{"model":"m",` + messages + `,"x":{"priority":1}}`, `{"model":"m",` + messages + `,"x":{"priority":1}}`},
	} {
		body := []byte(test.body)
		got, err := ParseRequest(schemas.OpChat, body, Policy{})
		if err != nil {
			t.Errorf("%s: %v", test.body, err)
			continue
		}
		if string(got.Body) != test.want {
			t.Errorf("%s\n got %s\nwant %s", test.body, got.Body, test.want)
		}
		if string(body) != test.body {
			t.Errorf("the caller's bytes were changed to %s", body)
		}
	}
}

func FuzzParseRequest(f *testing.F) {
	for _, seed := range []string{
		minimal, with(`"priority":1`), with(`"stream":true,"stream_options":{"include_usage":true}`), with(`"tools":[{}],"n":2`),
		`{"model":"m","model":"n"}`, `{"a":` + strings.Repeat("[", 70), "[]", `{"mo\u0064el":1}`,
	} {
		f.Add(string(schemas.OpChat), []byte(seed))
	}
	f.Add(string(schemas.OpCompletion), []byte(`{"model":"m","prompt":["a","b"],"n":3}`))
	f.Add(string(schemas.OpCompletion), []byte(`{"model":"m","prompt":[[1,2],[3]],"stream":true}`))
	f.Add(string(schemas.OpEmbedding), []byte(`{"model":"m","input":[1,2],"dimensions":3,"encoding_format":"base64"}`))
	f.Fuzz(func(t *testing.T, op string, body []byte) {
		got, err := ParseRequest(schemas.Op(op), body, Policy{})
		if err != nil {
			if _, ok := errors.AsType[*schemas.Error](err); !ok {
				t.Fatalf("error without a code: %v", err)
			}
			return
		}
		var members map[string]json.RawMessage
		if err := json.Unmarshal(got.Body, &members); err != nil {
			t.Fatalf("accepted what is not JSON: %v", err)
		}
		var model string
		if err := json.Unmarshal(members["model"], &model); err != nil || model != got.Model {
			t.Errorf("model %q, read %q: %v", members["model"], got.Model, err)
		}
		for name := range members {
			if controlled([]byte(name)) {
				t.Errorf("member %q was kept", name)
			}
		}
		if n := Choices(schemas.Op(op), got.Body); n != got.N && op != string(schemas.OpEmbedding) {
			t.Errorf("%d answers in the parser, %d in the backend", got.N, n)
		}
		again, err := ParseRequest(schemas.Op(op), got.Body, Policy{})
		if err != nil || !bytes.Equal(again.Body, got.Body) {
			t.Errorf("its own result is not accepted: %v", err)
		}
	})
}

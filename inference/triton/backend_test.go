package triton_test

import (
	"context"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendtest"
	"github.com/weir-llm/weir/inference/triton"
	"github.com/weir-llm/weir/schemas"
)

func request(op schemas.Op, body string) *inference.GenerateRequest {
	return &inference.GenerateRequest{
		Identity: schemas.Identity{Tenant: "acme", Request: "req_1"}, Op: op, Body: []byte(body), Stream: strings.Contains(body, `"stream":true`), Attempt: 1, Try: 1,
	}
}

func ask(ctx context.Context, b inference.Backend, r *inference.GenerateRequest) (events []string, failed *schemas.Error) {
	for event, err := range b.Generate(ctx, r) {
		if err != nil {
			return events, schemas.AsError(err)
		}
		if len(event.Data) > 0 {
			events = append(events, string(event.Data))
		}
	}
	return events, nil
}

const turns = `"messages":[{"role":"developer","content":"Be brief."},{"role":"user","content":[{"type":"text","text":" one "},{"type":"text","text":"two\n"}]},{"role":"assistant","content":"three"},{"role":"user","name":"x","content":"four"}]}`

func TestPrompts(t *testing.T) {
	t.Parallel()
	for template, want := range map[triton.Template]string{
		triton.Raw: "Be brief.\n\n one two\n\n\nthree\n\nfour",
		triton.ChatML: "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\n one two\n<|im_end|>\n<|im_start|>assistant\nthree<|im_end|>\n" +
			"<|im_start|>user\nfour<|im_end|>\n<|im_start|>assistant\n",
		triton.Llama3: "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|><|start_header_id|>user<|end_header_id|>\n\none two<|eot_id|>" +
			"<|start_header_id|>assistant<|end_header_id|>\n\nthree<|eot_id|><|start_header_id|>user<|end_header_id|>\n\nfour<|eot_id|>" +
			"<|start_header_id|>assistant<|end_header_id|>\n\n",
	} {
		f := serve(t, backendtest.Whole())
		b := backend(t, triton.Config{URL: "grpc://" + f.Address, Template: template})
		if _, err := ask(t.Context(), b, request(schemas.OpChat, `{"model":"m",`+turns)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, f.Requests()[0].Prompt); diff != "" {
			t.Errorf("%s (-want +got):\n%s", template, diff)
		}
	}
}

func TestSampling(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]map[string]any{
		`{"model":"m","prompt":"x"}`: {"max_tokens": 77.},
		`{"model":"m","prompt":["x"],"max_tokens":5,"temperature":0,"top_p":0.5,"top_k":3,"min_p":0.1,"seed":7,"frequency_penalty":0.1,"presence_penalty":-1,"stop":"a","user":"u","stream":false,"n":1,"logit_bias":{},"later":[1]}`: {
			"max_tokens": 5., "temperature": 0., "top_p": 0.5, "top_k": 3., "min_p": 0.1, "seed": 7., "frequency_penalty": 0.1, "presence_penalty": -1., "stop": []any{"a"},
		},
		`{"model":"m","prompt":"x","max_tokens":5,"max_completion_tokens":6,"stop":["a","b\n"],"temperature":null,"ignore_eos":true}`: {
			"max_tokens": 6., "stop": []any{"a", "b\n"}, "ignore_eos": true,
		},
		`{"model":"m","prompt":"x","stop":[],"tools":[],"response_format":{"type":"text"},"modalities":["text"],"echo":false,"suffix":""}`: {"max_tokens": 77.},
	} {
		f := serve(t, backendtest.Whole())
		b := backend(t, triton.Config{URL: "grpc://" + f.Address, MaxTokens: 77, Model: "real"})
		if _, err := ask(t.Context(), b, request(schemas.OpCompletion, body)); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(asked{"real", "req_1", "x", want}, f.Requests()[0]); diff != "" {
			t.Errorf("%s (-want +got):\n%s", body, diff)
		}
	}
}

// What the protocol cannot say is refused before a call, with the field at fault.
func TestUnsupported(t *testing.T) {
	t.Parallel()
	f := serve(t, backendtest.Whole())
	b := backend(t, triton.Config{URL: "grpc://" + f.Address, Template: triton.Llama3})
	for members, param := range map[string]string{
		`"tools":[{"type":"function"}],` + turns:            "tools",
		`"functions":[{}],` + turns:                         "functions",
		`"response_format":{"type":"json_object"},` + turns: "response_format",
		`"structured_outputs":{"choice":["a"]},` + turns:    "structured_outputs",
		`"n":2,` + turns:                                                           "n",
		`"logprobs":true,` + turns:                                                 "logprobs",
		`"logit_bias":{"5":1},` + turns:                                            "logit_bias",
		`"modalities":["text","audio"],` + turns:                                   "modalities",
		`"messages":[{"role":"tool","content":"x"}]}`:                              "messages[0].role",
		`"messages":[{"role":"assistant","tool_calls":[{}]}]}`:                     "messages[0].tool_calls",
		`"messages":[{"role":"user","content":[{"type":"image_url"}]}]}`:           "messages[0].content",
		`"messages":[{"role":"user","content":"a<|eot_id|><|start_header_id|>"}]}`: "messages[0].content",
	} {
		_, err := ask(t.Context(), b, request(schemas.OpChat, `{"model":"m",`+members))
		want := schemas.CodeUnsupported
		if strings.Contains(members, "eot_id") {
			want = schemas.CodeInvalidValue // a turn that the caller would forge
		}
		if err == nil || err.Code != want || err.Param != param {
			t.Errorf("%s: error %v for %q, want %s for %q", members, err, err.Param, want, param)
		}
	}
	for members, param := range map[string]string{
		`"prompt":["a","b"]}`: "prompt", `"prompt":[1,2]}`: "prompt", `"prompt":"a","echo":true}`: "echo", `"prompt":"a","suffix":"z"}`: "suffix", `"prompt":"a","best_of":3}`: "best_of", `"prompt":"a","logprobs":1}`: "logprobs",
	} {
		if _, err := ask(t.Context(), b, request(schemas.OpCompletion, `{"model":"m",`+members)); err == nil || err.Code != schemas.CodeUnsupported || err.Param != param {
			t.Errorf("%s: error %v, want %s for %q", members, err, schemas.CodeUnsupported, param)
		}
	}
	plain := backend(t, triton.Config{URL: "grpc://" + f.Address})
	if _, err := ask(t.Context(), plain, request(schemas.OpChat, `{"model":"m",`+turns)); err == nil || err.Code != schemas.CodeUnsupported || !strings.Contains(err.Message, "template") {
		t.Errorf("a chat without a template: %v", err)
	}
	if _, err := ask(t.Context(), b, request(schemas.OpChat, `{"model":"m","tools":[{"type":"function"}],"tool_choice":"none",`+turns)); err != nil {
		t.Errorf("tools that must not be called: %v", err)
	}
	if n := len(f.Requests()); n != 1 {
		t.Errorf("the server was called %d times, want once", n)
	}
}

// Tensors come as raw bytes or as typed contents, and the end with the last text or after it.
func TestForms(t *testing.T) {
	t.Parallel()
	const body = `{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[{"role":"user","content":"hi"}]}`
	var first []string
	for _, contents := range []bool{false, true} {
		for _, late := range []bool{false, true} {
			f := serve(t, backendtest.Whole())
			f.contents, f.late = contents, late
			events, err := ask(t.Context(), backend(t, triton.Config{URL: "grpc://" + f.Address, Template: triton.Raw}), request(schemas.OpChat, body))
			if err != nil || len(events) != 6 {
				t.Fatalf("contents %t, late %t: %q, %v", contents, late, events, err)
			}
			for i := range events { // but for the second they were made in
				events[i] = strings.Join(append(strings.Split(events[i], `"created":`)[:1], strings.SplitN(strings.Split(events[i], `"created":`)[1], ",", 2)[1]), "")
			}
			if first == nil {
				first = events
			}
			if diff := cmp.Diff(first, events); diff != "" {
				t.Errorf("contents %t, late %t:\n%s", contents, late, diff)
			}
		}
	}
	want := `{"id":"chatcmpl-req_1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":"Hello "},"finish_reason":null}]}`
	if first[2] != want {
		t.Errorf("event %s, want %s", first[2], want)
	}
}

func TestHealth(t *testing.T) {
	t.Parallel()
	f := serve(t, backendtest.Whole())
	if err := backend(t, triton.Config{URL: "grpc://" + f.Address, Model: "m1"}).Health(t.Context()); err != nil {
		t.Errorf("a model that is ready: %v", err)
	}
	err := backend(t, triton.Config{URL: "grpc://" + f.Address, Model: "m3"}).Health(t.Context())
	if err == nil || schemas.AsError(err).Code != schemas.CodeUnavailable {
		t.Errorf("a model that is not ready: %v", err)
	}
	sick := serve(t, backendtest.Whole())
	sick.sick = true
	if err := backend(t, triton.Config{URL: "grpc://" + sick.Address}).Health(t.Context()); err == nil {
		t.Error("a server that is not ready is healthy")
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	if _, err := triton.New(triton.Config{Name: "b", URL: "grpc://h:1", Template: "vicuna"}); err == nil || !strings.Contains(err.Error(), "use raw, chatml, llama3") {
		t.Errorf("an unknown template: %v", err)
	}
	if _, err := triton.New(triton.Config{Name: "b", URL: "http://h:1"}); err == nil {
		t.Error("an HTTP address was accepted")
	}
}

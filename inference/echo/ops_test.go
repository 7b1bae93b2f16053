package echo_test

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/echo"
	"github.com/weir-llm/weir/schemas"
)

func other(op schemas.Op, body string) *inference.GenerateRequest {
	return &inference.GenerateRequest{
		Identity: schemas.Identity{Tenant: "acme", Request: "r1"}, Op: op, Body: []byte(body),
		Stream: strings.Contains(body, `"stream":true`), Attempt: 1, Try: 1,
	}
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	const object = `{"object":"text_completion","id":"cmpl-1eba04e597a7b527b2af40c8","created":1700000000,"model":"e","choices":[`
	b := backend(t, echo.Config{})
	events, _, err := generate(t.Context(), b, other(schemas.OpCompletion, `{"model":"e","prompt":"one two","max_tokens":2,"stream":true,"stream_options":{"include_usage":true}}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{
		object + `{"index":0,"text":"echo: ","logprobs":null,"finish_reason":null}]}`,
		object + `{"index":0,"text":"one ","logprobs":null,"finish_reason":null}]}`,
		object + `{"index":0,"text":"","logprobs":null,"finish_reason":"length"}]}`,
		object + `],"usage":{"prompt_tokens":2,"completion_tokens":2,"total_tokens":4}}`,
	}, events); diff != "" {
		t.Errorf("stream (-want +got):\n%s", diff)
	}
	for name, test := range map[string]struct{ members, want string }{
		"echo":    {`"prompt":"one","echo":true`, `{"index":0,"text":"oneecho: one","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":3,"total_tokens":4}}`},
		"tokens":  {`"prompt":[17,4]`, `{"index":0,"text":"echo: 17 4","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":2,"completion_tokens":3,"total_tokens":5}}`},
		"nothing": {`"prompt":null`, `{"index":0,"text":"echo: ","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":0,"completion_tokens":1,"total_tokens":1}}`},
		"several": {`"prompt":["a b",[1]],"n":2,"max_tokens":2`, `{"index":0,"text":"echo: a ","logprobs":null,"finish_reason":"length"},{"index":1,"text":"echo: a ","logprobs":null,"finish_reason":"length"},` +
			`{"index":2,"text":"echo: 1","logprobs":null,"finish_reason":"stop"},{"index":3,"text":"echo: 1","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":8,"total_tokens":11}}`},
	} {
		unary, _, err := generate(t.Context(), b, other(schemas.OpCompletion, `{"model":"e",`+test.members+`}`))
		if err != nil || len(unary) != 1 || unary[0] != object+test.want {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, unary, object+test.want)
		}
		_, answer, err := generate(t.Context(), b, other(schemas.OpCompletion, `{"model":"e","stream":true,`+test.members+`}`))
		if streamed := strings.Replace(string(answer.Encode(nil)), `{"id":"cmpl-1eba04e597a7b527b2af40c8","object":"text_completion",`, `{"object":"text_completion","id":"cmpl-1eba04e597a7b527b2af40c8",`, 1); err != nil || streamed != object+test.want {
			t.Errorf("%s, streamed: %v\n got %s\nwant %s", name, err, streamed, object+test.want)
		}
	}
}

// embed decodes the vectors of an answer.
func embed(t *testing.T, members string) (vectors [][]float64, answer string) {
	t.Helper()
	data, err := backend(t, echo.Config{}).Embed(t.Context(), other(schemas.OpEmbedding, `{"model":"e",`+members+`}`))
	if err != nil {
		t.Fatal(err)
	}
	var body struct {
		Data []struct {
			Index     int
			Embedding []float64
		}
	}
	if err := json.Unmarshal(data, &body); err != nil && !strings.Contains(members, "base64") {
		t.Fatalf("%v: %s", err, data)
	}
	for i, v := range body.Data {
		if v.Index != i {
			t.Errorf("vector %d has index %d", i, v.Index)
		}
		vectors = append(vectors, v.Embedding)
	}
	return vectors, string(data)
}

func TestEmbed(t *testing.T) {
	t.Parallel()
	_, answer := embed(t, `"input":"hello","dimensions":2`)
	if want := `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1,0]}],"model":"e","usage":{"prompt_tokens":1,"total_tokens":1}}`; answer != want {
		t.Errorf("got %s, want %s", answer, want)
	}
	_, answer = embed(t, `"input":[[7]],"dimensions":1,"encoding_format":"base64"`)
	if want := `{"object":"list","data":[{"object":"embedding","index":0,"embedding":"AACAPw=="}],"model":"e","usage":{"prompt_tokens":1,"total_tokens":1}}`; answer != want {
		t.Errorf("got %s, want %s", answer, want)
	}
	v, _ := embed(t, `"input":["the red house","the red houses","nothing in common",""]`)
	dot := func(a, b []float64) (sum float64) {
		for i := range a {
			sum += a[i] * b[i]
		}
		return sum
	}
	if len(v) != 4 || len(v[0]) != 256 {
		t.Fatalf("%d vectors of %d dimensions", len(v), len(v[0]))
	}
	for i := range v {
		if length := dot(v[i], v[i]); math.Abs(length-1) > 1e-6 {
			t.Errorf("vector %d has length %v", i, length)
		}
	}
	if near, far := dot(v[0], v[1]), dot(v[0], v[2]); near < 0.5 || far > 0.2 {
		t.Errorf("alike %v, unlike %v", near, far)
	}
}

func TestEmbedFails(t *testing.T) {
	t.Parallel()
	for members, code := range map[string]schemas.Code{
		`"dimensions":4097`: schemas.CodeInvalidValue, `"dimensions":0`: schemas.CodeInvalidValue, `"x_echo":{"tokens":-1}`: schemas.CodeInvalidValue,
		`"x_echo":{"fail":"rate_limit_exceeded"}`: schemas.CodeRateLimit,
	} {
		_, err := backend(t, echo.Config{}).Embed(t.Context(), other(schemas.OpEmbedding, `{"model":"e","input":"a",`+members+`}`))
		if e, ok := errors.AsType[*schemas.Error](err); !ok || e.Code != code {
			t.Errorf("%s: %v", members, err)
		}
	}
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancelCause(t.Context())
		time.AfterFunc(time.Second, func() { cancel(schemas.Errorf(schemas.CodeShutdown, "stopping")) })
		_, err := backend(t, echo.Config{}).Embed(ctx, other(schemas.OpEmbedding, `{"model":"e","input":"a","x_echo":{"interval_ms":5000}}`))
		if e, ok := errors.AsType[*schemas.Error](err); !ok || e.Code != schemas.CodeShutdown {
			t.Errorf("slow: %v", err)
		}
	})
}

package openai_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/openai"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	"github.com/weir-llm/weir/schemas"
)

func completionRequest(body string) *inference.GenerateRequest {
	r := request(body)
	r.Op = schemas.OpCompletion
	return r
}

func TestCompletion(t *testing.T) {
	t.Parallel()
	all := openaitest.Completion("Hello", " world")
	b, upstream := start(t, openai.Config{Model: "real"}, openaitest.Dials{Events: append(append([]string{}, all...), openaitest.Usage)}, openaitest.Dials{})
	events, usage, err := generate(t.Context(), b, completionRequest(`{"model":"m","prompt":"hi","stream":true}`))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(all, events); diff != "" || usage == nil || usage.TotalTokens != 5 {
		t.Errorf("usage %+v, events (-want +got):\n%s", usage, diff)
	}
	if got := upstream.Requests()[0]; got.Path != "/v1/completions" || got.Body != `{"stream_options":{"include_usage":true},"model":"real","prompt":"hi","stream":true}` {
		t.Errorf("the server got %s %s", got.Path, got.Body)
	}
	events, _, err = generate(t.Context(), b, completionRequest(`{"model":"m","prompt":"hi"}`))
	if err != nil || len(events) != 1 || events[0] != openaitest.CompletionResponse("Hello world") {
		t.Errorf("unary: %s, %v", events, err)
	}
}

// An answer to several prompts is whole when each of them has its answers.
func TestCompletionOfSeveralPrompts(t *testing.T) {
	t.Parallel()
	first := openaitest.Completion("a")
	second := strings.ReplaceAll(strings.Join(first, "\n"), `"index":0`, `"index":1`)
	both := append(append([]string{}, first...), strings.Split(second, "\n")...)
	for name, test := range map[string]struct {
		prompt string
		events []string
		whole  bool
	}{
		"both": {`["x","y"]`, both, true}, "one is missing": {`["x","y"]`, first, false}, "one of one": {`["x"]`, first, true},
		"tokens": {`[1,2]`, first, true}, "lists of tokens": {`[[1,2],[3]]`, first, false},
	} {
		b, _ := start(t, openai.Config{}, openaitest.Dials{Events: test.events, NoDone: true})
		_, _, err := generate(t.Context(), b, completionRequest(`{"model":"m","stream":true,"prompt":`+test.prompt+`}`))
		if (err == nil) != test.whole {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestEmbeddingsMayBeLarge(t *testing.T) {
	t.Parallel()
	head, tail := openaitest.EmbeddingResponse[:len(openaitest.EmbeddingResponse)-1], "}"
	for size, whole := range map[int]bool{64 << 20: true, 64<<20 + 1: false} {
		b, _ := start(t, openai.Config{}, openaitest.Dials{Body: head + strings.Repeat(" ", size-len(head)-len(tail)) + tail})
		r := request(`{"model":"m","input":"a"}`)
		r.Op = schemas.OpEmbedding
		got, err := b.Embed(t.Context(), r)
		if whole && (err != nil || len(got) != size) {
			t.Errorf("%d bytes: %d bytes came, %v", size, len(got), err)
		}
		if e := schemas.AsError(err); !whole && (err == nil || e.Code != schemas.CodeUpstreamError || !strings.Contains(e.Message, "64 MiB")) {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
}

func TestEmbed(t *testing.T) {
	t.Parallel()
	const floats, base64 = `{"object":"list","data":[{"object":"embedding","embedding":[1,-2.5],"index":0}],"model":"real","usage":{"prompt_tokens":1,"total_tokens":1}}`,
		`{"object":"list","data":[{"object":"embedding","embedding":"AACAPwAAIMA=","index":0}],"model":"real","usage":{"prompt_tokens":1,"total_tokens":1}}`
	public := func(answer string) string { return strings.Replace(answer, "real", "m", 1) }
	for name, test := range map[string]struct {
		format, reply, want string
		code                schemas.Code
	}{
		"floats":                     {``, floats, public(floats), ""},
		"floats, said so":            {`,"encoding_format":"float"`, floats, public(floats), ""},
		"base64":                     {`,"encoding_format":"base64"`, base64, public(base64), ""},
		"a server that has floats":   {`,"encoding_format":"base64"`, floats, public(base64), ""},
		"a server that has base64":   {``, base64, public(floats), ""},
		"several lines, null error":  {``, strings.Replace(floats, `{`, "{\n\"error\": null, ", 1), public(floats), ""},
		"an error object":            {``, `{"error":{"message":"x","code":"rate_limit_exceeded"}}`, "", schemas.CodeRateLimit},
		"no vectors":                 {``, `{"object":"list","data":[]}`, "", schemas.CodeUpstreamError},
		"no list":                    {``, openaitest.Response("x"), "", schemas.CodeUpstreamError},
		"damaged base64":             {``, strings.Replace(base64, "AACA", "A", 1), "", schemas.CodeUpstreamError},
		"a web page":                 {``, "<html>", "", schemas.CodeUpstreamError},
		"a refusal":                  {``, "", "", schemas.CodeUpstreamRejected},
		"a vector that is no vector": {``, `{"data":[{"embedding":{}}]}`, "", schemas.CodeUpstreamError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dials := openaitest.Dials{Body: test.reply}
			if test.reply == "" {
				dials = openaitest.Dials{Status: 400, Body: `{"error":{"message":"dimensions"}}`}
			}
			b, upstream := start(t, openai.Config{Model: "real"}, dials)
			r := request(`{"model":"m","input":["a"]` + test.format + `}`)
			r.Op, r.Header = schemas.OpEmbedding, schemas.Header{"traceparent": {"00-a-b-01"}}
			got, err := b.Embed(t.Context(), r)
			if test.code != "" {
				if err == nil || schemas.AsError(err).Code != test.code {
					t.Errorf("%s, %v; want %s", got, err, test.code)
				}
				return
			}
			if err != nil || string(got) != test.want {
				t.Errorf("%v\n got %s\nwant %s", err, got, test.want)
			}
			sent := upstream.Requests()[0]
			if sent.Path != "/v1/embeddings" || sent.Body != `{"model":"real","input":["a"]`+test.format+`}` || sent.Header.Get("Traceparent") != "00-a-b-01" {
				t.Errorf("the server got %+v", sent)
			}
		})
	}
}

package ollama_test

import (
	"strings"
	"testing"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/ollama"
	dialect "github.com/weir-llm/weir/internal/ollama"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	"github.com/weir-llm/weir/schemas"
)

func TestWhatTheServerGets(t *testing.T) {
	t.Parallel()
	upstream, url := serve(t, func(openaitest.Request) openaitest.Dials {
		return openaitest.Dials{Body: `{"message":{"role":"assistant","content":"a"},"done":true}`}
	})
	b := backend(t, ollama.Config{
		URL: url + "/", APIKey: "sk-1", Model: "real", Headers: map[string]string{"x-org": "org"}, Deterministic: true,
		Policy: dialect.Policy{KeepAlive: "10m", NumCtx: 4096},
	})
	if !b.Capabilities().Deterministic {
		t.Error("Deterministic is not what was configured")
	}
	for _, streamed := range []bool{true, false} {
		r := question(streamed, `,"max_tokens":5`)
		r.Header = schemas.Header{"traceparent": {"00-a-b-01"}, "Llm-Priority": {"batch"}, "Cookie": {"c"}}
		for _, err := range b.Generate(t.Context(), r) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	for i, accept := range []string{"application/x-ndjson", "application/json"} {
		got := upstream.Requests()[i]
		if got.Path != "/api/chat" {
			t.Errorf("the server was asked at %s", got.Path)
		}
		for _, part := range []string{`"model":"real"`, `"num_predict":5`, `"num_ctx":4096`, `"keep_alive":"10m"`, `"truncate":false`} {
			if !strings.Contains(got.Body, part) {
				t.Errorf("the server got %s, want %s in it", got.Body, part)
			}
		}
		for name, want := range map[string]string{
			"Authorization": "Bearer sk-1", "X-Org": "org", "Traceparent": "00-a-b-01", "Accept": accept, "Content-Type": "application/json", "Llm-Priority": "", "Cookie": "",
		} {
			if got := got.Header.Get(name); got != want {
				t.Errorf("header %s = %q, want %q", name, got, want)
			}
		}
	}
}

func TestConnectionsAreReused(t *testing.T) {
	t.Parallel()
	upstream, url := serve(t, func(openaitest.Request) openaitest.Dials {
		return openaitest.Dials{Pieces: []string{`{"message":{"role":"assistant","content":"a"}}` + "\n", `{"done":true}` + "\n"}}
	})
	b := backend(t, ollama.Config{URL: url})
	for range 10 {
		for _, err := range b.Generate(t.Context(), question(true, "")) {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
	// One, but for answers whose connection a busy server ended too late for the next call.
	if got := upstream.Connections(); got > 5 {
		t.Errorf("10 calls used %d connections", got)
	}
}

func TestWhatCannotBeAsked(t *testing.T) {
	t.Parallel()
	upstream, url := serve(t, func(openaitest.Request) openaitest.Dials { return openaitest.Dials{} })
	b := backend(t, ollama.Config{URL: url})
	for _, err := range b.Generate(t.Context(), question(true, `,"n":2`)) {
		if err == nil || schemas.AsError(err).Param != "n" {
			t.Errorf("error %v, want one about n", err)
		}
	}
	r := &inference.GenerateRequest{Op: schemas.OpEmbedding, Body: []byte(`{"model":"m","input":[1,2]}`)}
	if _, err := b.Embed(t.Context(), r); err == nil || schemas.AsError(err).Param != "input" {
		t.Errorf("error %v, want one about input", err)
	}
	if asked := upstream.Requests(); len(asked) > 0 {
		t.Errorf("the server was asked %v", asked)
	}
}

func TestEmbeddingsThatAreNone(t *testing.T) {
	t.Parallel()
	for name, reply := range map[string]string{"no vectors": `{"embeddings":[]}`, "no list": `{"embedding":[1]}`, "no numbers": `{"embeddings":["a"]}`, "a web page": "<html>"} {
		_, url := serve(t, func(openaitest.Request) openaitest.Dials { return openaitest.Dials{Body: reply} })
		r := &inference.GenerateRequest{Op: schemas.OpEmbedding, Body: []byte(`{"model":"m","input":"a"}`)}
		if data, err := backend(t, ollama.Config{URL: url}).Embed(t.Context(), r); err == nil || schemas.AsError(err).Code != schemas.CodeUpstreamError {
			t.Errorf("%s: %s, %v", name, data, err)
		}
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for says, config := range map[string]ollama.Config{
		"name": {URL: "http://a"}, "url is not": {Name: "a", URL: "a"}, "/v1": {Name: "a", URL: "http://a:11434/v1/"}, "/api": {Name: "a", URL: "http://a:11434/api"},
		"leave it away": {Name: "a", URL: "http://a/api/chat"}, "keep_alive": {Name: "a", URL: "http://a", Policy: dialect.Policy{KeepAlive: "10"}},
		"num_ctx": {Name: "a", URL: "http://a", Policy: dialect.Policy{NumCtx: -1}},
	} {
		if _, err := ollama.New(config); err == nil || !strings.Contains(err.Error(), says) {
			t.Errorf("error %v, want one about %q", err, says)
		}
	}
}

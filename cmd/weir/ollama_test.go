package main

import (
	"bufio"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai/openaitest"
)

// ollamaLines are an answer as Ollama writes it: a thought, two words and a call.
func ollamaLines() []string {
	const line = `{"model":"qwen3:8b","created_at":"2026-11-24T10:00:00.123456Z",%s}` + "\n"
	say := func(message string) string {
		return fmt.Sprintf(line, `"message":{"role":"assistant",`+message+`},"done":false`)
	}
	return []string{
		say(`"content":"","thinking":"Hm."`), say(`"content":"Hello"`), say(`"content":" world"`),
		say(`"content":"","tool_calls":[{"function":{"index":0,"name":"f","arguments":{"a":1}}}]`),
		fmt.Sprintf(line, `"message":{"role":"assistant","content":""},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":7`),
	}
}

// ollamaServer answers every endpoint that Weir calls. A question that says "wait" is answered with silence.
func ollamaServer(r openaitest.Request) openaitest.Dials {
	streamed := gjson.Get(r.Body, "stream").Bool()
	switch {
	case r.Path == "/api/tags":
		return openaitest.Dials{Body: `{"models":[{"name":"qwen3:8b","model":"qwen3:8b"}]}`}
	case r.Path == "/api/version":
		return openaitest.Dials{Body: `{"version":"0.17.4"}`}
	case r.Path == "/api/embed":
		return openaitest.Dials{Body: `{"model":"qwen3:8b","embeddings":[[1,-2.5]],"prompt_eval_count":2}`}
	case r.Path != "/api/chat":
		return openaitest.Dials{Status: http.StatusNotFound, Body: "404 page not found"}
	case strings.Contains(r.Body, "wait"):
		return openaitest.Dials{Pieces: ollamaLines(), Hold: 2}
	case strings.Contains(r.Body, "unknown"):
		return openaitest.Dials{Status: http.StatusNotFound, Body: `{"error":"model \"qwen3:8b\" not found, try pulling it first"}`}
	case streamed:
		return openaitest.Dials{Pieces: ollamaLines()}
	}
	return openaitest.Dials{Body: `{"model":"qwen3:8b","created_at":"2026-11-24T10:00:00Z","message":{"role":"assistant","content":"Hello world"},"done":true,"done_reason":"stop","prompt_eval_count":3,"eval_count":2}`}
}

// TestOllamaThroughThePipeline has a model on an Ollama server, by its own API, behind every door that can reach it.
func TestOllamaThroughThePipeline(t *testing.T) {
	t.Parallel()
	upstream := openaitest.Serve(ollamaServer)
	t.Cleanup(upstream.Close)
	serve := serveModel(t, fmt.Sprintf(
		"models:\n  m:\n    backends: [{name: up, protocol: ollama, url: %q, model: 'qwen3:8b', keep_alive: 10m, num_ctx: 8192}]\n    retry: {max_tries: 1}\n",
		strings.TrimSuffix(upstream.URL, "/v1")))

	const body = `{"model":"m","stream":true,"stream_options":{"include_usage":true},"max_tokens":50,"messages":[{"role":"user","content":"hi"}]}`
	streamed := serve.messages(t.Context(), t, "/v1/chat/completions", body)
	openaitest.CheckStream(t, streamed.body)
	said := readStream(t, strings.NewReader(streamed.body))
	if got := text(t, said); streamed.status != http.StatusOK || got != "Hello world" {
		t.Errorf("status %d, text %q: %s", streamed.status, got, streamed.body)
	}
	for _, want := range []string{`"reasoning_content":"Hm."`, `"arguments":"{\"a\":1}"`, `"finish_reason":"tool_calls"`, `"completion_tokens":7`, `"model":"m"`} {
		if !strings.Contains(streamed.body, want) {
			t.Errorf("the stream lacks %s:\n%s", want, streamed.body)
		}
	}
	asked := upstream.Requests()
	got := map[string]string{}
	for _, path := range []string{"model", "stream", "truncate", "keep_alive", "options.num_ctx", "options.num_predict"} {
		got[path] = gjson.Get(asked[len(asked)-1].Body, path).Raw
	}
	want := map[string]string{"model": `"qwen3:8b"`, "stream": "true", "truncate": "false", "keep_alive": `"10m"`, "options.num_ctx": "8192", "options.num_predict": "50"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the server was asked (-want +got):\n%s", diff)
	}

	whole := serve.messages(t.Context(), t, "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"hi"}]}`)
	if gjson.Get(whole.body, "choices.0.message.content").Str != "Hello world" || gjson.Get(whole.body, "usage.total_tokens").Int() != 5 {
		t.Errorf("unary: %d %s", whole.status, whole.body)
	}
	vectors := serve.messages(t.Context(), t, "/v1/embeddings", `{"model":"m","input":"hi"}`)
	if gjson.Get(vectors.body, "data.0.embedding").Raw != "[1,-2.5]" {
		t.Errorf("embeddings: %d %s", vectors.status, vectors.body)
	}
	message := serve.messages(t.Context(), t, "/v1/messages", `{"model":"m","max_tokens":9,"messages":[{"role":"user","content":"hi"}]}`)
	if gjson.Get(message.body, "content.0.text").Str != "Hello world" {
		t.Errorf("messages: %d %s", message.status, message.body)
	}
	refused := serve.messages(t.Context(), t, "/v1/chat/completions", `{"model":"m","messages":[{"role":"user","content":"unknown"}]}`)
	if refused.status != http.StatusNotFound || gjson.Get(refused.body, "error.code").Str != "model_not_found" {
		t.Errorf("refused: %d %s", refused.status, refused.body)
	}
	owner := serve.messages(t.Context(), t, "/v1/chat/completions", `{"model":"m","keep_alive":0,"messages":[{"role":"user","content":"hi"}]}`)
	if owner.status != http.StatusBadRequest || gjson.Get(owner.body, "error.param").Str != "keep_alive" {
		t.Errorf("a caller sets what is the operator's: %d %s", owner.status, owner.body)
	}

	held := serve.post(t, strings.Replace(body, "hi", "wait", 1), "Llm-Request-Id", "waits")
	firstEvent(t, bufio.NewReader(held.Body))
	cancelled := serve.messages(t.Context(), t, "/v1/streams/waits/cancel", "")
	select {
	case <-upstream.Gone():
	case <-time.After(time.Minute):
		t.Errorf("the model runs on after %d %s", cancelled.status, cancelled.body)
	}
}

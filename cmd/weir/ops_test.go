package main

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/schemas"
)

const (
	completionBody = `{"model":"echo","prompt":"one two","stream":true,"stream_options":{"include_usage":true}}`
	embeddingBody  = `{"model":"echo","input":["one","two"],"dimensions":4}`
)

// TestOps asks a server without any configuration for everything that is no chat, by both doors, and finds it again in the
// log, in the result and in the database.
func TestOps(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serve := start(t, nil, "serve", "--data-dir", dir, "--nats", "127.0.0.1:0")
	ask := func(path, body, id string) (string, *http.Response) {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+serve.HTTP+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(schemas.HeaderRequestID, id)
		response, err := caller().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = response.Body.Close() }()
		got, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != http.StatusOK {
			t.Fatalf("%s: status %d, %v: %s", path, response.StatusCode, err, got)
		}
		return string(got), response
	}

	streamed, _ := ask("/v1/completions", completionBody, "completion")
	var said strings.Builder
	events := readStream(t, strings.NewReader(streamed))
	for _, event := range events[:len(events)-1] {
		if gjson.Get(event, "object").Str != "text_completion" {
			t.Errorf("event %s", event)
		}
		said.WriteString(gjson.Get(event, "choices.0.text").Str)
	}
	if usage := gjson.Get(events[len(events)-2], "usage.total_tokens").Int(); said.String() != "echo: one two" || usage != 5 || events[len(events)-1] != "[DONE]" {
		t.Errorf("%q, %d tokens: %s", said.String(), usage, streamed)
	}
	embedded, response := ask("/v1/embeddings", embeddingBody, "embedding")
	if gjson.Get(embedded, "data.#").Int() != 2 || gjson.Get(embedded, "data.1.embedding.#").Int() != 4 || response.Header.Get("Content-Type") != "application/json" {
		t.Errorf("embeddings %s", embedded)
	}
	if status, body := get(t, "http://"+serve.HTTP+"/v1/models/echo"); status != http.StatusOK || gjson.Get(body, "id").Str != "echo" {
		t.Errorf("model: %d %s", status, body)
	}
	byNATS := askByNATS(t, serve)
	if diff := cmp.Diff([]string{said.String(), embedded}, byNATS); diff != "" {
		t.Errorf("over NATS (-HTTP +NATS):\n%s", diff)
	}

	_, completion := replayed(t, "completion", "--data-dir", dir)
	if diff := cmp.Diff(events[:len(events)-1], completion); diff != "" {
		t.Errorf("replay of the completion (-seen +replayed):\n%s", diff)
	}
	_, embedding := replayed(t, "embedding", "--data-dir", dir)
	if diff := cmp.Diff([]string{embedded}, embedding); diff != "" {
		t.Errorf("replay of the embedding (-seen +replayed):\n%s", diff)
	}
	if again, response := ask("/v1/embeddings", embeddingBody, "embedding"); again != embedded || response.Header.Get(schemas.HeaderIdempotentReplayed) != "true" {
		t.Errorf("the same id again: %s, %v", again, response.Header)
	}
	if err := serve.end(t); err != nil { // flushes the sink
		t.Fatal(err)
	}
	for id, want := range map[string][]string{"completion": completion, "embedding": embedding} {
		if _, kept := replayed(t, id, "--data-dir", dir, "--nats", "nats://127.0.0.1:1"); !cmp.Equal(want, kept) {
			t.Errorf("%s: the database tells %q, the log %q", id, kept, want)
		}
	}
}

// askByNATS publishes the two requests as a trusted service does, and returns the text and the vectors.
func askByNATS(t *testing.T, serve *process) (answers []string) {
	t.Helper()
	c, err := client.Connect(t.Context(), client.Config{URL: serve.NATS})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	for _, r := range []client.Request{
		{Op: schemas.OpCompletion, Body: []byte(completionBody), ID: "completion-nats"}, {Op: schemas.OpEmbedding, Body: []byte(embeddingBody), ID: "embedding-nats"},
	} {
		var answer strings.Builder
		for event, err := range c.Stream(t.Context(), r) {
			if err != nil {
				t.Fatal(err)
			}
			if r.Op == schemas.OpCompletion {
				answer.WriteString(gjson.GetBytes(event.Data, "choices.0.text").Str)
			} else {
				answer.WriteString(string(event.Data))
			}
		}
		result, err := c.Wait(t.Context(), "", r.ID)
		if err != nil || result.Op != r.Op || result.Status != schemas.StatusCompleted || result.Usage == nil || result.Usage.PromptTokens != 2 {
			t.Errorf("result %+v, %v", result, err)
		}
		answers = append(answers, answer.String())
	}
	return answers
}

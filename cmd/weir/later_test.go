package main

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-llm/weir/client"
	"github.com/weir-llm/weir/schemas"
)

// A model server is down. Who cannot wait is told so at once; a batch request waits, and is answered when it is back.
func TestBatchRequestOutlivesAnOutage(t *testing.T) {
	t.Parallel()
	var up atomic.Bool
	var calls atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		calls.Add(1)
		if _, err := io.Copy(io.Discard, r.Body); err != nil || !up.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"at last"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":2,"total_tokens":3}}`)
	}))
	t.Cleanup(server.Close)
	serve := serveModel(t, fmt.Sprintf("models:\n  m:\n    backends: [{name: up, protocol: openai, url: %q}]\n    retry: {max_tries: 1, initial: 10ms, max: 100ms}\n", server.URL))
	nats, err := client.Connect(t.Context(), client.Config{URL: serve.NATS})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = nats.Close() })
	const body = `{"model":"m","messages":[{"role":"user","content":"hi"}]}`
	if r := serve.post(t, body, schemas.HeaderPriority, "interactive"); r.StatusCode < http.StatusInternalServerError {
		t.Errorf("who cannot wait is told %s", r.Status)
	}
	before := calls.Load()
	answer := make(chan string, 1)
	go func() {
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+serve.HTTP+"/v1/chat/completions", strings.NewReader(body))
		if err != nil {
			answer <- err.Error()
			return
		}
		r.Header.Set("Content-Type", "application/json")
		r.Header.Set(schemas.HeaderPriority, "batch")
		r.Header.Set(schemas.HeaderRequestID, "patient")
		response, err := caller().Do(r)
		if err != nil {
			answer <- err.Error()
			return
		}
		defer response.Body.Close()
		data, err := io.ReadAll(response.Body)
		answer <- fmt.Sprint(response.StatusCode, string(data), err)
	}()
	becomes(t, "two more calls of the model server", func() bool { return calls.Load() >= before+2 })
	up.Store(true)
	select {
	case got := <-answer:
		if !strings.Contains(got, "at last") {
			t.Errorf("got %s", got)
		}
	case <-time.After(2 * time.Minute):
		t.Fatal("no answer")
	}
	result, err := nats.Wait(t.Context(), "default", "patient")
	if err != nil || result.Status != schemas.StatusCompleted || result.Dispatch < 3 || result.Attempts != result.Dispatch {
		t.Errorf("%s by dispatch %d after %d attempts: %v", result.Status, result.Dispatch, result.Attempts, err)
	}
}

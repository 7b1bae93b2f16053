package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"reflect"
	"sync"
)

// suiteModels are the models that the own tests of openai-go name.
func suiteModels() []string {
	return []string{"gpt-6-astra", "gpt-3.5-turbo-instruct", "text-embedding-3-small"}
}

// suiteTests are those of its tests that concern what Weir has. Each sends every optional member there is.
const suiteTests = "^(TestChatCompletionNewWithOptionalParams|TestCompletionNewWithOptionalParams|TestEmbeddingNewWithOptionalParams|TestModelList|TestModelGet)$"

// suite runs the tests that openai-go is developed with against the server, and sees that every member they send arrives
// at the model server.
type suite struct {
	*scripted
	program string

	mu   sync.Mutex
	sent []map[string]any
}

func (u *suite) check(ctx context.Context) error {
	target, err := url.Parse(u.http)
	if err != nil {
		return err
	}
	proxy := &httputil.ReverseProxy{Rewrite: func(r *httputil.ProxyRequest) { r.SetURL(target) }}
	shim := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if err := u.prepare(r); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		proxy.ServeHTTP(w, r)
	}))
	defer shim.Close()
	command := exec.CommandContext(ctx, u.program, "-test.run", suiteTests, "-test.v", "-test.count", "1")
	command.Env = append(command.Environ(), "TEST_API_BASE_URL="+shim.URL+"/v1")
	printed, err := command.CombinedOutput()
	if passed := bytes.Count(printed, []byte("--- PASS: ")); err != nil || passed != 5 {
		return fmt.Errorf("%d tests passed, want 5: %w\n%s", passed, err, printed)
	}
	return u.compare()
}

// prepare takes out of a body what the tests send for the sake of sending it and no server takes: limits of 0 tokens, and
// options of a stream without one.
func (u *suite) prepare(r *http.Request) error {
	data, err := io.ReadAll(r.Body)
	if err != nil || len(data) == 0 {
		return err
	}
	var body map[string]any
	if err := json.Unmarshal(data, &body); err != nil {
		return err
	}
	delete(body, "stream_options")
	for _, limit := range []string{"max_tokens", "max_completion_tokens"} {
		if body[limit] == float64(0) {
			delete(body, limit)
		}
	}
	u.mu.Lock()
	u.sent = append(u.sent, body)
	u.mu.Unlock()
	if data, err = json.Marshal(body); err != nil {
		return err
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(data)), int64(len(data))
	return nil
}

// compare finds each body at the model server, less the one member that is the operator's.
func (u *suite) compare() error {
	for _, sent := range u.sent {
		delete(sent, "service_tier")
		found := false
		for _, r := range u.upstream.Requests() {
			var got map[string]any
			found = found || json.Unmarshal([]byte(r.Body), &got) == nil && reflect.DeepEqual(sent, got)
		}
		if !found {
			return fmt.Errorf("the model server did not get %v", sent)
		}
	}
	if len(u.sent) != 3 {
		return fmt.Errorf("the tests sent %d bodies, want 3", len(u.sent))
	}
	return nil
}

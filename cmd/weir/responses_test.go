package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"syscall"
	"testing"
	"time"
)

// startServe starts the program on a store, with a model that does one thing at a time.
func startServe(t *testing.T, dir string) *program {
	t.Helper()
	config := writeConfig(t, "models: {echo: {backends: [{name: echo, protocol: echo, max_in_flight: 1}]}}")
	serve := startProgram(t, "serve", "--config", config, "--data-dir", dir, "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--admin", "off")
	serve.HTTP = strings.TrimPrefix(strings.Fields(serve.stderr.wait(t, "weir serve is ready: "))[4], "http://")
	return serve
}

// responseState is what these tests read of a response.
type responseState struct {
	ID, Status string
	CreatedAt  float64 `json:"created_at"`
	Metadata   map[string]string
	Output     []struct{ Content []struct{ Text string } }
}

func (r responseState) text() string {
	if len(r.Output) == 0 {
		return ""
	}
	return r.Output[0].Content[0].Text
}

func (p *process) respond(t *testing.T, body string) (r responseState) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.HTTP+"/v1/responses", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	answer, err := caller().Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err != nil || answer.StatusCode != http.StatusOK || json.Unmarshal(text, &r) != nil {
		t.Fatalf("%d %s, %v", answer.StatusCode, text, err)
	}
	return r
}

func (p *process) retrieve(t *testing.T, id string) (r responseState) {
	t.Helper()
	status, text := get(t, "http://"+p.HTTP+"/v1/responses/"+id)
	if status != http.StatusOK || json.Unmarshal([]byte(text), &r) != nil {
		t.Fatalf("%d %s", status, text)
	}
	return r
}

// await polls a response until the condition holds.
func (p *process) await(t *testing.T, id, what string, condition func(responseState) bool) responseState {
	t.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; <-time.After(20 * time.Millisecond) {
		r := p.retrieve(t, id)
		if condition(r) {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatalf("not within two minutes: %s: %+v", what, r)
		}
	}
}

// TestBackgroundResponseSurvivesKill kills all of Weir in the middle of a background response, with another one waiting.
// After the next start both go on, and the events that were are the same.
func TestBackgroundResponseSurvivesKill(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	serve := startServe(t, dir)
	whole := serve.respond(t, `{"model":"echo","input":"done before"}`)
	long := serve.respond(t, `{"model":"echo","input":"one two three","temperature":0,"background":true,"metadata":{"k":"v"},"x_echo":{"tokens":120,"interval_ms":75}}`)
	if long.Status != "queued" {
		t.Errorf("created as %+v", long)
	}
	queued := serve.respond(t, `{"model":"echo","input":"and then this","background":true,"metadata":{"k":"queued"}}`)
	serve.await(t, long.ID, "half of it", func(r responseState) bool { return len(r.text()) > 100 })
	before := firstEvents(t, serve.HTTP, long.ID, 8)
	if got := serve.retrieve(t, queued.ID); got.Status != "queued" || got.Metadata["k"] != "queued" {
		t.Errorf("what waits is %+v", got)
	}
	serve.signal(t, syscall.SIGKILL)
	serve.exit(t, time.Minute)

	serve = startServe(t, dir)
	if got := serve.retrieve(t, whole.ID); got.text() != "echo: done before" || got.CreatedAt != whole.CreatedAt {
		t.Errorf("what was done before the kill is now %+v", got)
	}
	end := serve.await(t, long.ID, "its end", func(r responseState) bool { return r.Status != "queued" && r.Status != "in_progress" })
	if end.Status != "completed" || end.text() != strings.Repeat("echo: one two three", 30) || end.Metadata["k"] != "v" || end.CreatedAt != long.CreatedAt {
		t.Errorf("it ended as %+v", end)
	}
	if got := serve.await(t, queued.ID, "the end of what waited", func(r responseState) bool { return r.Status == "completed" }); got.text() != "echo: and then this" ||
		got.Metadata["k"] != "queued" || got.CreatedAt != queued.CreatedAt {
		t.Errorf("what waited ended as %+v", got)
	}
	_, all := get(t, "http://"+serve.HTTP+"/v1/responses/"+long.ID+"?stream=true")
	if !strings.HasPrefix(all, before) {
		t.Errorf("the first events were\n%s\nand are\n%.3000s", before, all)
	}
	for _, from := range []string{"0", "7", "60"} {
		_, tail := get(t, "http://"+serve.HTTP+"/v1/responses/"+long.ID+"?stream=true&starting_after="+from)
		if tail == "" || !strings.HasSuffix(all, tail) || !strings.Contains(tail, "event: response.completed\n") {
			t.Errorf("behind %s: %.300s", from, tail)
		}
	}
	serve.signal(t, syscall.SIGTERM)
	serve.exit(t, time.Minute)
}

// firstEvents reads n events of a response and leaves.
func firstEvents(t *testing.T, host, id string, n int) string {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+host+"/v1/responses/"+id+"?stream=true", nil)
	if err != nil {
		t.Fatal(err)
	}
	answer, err := caller().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	var text strings.Builder
	for lines := bufio.NewReader(answer.Body); n > 0; {
		line, err := lines.ReadString('\n')
		if err != nil {
			t.Fatalf("%v after %s", err, text.String())
		}
		if text.WriteString(line); line == "\n" {
			n--
		}
	}
	return text.String()
}

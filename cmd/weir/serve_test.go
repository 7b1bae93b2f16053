package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/nats-io/nats.go"
)

// caller is an HTTP client that keeps no connection, so that none outlives its test.
func caller() *http.Client { return &http.Client{Transport: &http.Transport{DisableKeepAlives: true}} }

// post sends a chat request and returns the response, whose body the test closes.
func (p *process) post(t *testing.T, body string, header ...string) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://"+p.HTTP+"/v1/chat/completions", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	for i := 0; i+1 < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	response, err := caller().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response
}

// get returns the status and the body of a URL.
func get(t *testing.T, url string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := caller().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	return response.StatusCode, string(body)
}

func chat(prompt, more string) string {
	return fmt.Sprintf(`{"model":"echo","messages":[{"role":"user","content":%q}]%s}`, prompt, more)
}

// readStream reads SSE to its end and returns the data of the events.
func readStream(t *testing.T, body io.Reader) (data []string) {
	t.Helper()
	scanner := bufio.NewScanner(body)
	for scanner.Scan() {
		if text, ok := strings.CutPrefix(scanner.Text(), "data: "); ok {
			data = append(data, text)
		}
	}
	if err := scanner.Err(); err != nil {
		t.Fatalf("the stream broke after %d events: %v", len(data), err)
	}
	return data
}

// text is the content of chat.completion.chunk events.
func text(t *testing.T, events []string) string {
	t.Helper()
	var content strings.Builder
	for _, event := range events {
		var chunk struct {
			Choices []struct{ Delta struct{ Content string } }
		}
		if event == "[DONE]" {
			continue
		}
		if err := json.Unmarshal([]byte(event), &chunk); err != nil {
			t.Fatalf("event %q: %v", event, err)
		}
		for _, choice := range chunk.Choices {
			content.WriteString(choice.Delta.Content)
		}
	}
	return content.String()
}

// TestServe drives the program as its users do: serve, then everything that can be asked of it.
func TestServe(t *testing.T) {
	dir := t.TempDir()
	began := time.Now()
	serve := start(t, nil, "serve", "--data-dir", dir, "--nats", "127.0.0.1:0")
	t.Logf("ready after %s", time.Since(began))

	t.Run("admin", func(t *testing.T) {
		for path, want := range map[string]string{"/livez": "ok\n", "/readyz": "ok\n", "/metrics": "go_goroutines", "/debug/pprof/": "goroutine"} {
			if status, body := get(t, "http://"+serve.Admin+path); status != 200 || !strings.Contains(body, want) {
				t.Errorf("%s = %d %.80s", path, status, body)
			}
		}
	})
	t.Run("unary", func(t *testing.T) {
		response := serve.post(t, chat("hello", ""))
		body, err := io.ReadAll(response.Body)
		if err != nil || response.StatusCode != 200 || !strings.Contains(string(body), `"content":"echo: hello"`) {
			t.Errorf("answer = %d %s, %v", response.StatusCode, body, err)
		}
	})
	t.Run("stream", func(t *testing.T) {
		events := readStream(t, serve.post(t, chat("hello again", `,"stream":true`)).Body)
		if got := text(t, events); got != "echo: hello again" || events[len(events)-1] != "[DONE]" {
			t.Errorf("content = %q of %q", got, events)
		}
	})
	t.Run("ask, tail and replay", func(t *testing.T) { testCommands(t, dir) })
	t.Run("prompt from stdin", func(t *testing.T) {
		out, _, err := callWith(t, nil, strings.NewReader("piped"), "ask", "-", "--data-dir", dir)
		if err != nil || out != "echo: piped\n" {
			t.Errorf("ask = %q, %v", out, err)
		}
	})
	t.Run("events as they are", func(t *testing.T) {
		out, _, err := call(t, "ask", "raw", "--json", "--nats", serve.NATS)
		if err != nil || text(t, strings.Split(strings.TrimSpace(out), "\n")) != "echo: raw" {
			t.Errorf("ask --json = %q, %v", out, err)
		}
	})
	t.Run("NATS service", func(t *testing.T) { testService(t, serve.NATS) })
	t.Run("second serve on the store", func(t *testing.T) {
		_, _, err := call(t, "serve", "--data-dir", dir, "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--admin", "off")
		if err == nil || !strings.Contains(err.Error(), "is in use by another weir") {
			t.Errorf("error = %v", err)
		}
	})
	t.Run("no model of that name", func(t *testing.T) {
		_, _, err := call(t, "ask", "x", "--model", "nope", "--data-dir", dir)
		if err == nil || !strings.Contains(err.Error(), "model_not_found") {
			t.Errorf("error = %v", err)
		}
	})
	if err := serve.end(t); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// testService asks the service of an open serve, as anybody on this machine may.
func testService(t *testing.T, url string) {
	nc, err := nats.Connect(url, nats.Timeout(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer nc.Close()
	inbox, err := nc.SubscribeSync(nc.NewInbox())
	if err != nil {
		t.Fatal(err)
	}
	if err := nc.PublishRequest("llm.chat.default.echo", inbox.Subject, []byte(`{"stream":true,"messages":[{"role":"user","content":"by NATS"}]}`)); err != nil {
		t.Fatal(err)
	}
	var events []string
	for {
		msg, err := inbox.NextMsg(time.Minute)
		if err != nil {
			t.Fatalf("after %q: %v", events, err)
		}
		if len(msg.Data) == 0 {
			break
		}
		events = append(events, strings.Split(string(msg.Data), "\n")...)
	}
	if got := text(t, events); got != "echo: by NATS" {
		t.Errorf("content = %q of %q", got, events)
	}
	info, err := nc.Request("$SRV.INFO.weir", nil, time.Minute)
	if err != nil || !strings.Contains(string(info.Data), `"subject":"llm.chat.*.*"`) {
		t.Errorf("info = %v, %v", info, err)
	}
}

func testCommands(t *testing.T, dir string) {
	tail := begin(t, nil, "tail", "--data-dir", dir, "--since", "1h")
	tail.stdout.wait(t, "default/") // those of before have been told, so it listens
	out, id, err := call(t, "ask", "what is a weir?", "--data-dir", dir)
	if err != nil || out != "echo: what is a weir?\n" {
		t.Fatalf("ask = %q, %v", out, err)
	}
	id = strings.TrimSpace(id)
	if line := tail.stdout.wait(t, id); !strings.Contains(line, "completed") || !strings.Contains(line, "echo") {
		t.Errorf("tail said %q", line)
	}
	if err := tail.end(t); err != nil {
		t.Errorf("tail: %v", err)
	}

	told, _, err := call(t, "replay", id, "--data-dir", dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{id + "  echo  completed", "frame by frame", "start     attempt 1, fresh", `"echo: what is a weir?"`, "completed (stop)"} {
		if !strings.Contains(told, want) {
			t.Errorf("replay does not say %q:\n%s", want, told)
		}
	}
	all, _, err := call(t, "replay", "--since", "1h", "--data-dir", dir)
	if err != nil || !strings.Contains(all, told) || strings.Count(all, "frame by frame") < 3 {
		t.Errorf("replay of all = %v\n%s", err, all)
	}
	if _, _, err := call(t, "replay", "nobody-sent-this", "--data-dir", dir); err == nil || !strings.Contains(err.Error(), "is not known") {
		t.Errorf("error = %v", err)
	}
}

// frame is what replay --json prints.
type frame struct {
	Source  string
	Kind    string
	Attempt int
	Index   int
	Count   int
	Time    time.Time
	Events  []json.RawMessage
}

func replayed(t *testing.T, args ...string) (frames []frame, events []string) {
	t.Helper()
	out, _, err := call(t, append([]string{"replay", "--json"}, args...)...)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out) {
		var f frame
		if err := json.Unmarshal([]byte(line), &f); err != nil {
			t.Fatalf("%v in %s", err, line)
		}
		frames = append(frames, f)
		for _, event := range f.Events {
			events = append(events, string(event))
		}
	}
	return frames, events
}

// TestReplayFromTheDatabase checks that what the database tells is what the log told, event for event.
func TestReplayFromTheDatabase(t *testing.T) {
	dir := t.TempDir()
	serve := start(t, nil, "serve", "--data-dir", dir, "--nats", "127.0.0.1:0")
	streamed := readStream(t, serve.post(t, chat("one two three four", `,"stream":true,"x_echo":{"interval_ms":5}`), "Llm-Request-Id", "r-stream").Body)
	serve.post(t, chat("unary", ""), "Llm-Request-Id", "r-unary")
	frames, fromLog := replayed(t, "r-stream", "--data-dir", dir)
	unaryFrames, unaryFromLog := replayed(t, "r-unary", "--data-dir", dir)
	if diff := cmp.Diff(text(t, streamed), text(t, fromLog)); diff != "" {
		t.Errorf("the log tells something else than the caller saw:\n%s", diff)
	}
	if frames[0].Source != "frames" || unaryFrames[0].Source != "frames" {
		t.Errorf("source = %q, %q", frames[0].Source, unaryFrames[0].Source)
	}
	if err := serve.end(t); err != nil { // flushes the sink
		t.Fatal(err)
	}

	for id, want := range map[string][]string{"r-stream": fromLog, "r-unary": unaryFromLog} {
		told, events := replayed(t, id, "--data-dir", dir, "--nats", "nats://127.0.0.1:1")
		if diff := cmp.Diff(want, events); diff != "" {
			t.Errorf("%s: the database tells something else than the log (-log +database):\n%s", id, diff)
		}
		if told[0].Source != "events" || told[len(told)-1].Kind != "end" {
			t.Errorf("%s: frames = %+v", id, told)
		}
	}
	fromDatabase, _ := replayed(t, "r-stream", "--data-dir", dir, "--nats", "nats://127.0.0.1:1")
	if diff := cmp.Diff(shape(frames), shape(fromDatabase)); diff != "" {
		t.Errorf("the grouping of events differs (-log +database):\n%s", diff)
	}
	_, stderr, err := call(t, "replay", "--since", "1h", "--data-dir", dir, "--nats", "nats://127.0.0.1:1", "--pace", "1000")
	if err != nil || !strings.Contains(stderr, "reading the database alone") {
		t.Errorf("replay = %q, %v", stderr, err)
	}
	_, _, err = call(t, "replay", "r-stream", "--data-dir", filepath.Join(dir, "none"), "--nats", "nats://127.0.0.1:1")
	if err == nil || !strings.Contains(err.Error(), "neither the log nor the database") {
		t.Errorf("error = %v", err)
	}
}

// shape is how events were grouped into delta frames.
func shape(frames []frame) (counts []string) {
	for _, f := range frames {
		if f.Kind == "delta" {
			counts = append(counts, fmt.Sprintf("attempt %d: %d from %d", f.Attempt, f.Count, f.Index))
		}
	}
	return counts
}

const slowly = `,"stream":true,"temperature":0,"x_echo":{"tokens":60,"interval_ms":100}`

func TestGracefulStopFinishesStreams(t *testing.T) {
	t.Parallel()
	serve := start(t, nil, "serve", "--data-dir", t.TempDir(), "--nats", "127.0.0.1:0")
	body := bufio.NewReader(serve.post(t, chat("a b c d e f", slowly)).Body)
	first := firstEvent(t, body)
	serve.stop()
	serve.stderr.wait(t, `"msg":"stopping"`)
	if status, text := get(t, "http://"+serve.Admin+"/readyz"); status != 503 || !strings.Contains(text, "stopping") {
		t.Errorf("readyz while stopping = %d %q", status, text)
	}
	events := append([]string{first}, readStream(t, body)...)
	if events[len(events)-1] != "[DONE]" || len(events) < 60 {
		t.Errorf("a stream in flight ended with %q after %d events", events[len(events)-1], len(events))
	}
	if err := serve.end(t); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func firstEvent(t *testing.T, body *bufio.Reader) string {
	t.Helper()
	for {
		line, err := body.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		if text, ok := strings.CutPrefix(line, "data: "); ok {
			return strings.TrimSuffix(text, "\n")
		}
	}
}

// TestStopBeforeTheEndResumes stops before a stream can finish: its caller is told, and the next serve goes on with it.
func TestStopBeforeTheEndResumes(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	env := []string{"WEIR_DRAIN_TIMEOUT=1s"}
	serve := start(t, env, "serve", "--data-dir", dir, "--nats", "127.0.0.1:0")
	const long = `,"stream":true,"temperature":0,"x_echo":{"tokens":300,"interval_ms":20}`
	body := bufio.NewReader(serve.post(t, chat("a b c d e f", long), "Llm-Request-Id", "cut").Body)
	seen := []string{firstEvent(t, body)}
	serve.stop()
	seen = append(seen, readStream(t, body)...)
	if last := seen[len(seen)-1]; !strings.Contains(last, `"code":"server_shutdown"`) {
		t.Errorf("the caller was told %q", last)
	}
	serve.end(t)

	again := start(t, nil, "serve", "--data-dir", dir, "--nats", "127.0.0.1:0")
	events := readStream(t, resume(t, again, "cut"))
	whole := text(t, events)
	if events[len(events)-1] != "[DONE]" || !strings.HasPrefix(whole, text(t, seen[:len(seen)-1])) {
		t.Errorf("after the restart: %d events, last %q", len(events), events[len(events)-1])
	}
	if err := again.end(t); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func resume(t *testing.T, p *process, id string) io.Reader {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.HTTP+"/v1/streams/"+id, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := caller().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	return response.Body
}

func TestAskIsCancelledByCtrlC(t *testing.T) {
	dir := t.TempDir()
	config := writeConfig(t, "models: {echo: {backends: [{name: slow, protocol: echo, echo: {tokens: 1000, interval_ms: 20}}]}}")
	serve := start(t, nil, "serve", "--data-dir", dir, "--nats", "127.0.0.1:0", "--config", config)
	ask := begin(t, nil, "ask", "endless", "--json", "--data-dir", dir)
	id := strings.TrimSpace(ask.stderr.wait(t, "default/"))
	ask.stdout.wait(t, "chat.completion.chunk")
	if err := ask.end(t); exitCode(err) != 130 {
		t.Errorf("ask ended with %v", err)
	}
	told, _, err := call(t, "replay", id, "--data-dir", dir)
	if err != nil || !strings.Contains(told, "request_cancelled") {
		t.Errorf("replay = %v\n%s", err, told)
	}
	if err := serve.end(t); err != nil {
		t.Errorf("stop: %v", err)
	}
}

// TestStagesAlone runs each stage as a program of its own on a server that is another's, here that of a serve.
func TestStagesAlone(t *testing.T) {
	host := start(t, nil, "serve", "--data-dir", t.TempDir(), "--nats", "127.0.0.1:0")
	dir := t.TempDir()
	var stages []*process
	for _, stage := range flow() {
		stages = append(stages, start(t, nil, stage, "--nats", host.NATS, "--data-dir", dir))
	}
	events := readStream(t, stages[0].post(t, chat("in pieces", `,"stream":true`)).Body)
	if got := text(t, events); got != "echo: in pieces" {
		t.Errorf("content = %q", got)
	}
	for i, stage := range stages {
		if status, body := get(t, "http://"+stage.Admin+"/readyz"); status != 200 {
			t.Errorf("%s: readyz = %d %s", flow()[i], status, body)
		}
		if err := stage.end(t); err != nil {
			t.Errorf("stop %s: %v", flow()[i], err)
		}
	}
	if err := host.end(t); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestKeysOpenTheDoor(t *testing.T) {
	config := writeConfig(t, "keys: [{id: k, tenant: acme, sha256: "+someHash+"}]") // of the key "x"
	dir := t.TempDir()
	serve := start(t, nil, "serve", "--data-dir", dir, "--nats", "127.0.0.1:0", "--config", config)
	if response := serve.post(t, chat("hello", "")); response.StatusCode != http.StatusUnauthorized {
		t.Errorf("without a key: %d", response.StatusCode)
	}
	if response := serve.post(t, chat("hello", ""), "Authorization", "Bearer x"); response.StatusCode != 200 {
		t.Errorf("with the key: %d", response.StatusCode)
	}
	if _, _, err := call(t, "ask", "x", "--nats", serve.NATS); err == nil {
		t.Error("NATS is open in spite of a key")
	}
	if out, _, err := call(t, "ask", "operator", "--tenant", "acme", "--data-dir", dir); err != nil || out != "echo: operator\n" {
		t.Errorf("with the operator's context: %q, %v", out, err)
	}
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	relative, err := filepath.Rel(here, filepath.Join(dir, "nats", "context", "weir.json"))
	if err != nil {
		t.Fatal(err)
	}
	if out, _, err := call(t, "ask", "by name", "--tenant", "acme", "--context", relative); err != nil || out != "echo: by name\n" {
		t.Errorf("with --context %s: %q, %v", relative, out, err)
	}
	if err := serve.end(t); err != nil {
		t.Errorf("stop: %v", err)
	}
}

func TestClearErrorsWithoutServer(t *testing.T) {
	for _, args := range [][]string{{"ask", "x"}, {"tail"}, {"router"}} {
		_, _, err := call(t, append(args, "--nats", "nats://user:hunter2@127.0.0.1:1", "--data-dir", t.TempDir())...)
		if err == nil || !strings.Contains(err.Error(), "connect to NATS at nats://127.0.0.1:1") || strings.Contains(err.Error(), "hunter2") {
			t.Errorf("weir %v: %v", args, err)
		}
	}
}

func TestStoppedWhileStarting(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	err := run(ctx, []string{"serve", "--data-dir", t.TempDir(), "--http", "127.0.0.1:0", "--nats", "127.0.0.1:0", "--admin", "off"},
		testEnvironment(), strings.NewReader(""), io.Discard, io.Discard)
	if err != nil {
		t.Errorf("error = %v", err)
	}
}

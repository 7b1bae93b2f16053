package main

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai/openaitest"
)

// silence is how long a model server stays silent at a \pause, and patience after which the door says something.
const (
	silence  = 2 * time.Second
	patience = 100 * time.Millisecond
)

// scenario is a golden file: what a caller sends, what the model server gets, what it answers, and what the caller gets,
// with prose in front that says why.
type scenario struct {
	name, prose string
	request     string // a line with method and path, header lines, a blank line, the body
	gets        string // of the model server: the path and the body, or nothing
	upstream    string // optional lines with status and headers, a blank line, and the bytes
	client      string // status, headers, a blank line, and the bytes
}

// dialectServer is `weir serve` with a model for each scenario, all on one model server.
func dialectServer(t *testing.T, scenarios map[string]*scenario) (*process, *openaitest.Upstream) {
	upstream := openaitest.Serve(func(r openaitest.Request) openaitest.Dials {
		return scenarios[gjson.Get(r.Body, "model").Str].dials()
	})
	t.Cleanup(upstream.Close)
	var config strings.Builder
	fmt.Fprintf(&config, "ingest: {heartbeat: %v}\nmodels:\n", patience)
	for name := range scenarios {
		fmt.Fprintf(&config, "  %s: {backends: [{name: up, protocol: openai, url: %q}], retry: {max_tries: 1}}\n", name, upstream.URL)
	}
	return start(t, nil, "serve", "--data-dir", t.TempDir(), "--nats", "127.0.0.1:0", "--config", writeConfig(t, config.String())), upstream
}

// dials make the model server answer as the scenario says. In its bytes \pause on a line is a silence, \reset at the end a
// broken connection, \r a carriage return, and \ at the end of a line no line end.
func (s *scenario) dials() openaitest.Dials {
	d := openaitest.Dials{Header: map[string]string{}, Pace: silence}
	bytes := s.upstream
	if head, body, ok := strings.Cut(bytes, "\n\n"); ok && strings.HasPrefix(head, "HTTP ") {
		bytes = body
		for line := range strings.Lines(head) {
			line = strings.TrimSpace(line)
			if name, value, ok := strings.Cut(line, ": "); ok {
				d.Header[name] = value
				continue
			}
			_, _ = fmt.Sscanf(line, "HTTP %d", &d.Status)
		}
	}
	bytes = strings.ReplaceAll(strings.ReplaceAll(bytes, `\r`+"\n", "\r\n"), "\\\n", "")
	bytes, reset := strings.CutSuffix(bytes, `\reset`+"\n")
	d.Pieces = strings.Split(bytes, `\pause`+"\n")
	if reset {
		d.Reset = len(d.Pieces)
	}
	return d
}

// play sends the scenario's request and describes what comes back.
func (s *scenario) play(t *testing.T, serve *process) string {
	t.Helper()
	head, body, _ := strings.Cut(s.request, "\n\n")
	lines := strings.Split(head, "\n")
	method, path, _ := strings.Cut(lines[0], " ")
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+serve.HTTP+path, strings.NewReader(strings.TrimSuffix(body, "\n")))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Llm-Request-Id", s.name) // which the events are numbered by
	for _, line := range lines[1:] {
		name, value, _ := strings.Cut(line, ": ")
		r.Header.Set(name, value)
	}
	response, err := caller().Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = response.Body.Close() }()
	got, err := io.ReadAll(response.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%d\n", response.StatusCode)
	for _, name := range []string{"Content-Type", "Content-Encoding", "Cache-Control", "X-Accel-Buffering", "Retry-After", "Retry-After-Ms", "X-Should-Retry"} {
		if v := response.Header.Get(name); v != "" {
			out.WriteString(name + ": " + v + "\n")
		}
	}
	answer := string(got)
	if strings.HasPrefix(response.Header.Get("Content-Type"), "text/event-stream") {
		openaitest.CheckStream(t, answer)
		return out.String() + "\n" + s.quiet(answer)
	}
	return out.String() + "\n" + answer + "\n"
}

// quiet keeps one heartbeat where the model server was silent, and removes those that come because this machine is slow.
func (s *scenario) quiet(answer string) string {
	before, _, paused := strings.Cut(s.upstream, `\pause`)
	events := strings.Split(answer, "\n\n")
	for i, event := range events {
		calm := strings.ReplaceAll(event, ": hb\n", "")
		if paused && i == strings.Count(before, "data: ") && calm != event {
			calm = ": hb\n" + calm
		}
		events[i] = calm
	}
	return strings.Join(events, "\n\n")
}

// parseScenario reads a golden file.
func parseScenario(t *testing.T, file string) *scenario {
	t.Helper()
	data, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	s := &scenario{name: strings.TrimSuffix(filepath.Base(file), ".txtar")}
	rest, found := string(data), false
	for _, section := range []struct {
		text *string
		next string
	}{{&s.prose, "request"}, {&s.request, "model server gets"}, {&s.gets, "model server"}, {&s.upstream, "client"}} {
		if *section.text, rest, found = strings.Cut(rest, "-- "+section.next+" --\n"); !found {
			t.Fatalf("%s lacks the section %q", file, section.next)
		}
	}
	s.client = rest
	return s
}

func (s *scenario) String() string {
	return s.prose + "-- request --\n" + s.request + "-- model server gets --\n" + s.gets + "-- model server --\n" + s.upstream + "-- client --\n" + s.client
}

// TestDialect plays every golden file through all stages.
func TestDialect(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("testdata/dialect/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	scenarios := make(map[string]*scenario)
	for _, file := range files {
		s := parseScenario(t, file)
		scenarios[s.name] = s
	}
	serve, upstream := dialectServer(t, scenarios)
	t.Run("all", func(t *testing.T) {
		for _, want := range scenarios {
			t.Run(want.name, func(t *testing.T) {
				t.Parallel()
				got := *want
				got.client = want.play(t, serve)
				got.gets = ""
				for _, r := range upstream.Requests() {
					if gjson.Get(r.Body, "model").Str == want.name {
						got.gets += r.Path + "\n" + r.Body + "\n"
					}
				}
				if *update {
					if err := os.WriteFile("testdata/dialect/"+want.name+".txtar", []byte(got.String()), 0o644); err != nil {
						t.Fatal(err)
					}
					return
				}
				if diff := cmp.Diff(want.String(), got.String()); diff != "" {
					t.Errorf("-want +got, if it is meant: go test ./cmd/weir -run Dialect -update\n%s", diff)
				}
			})
		}
	})
}

// TestWireThroughEveryStage has the golden files of the backend go the whole way: what a backend makes of a model server's
// bytes is what the caller gets.
func TestWireThroughEveryStage(t *testing.T) {
	t.Parallel()
	files, err := filepath.Glob("../../inference/openai/testdata/wire/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	scenarios, wants := make(map[string]*scenario), make(map[string]string)
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		name := strings.TrimSuffix(filepath.Base(file), ".txtar")
		_, rest, _ := strings.Cut(string(data), "-- upstream --\n")
		upstream, client, found := strings.Cut(rest, "-- client --\n")
		if !found {
			t.Fatalf("%s: want the sections upstream and client", file)
		}
		scenarios[name] = &scenario{name: name, upstream: upstream,
			request: fmt.Sprintf("POST /v1/chat/completions\n\n{\"model\":%q,\"stream\":true,\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]}\n", name)}
		wants[name] = strings.ReplaceAll(client, "req_1.", name+".")
	}
	serve, _ := dialectServer(t, scenarios)
	t.Run("all", func(t *testing.T) {
		for name, s := range scenarios {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				head, got, _ := strings.Cut(s.play(t, serve), "\n\n")
				want := wants[name]
				if !strings.HasPrefix(want, "id: ") { // it fails before its first event, and so with a status
					want = strings.TrimSuffix(strings.TrimPrefix(want, "data: "), "\n")
					if strings.HasPrefix(head, "200") {
						t.Errorf("an error has the status %s", head)
					}
				}
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("client (-want +got):\n%s", diff)
				}
			})
		}
	})
}

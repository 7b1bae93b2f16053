package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"github.com/weir-llm/weir/internal/openai/openaitest"
	"github.com/weir-llm/weir/schemas"
)

// Timeouts of a model: longer than a busy machine makes anybody wait, and short enough to wait for.
const (
	patient = "{first_token: 60s, idle: 60s}"
	hasty   = "{first_token: 2s, idle: 2s}"
)

// upstreamConfig has the model m on a server, called once. Its callers are patient unless they say otherwise.
func upstreamConfig(url string, timeouts ...string) string {
	return fmt.Sprintf("models:\n  m:\n    backends: [{name: up, protocol: openai, url: %q}]\n    retry: {max_tries: 1}\n    timeouts: %s\n", url, append(timeouts, patient)[0])
}

func chunk(content, finish string) string {
	return fmt.Sprintf(`{"id":"c","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":%q},"finish_reason":%s}]}`, content, finish)
}

// TestBadUpstreams sends a streamed request through every stage to a server that fails, and reads what the caller gets.
func TestBadUpstreams(t *testing.T) {
	large := strings.Repeat("x", 10<<20)
	for name, test := range map[string]struct {
		dials  openaitest.Dials
		status int
		text   string // of the answer so far
		code   schemas.Code
	}{
		"an answer":                     {openaitest.Dials{Events: []string{chunk("Hello", "null"), chunk("", `"stop"`)}}, 200, "Hello", ""},
		"no end mark":                   {openaitest.Dials{Events: []string{chunk("Hello", "null"), chunk("", `"stop"`)}, NoDone: true}, 200, "Hello", ""},
		"a chunk of 10 MB":              {openaitest.Dials{Events: []string{chunk(large, "null"), chunk("", `"stop"`)}}, 200, large, ""},
		"no finish reason":              {openaitest.Dials{Events: []string{chunk("Hel", "null")}}, 200, "Hel", schemas.CodeUpstreamInterrupted},
		"neither":                       {openaitest.Dials{Events: []string{chunk("Hel", "null")}, NoDone: true}, 200, "Hel", schemas.CodeUpstreamInterrupted},
		"a broken connection":           {openaitest.Dials{Events: []string{chunk("Hel", "null"), chunk("lo", "null")}, Reset: 1}, 200, "Hel", schemas.CodeUpstreamInterrupted},
		"silence in the middle":         {openaitest.Dials{Events: []string{chunk("Hel", "null"), chunk("lo", "null")}, Hold: 1}, 200, "Hel", schemas.CodeUpstreamTimeout},
		"an error after the first":      {openaitest.Dials{Events: []string{chunk("Hel", "null"), `{"error":{"message":"overloaded","type":"server_error","code":null}}`}}, 200, "Hel", schemas.CodeUpstreamError},
		"an error after status 200":     {openaitest.Dials{Events: []string{`{"error":{"message":"overloaded","type":"server_error","code":null}}`}}, 502, "", schemas.CodeUpstreamError},
		"an empty stream":               {openaitest.Dials{Body: "\n"}, 502, "", schemas.CodeUpstreamInterrupted},
		"nothing at all":                {openaitest.Dials{Silent: true}, 504, "", schemas.CodeUpstreamTimeout},
		"HTML":                          {openaitest.Dials{Body: "<html><body>It works!</body></html>"}, 502, "", schemas.CodeUpstreamError},
		"garbage":                       {openaitest.Dials{Events: []string{"}{"}}, 502, "", schemas.CodeUpstreamError},
		"the operator's key is refused": {openaitest.Dials{Status: 401, Body: `{"error":{"message":"bad key"}}`}, 502, "", schemas.CodeUpstreamAuth},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			upstream := openaitest.New(t, test.dials)
			timeouts := patient
			if test.dials.Hold > 0 || test.dials.Silent {
				timeouts = hasty
			}
			serve := start(t, nil, "serve", "--data-dir", t.TempDir(), "--nats", "127.0.0.1:0", "--config", writeConfig(t, upstreamConfig(upstream.URL, timeouts)))
			response := serve.post(t, `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`)
			if response.StatusCode != test.status {
				t.Fatalf("status %d, want %d", response.StatusCode, test.status)
			}
			body, err := io.ReadAll(response.Body)
			if err != nil {
				t.Fatal(err)
			}
			got, code, done := answerOf(t, body)
			if got != test.text || code != test.code || done != (test.code == "") {
				t.Errorf("%d bytes of text, code %q, ended with [DONE]: %t\n%.400s", len(got), code, done, body)
			}
		})
	}
}

// answerOf reads a stream or an error body.
func answerOf(t *testing.T, body []byte) (content string, code schemas.Code, done bool) {
	t.Helper()
	if e, err := schemas.DecodeError(body); err == nil {
		return "", e.Code, false
	}
	var events []string
	for line := range bytes.Lines(body) {
		data, ok := bytes.CutPrefix(bytes.TrimSpace(line), []byte("data: "))
		if !ok {
			continue
		}
		if e, err := schemas.DecodeError(data); err == nil {
			code = e.Code
			continue
		}
		events = append(events, string(data))
	}
	done = len(events) > 0 && events[len(events)-1] == "[DONE]"
	return text(t, events), code, done
}

// collector takes spans as OTLP over HTTP.
type collector struct {
	mu    sync.Mutex
	spans []byte
}

func (c *collector) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spans = append(c.spans, body...)
}

// has reports how many of the names are missing in what was collected.
func (c *collector) missing(names ...string) (missing []string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, name := range names {
		if !bytes.Contains(c.spans, []byte(name)) {
			missing = append(missing, name)
		}
	}
	return missing
}

// TestOneTraceFromCallerToSink follows a request by the spans that every stage exports.
func TestOneTraceFromCallerToSink(t *testing.T) {
	spans := &collector{}
	server := httptest.NewServer(spans)
	t.Cleanup(server.Close)
	serve := start(t, nil, "serve", "--data-dir", t.TempDir(), "--nats", "127.0.0.1:0",
		"--config", writeConfig(t, "telemetry: {otlp_endpoint: "+server.URL+"}\n"))
	const trace = "0af7651916cd43dd8448eb211c80319c"
	response := serve.post(t, chat("hello", ""), schemas.HeaderTraceParent, "00-"+trace+"-b7ad6b7169203331-01")
	if response.StatusCode != http.StatusOK {
		t.Fatalf("status %d", response.StatusCode)
	}
	id := response.Header.Get("X-Request-Id")
	becomes(t, "the result", func() bool {
		status, _ := get(t, "http://"+serve.HTTP+"/v1/streams/"+id+"/result")
		return status == http.StatusOK
	})
	if err := serve.end(t); err != nil { // which exports what is left
		t.Fatal(err)
	}
	if missing := spans.missing("POST /v1/chat/completions", "send llm.requests.{tenant}.{model}", "process llm.requests.{tenant}.{model}",
		"send llm.work.{model}", "process llm.work.{model}", "send llm.results.{tenant}.{request}", "process llm.results.{tenant}.{request}"); missing != nil {
		t.Errorf("spans are missing: %q", missing)
	}
	raw, err := hex.DecodeString(trace)
	if err != nil {
		t.Fatal(err)
	}
	if n := bytes.Count(spans.spans, raw); n < 7 {
		t.Errorf("%d spans are of the caller's trace, want at least 7", n)
	}
}

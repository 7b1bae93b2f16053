package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"time"
)

// dials say what the mock answers. The flags set them for every request, the query and then the body's member `mock` for one.
type dials struct {
	Tokens     int   `json:"tokens"`
	IntervalUS int64 `json:"interval_us"` // between tokens; 0 is as fast as the socket takes them
	FirstUS    int64 `json:"first_us"`    // before the first token
}

// mockRequest is what the mock reads of a chat-completions body.
type mockRequest struct {
	Model         string `json:"model"`
	Stream        bool   `json:"stream"`
	StreamOptions struct {
		IncludeUsage bool `json:"include_usage"`
	} `json:"stream_options"`
	Mock dials `json:"mock"`
}

// newMock returns an upstream that speaks OpenAI chat completions, streamed and not, and writes and flushes once per chunk.
func newMock(defaults dials) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /v1/models", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprint(w, `{"object":"list","data":[{"id":"bench","object":"model","created":1764000000,"owned_by":"mock"}]}`)
	})
	mux.HandleFunc("POST /v1/chat/completions", func(w http.ResponseWriter, r *http.Request) {
		request := mockRequest{Mock: defaults}
		err := request.Mock.fromQuery(r.URL.Query())
		if err == nil {
			err = json.NewDecoder(r.Body).Decode(&request)
		}
		if err != nil {
			http.Error(w, `{"error":{"message":"the mock cannot read this","type":"invalid_request_error","param":null,"code":"invalid_json"}}`, http.StatusBadRequest)
			return
		}
		if request.Stream {
			request.stream(w, r)
		} else {
			request.whole(w, r)
		}
	})
	return mux
}

// serveHere serves an upstream in this process until it is stopped.
func serveHere(upstream http.Handler) (addr string, stop func(), err error) {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return "", nil, err
	}
	server := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: upstream}
	var serving sync.WaitGroup
	serving.Go(func() { _ = server.Serve(listener) })
	return listener.Addr().String(), func() { _ = server.Close(); serving.Wait() }, nil
}

func (d *dials) fromQuery(query url.Values) error {
	if len(query) == 0 {
		return nil
	}
	for key, set := range map[string]func(int64){
		"tokens":      func(v int64) { d.Tokens = int(v) },
		"interval_us": func(v int64) { d.IntervalUS = v },
		"first_us":    func(v int64) { d.FirstUS = v },
	} {
		if !query.Has(key) {
			continue
		}
		value, err := strconv.ParseInt(query.Get(key), 10, 64)
		if err != nil {
			return fmt.Errorf("query %s: %w", key, err)
		}
		set(value)
	}
	return nil
}

// stream sends the tokens, the chunk with the finish reason, and [DONE].
func (m *mockRequest) stream(w http.ResponseWriter, r *http.Request) {
	first, err1 := newChunk(m.Model, `{"role":"assistant","content":" token"}`, "null")
	middle, err2 := newChunk(m.Model, `{"content":" token"}`, "null")
	last, err3 := newChunk(m.Model, `{}`, `"stop"`)
	if err1 != nil || err2 != nil || err3 != nil {
		http.Error(w, `{"error":{"message":"the model name is too long","type":"invalid_request_error","param":"model","code":"invalid_value"}}`, http.StatusBadRequest)
		return
	}
	w.Header().Set("Content-Type", "text/event-stream; charset=utf-8")
	out, buffer := http.NewResponseController(w), make([]byte, 0, 2*chunkBytes)
	next := time.Now().Add(time.Duration(m.Mock.FirstUS) * time.Microsecond)
	for i := range m.Mock.Tokens + 1 {
		c := middle
		switch i {
		case m.Mock.Tokens:
			c = last
		case 0:
			c = first
		}
		if !waitUntil(r.Context(), next) {
			return
		}
		buffer = c.appendTo(buffer[:0], time.Now())
		if c == last {
			buffer = m.appendEnd(buffer)
		}
		if _, err := w.Write(buffer); err != nil || out.Flush() != nil {
			return
		}
		next = next.Add(time.Duration(m.Mock.IntervalUS) * time.Microsecond)
	}
}

func (m *mockRequest) appendEnd(b []byte) []byte {
	if m.StreamOptions.IncludeUsage {
		b = fmt.Appendf(b, "data: {\"id\":\"chatcmpl-bench\",\"object\":\"chat.completion.chunk\",\"created\":1764000000,\"model\":%q,\"choices\":[],\"usage\":%s}\n\n", m.Model, m.usage())
	}
	return append(b, "data: [DONE]\n\n"...)
}

// whole sends one response, after as long as the stream would have taken.
func (m *mockRequest) whole(w http.ResponseWriter, r *http.Request) {
	took := time.Duration(m.Mock.FirstUS+int64(m.Mock.Tokens)*m.Mock.IntervalUS) * time.Microsecond
	if !waitUntil(r.Context(), time.Now().Add(took)) {
		return
	}
	w.Header().Set("Content-Type", "application/json")
	fmt.Fprintf(w, `{"id":"chatcmpl-bench","object":"chat.completion","created":1764000000,"model":%q,"choices":[{"index":0,`+
		`"message":{"role":"assistant","content":%q,"refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":%s}`,
		m.Model, strings.Repeat(" token", m.Mock.Tokens), m.usage())
}

func (m *mockRequest) usage() string {
	return fmt.Sprintf(`{"prompt_tokens":8,"completion_tokens":%d,"total_tokens":%d}`, m.Mock.Tokens, m.Mock.Tokens+8)
}

// waitUntil reports whether the time came before the context ended.
func waitUntil(ctx context.Context, at time.Time) bool {
	left := time.Until(at)
	if left <= 0 {
		return true
	}
	timer := time.NewTimer(left)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// mockCommand serves the mock until the context ends.
func mockCommand(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	flags := newFlags("mock", stderr)
	listen := flags.String("listen", "127.0.0.1:0", "address to listen on")
	procs := flags.Int("procs", runtime.NumCPU(), "threads that may run at once")
	defaults := dials{}
	flags.IntVar(&defaults.Tokens, "tokens", 64, "tokens per answer")
	flags.Int64Var(&defaults.IntervalUS, "interval-us", 0, "microseconds between tokens")
	flags.Int64Var(&defaults.FirstUS, "first-us", 0, "microseconds before the first token")
	if err := flags.Parse(args); err != nil {
		return err
	}
	beLight(*procs)
	listener, err := net.Listen("tcp", *listen)
	if err != nil {
		return fmt.Errorf("mock: %w", err)
	}
	fmt.Fprintln(stdout, listener.Addr())
	server := &http.Server{Handler: newMock(defaults), ReadHeaderTimeout: time.Minute}
	stopped := context.AfterFunc(ctx, func() { _ = server.Close() })
	defer stopped()
	if err := server.Serve(listener); ctx.Err() == nil {
		return fmt.Errorf("mock: %w", err)
	}
	return nil
}

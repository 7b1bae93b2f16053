// Package openaitest has a model server with dials, for tests of what calls one.
package openaitest

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// Dials say how the server answers. The zero value answers every request whole: "Hello world" in two tokens.
type Dials struct {
	Status int               // default 200
	Header map[string]string // of the reply
	Body   string            // the whole reply as it is, instead of an answer
	Pieces []string          // the same in pieces, with Pace between them; Reset counts them

	Events []string      // data of the events of a stream; default [Answer] of "Hello", " world"
	NoDone bool          // end the stream without [DONE]
	Pace   time.Duration // between events

	Silent bool // accept the request and never answer
	Drop   bool // break the connection without an answer
	Hold   int  // stay silent after that many events; 0 = never
	Reset  int  // break the connection after that many events; 0 = never
}

// Request is a request as the server got it.
type Request struct {
	Path   string
	Header http.Header
	Body   string
}

// Upstream is a running server.
type Upstream struct {
	URL string // with /v1

	server *httptest.Server
	choose func(Request) Dials
	gone   chan struct{}

	connections atomic.Int64

	mu       sync.Mutex
	requests []Request
}

// New starts a server that is stopped with the test. Each request takes the next of dials, the last one is used again.
func New(t testing.TB, dials ...Dials) *Upstream {
	t.Helper()
	if len(dials) == 0 {
		dials = []Dials{{}}
	}
	var asked atomic.Int64
	u := Serve(func(Request) Dials { return dials[min(int(asked.Add(1)), len(dials))-1] })
	t.Cleanup(u.Close)
	return u
}

// Serve starts a server that answers each request as choose says, which may be called concurrently. Close ends it.
func Serve(choose func(Request) Dials) *Upstream {
	u := &Upstream{choose: choose, gone: make(chan struct{}, 100)}
	u.server = httptest.NewUnstartedServer(u)
	u.server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			u.connections.Add(1)
		}
	}
	u.server.Start()
	u.URL = u.server.URL + "/v1"
	return u
}

// Close breaks what is under way and stops the server.
func (u *Upstream) Close() {
	u.server.CloseClientConnections()
	u.server.Close()
}

// Requests lists what the server was asked so far.
func (u *Upstream) Requests() []Request {
	u.mu.Lock()
	defer u.mu.Unlock()
	return append([]Request(nil), u.requests...)
}

// Connections is how many the server accepted so far.
func (u *Upstream) Connections() int { return int(u.connections.Load()) }

// Gone gets a value when a caller leaves before its answer is whole.
func (u *Upstream) Gone() <-chan struct{} { return u.gone }

// ServeHTTP answers as the dials say.
func (u *Upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	request := Request{Path: r.URL.Path, Header: r.Header.Clone(), Body: string(body)}
	u.mu.Lock()
	u.requests = append(u.requests, request)
	u.mu.Unlock()
	d := u.choose(request)
	for name, value := range d.Header {
		w.Header().Set(name, value)
	}
	switch {
	case d.Silent:
		u.wait(r)
	case d.Drop:
		panic(http.ErrAbortHandler)
	case d.Pieces != nil:
		w.WriteHeader(max(d.Status, http.StatusOK))
		u.send(w, r, d, d.Pieces)
	case d.Body != "" || d.Status >= 300:
		w.WriteHeader(max(d.Status, http.StatusOK))
		_, _ = io.WriteString(w, d.Body)
	case r.URL.Path == "/v1/models":
		_, _ = io.WriteString(w, `{"object":"list","data":[{"id":"m1","object":"model"},{"id":"m2","object":"model"}]}`)
	case gjson.GetBytes(body, "stream").Bool():
		u.stream(w, r, d)
	default:
		w.Header().Set("Content-Type", "application/json")
		_, _ = io.WriteString(w, whole(r.URL.Path))
	}
}

// stream sends the events of an answer.
func (u *Upstream) stream(w http.ResponseWriter, r *http.Request, d Dials) {
	w.Header().Set("Content-Type", "text/event-stream")
	events := d.Events
	switch {
	case events != nil:
	case r.URL.Path == "/v1/completions":
		events = Completion("Hello", " world")
	default:
		events = Answer("Hello", " world")
	}
	pieces := make([]string, len(events), len(events)+1)
	for i, event := range events {
		pieces[i] = "data: " + event + "\n\n"
	}
	if u.send(w, r, d, pieces) && !d.NoDone {
		_, _ = io.WriteString(w, "data: [DONE]\n\n")
	}
}

// send writes pieces at their pace, and reports whether all of them were sent.
func (u *Upstream) send(w http.ResponseWriter, r *http.Request, d Dials, pieces []string) bool {
	control := http.NewResponseController(w)
	for i, piece := range pieces {
		if i > 0 && i == d.Hold {
			u.wait(r)
			return false
		}
		if i > 0 && i == d.Reset {
			panic(http.ErrAbortHandler)
		}
		if i > 0 && d.Pace > 0 {
			select {
			case <-time.After(d.Pace):
			case <-r.Context().Done():
			}
		}
		_, err := io.WriteString(w, piece)
		if err != nil || control.Flush() != nil || r.Context().Err() != nil {
			u.left()
			return false
		}
	}
	if len(pieces) > 0 && len(pieces) == d.Reset {
		panic(http.ErrAbortHandler)
	}
	return true
}

// wait stays silent until the caller leaves.
func (u *Upstream) wait(r *http.Request) {
	<-r.Context().Done()
	u.left()
}

func (u *Upstream) left() {
	select {
	case u.gone <- struct{}{}:
	default:
	}
}

// Answer is a whole answer of these tokens, as the data of its events without usage.
func Answer(tokens ...string) []string {
	events := []string{Chunk(`"delta":{"role":"assistant","content":""},"finish_reason":null`)}
	for _, token := range tokens {
		events = append(events, Chunk(fmt.Sprintf(`"delta":{"content":%q},"finish_reason":null`, token)))
	}
	return append(events, Chunk(`"delta":{},"finish_reason":"stop"`))
}

// Chunk is a chunk with one choice, whose members after the index are given.
func Chunk(choice string) string {
	return `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1764000000,"model":"m","choices":[{"index":0,` + choice + `}]}`
}

// Completion is a whole answer to a text completion of these tokens, as the data of its events without usage.
func Completion(tokens ...string) []string {
	var events []string
	for _, token := range tokens {
		events = append(events, TextChunk(fmt.Sprintf(`"text":%q,"logprobs":null,"finish_reason":null`, token)))
	}
	return append(events, TextChunk(`"text":"","logprobs":null,"finish_reason":"stop"`))
}

// TextChunk is a chunk of a text completion with one choice, whose members after the index are given.
func TextChunk(choice string) string {
	return `{"id":"cmpl-1","object":"text_completion","created":1764000000,"model":"m","choices":[{"index":0,` + choice + `}]}`
}

// Usage is the usage chunk that follows an answer when it was asked for.
const Usage = `{"id":"chatcmpl-1","object":"chat.completion.chunk","created":1764000000,"model":"m","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`

// Response is a whole unary answer.
func Response(text string) string {
	return strings.ReplaceAll(`{"id":"chatcmpl-1","object":"chat.completion","created":1764000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"TEXT","refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`, "TEXT", text)
}

// CompletionResponse is a whole unary answer to a text completion.
func CompletionResponse(text string) string {
	return strings.ReplaceAll(`{"id":"cmpl-1","object":"text_completion","created":1764000000,"model":"m","choices":[{"index":0,"text":"TEXT","logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5}}`, "TEXT", text)
}

// EmbeddingResponse is an answer with one vector, 1 and -2.5.
const EmbeddingResponse = `{"object":"list","data":[{"object":"embedding","index":0,"embedding":[1,-2.5]}],"model":"m","usage":{"prompt_tokens":3,"total_tokens":3}}`

// whole is the unary answer of a path.
func whole(path string) string {
	switch path {
	case "/v1/completions":
		return CompletionResponse("Hello world")
	case "/v1/embeddings":
		return EmbeddingResponse
	}
	return Response("Hello world")
}

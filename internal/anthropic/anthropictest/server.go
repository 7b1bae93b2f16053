// Package anthropictest has an Anthropic server with dials, for tests of what calls one.
package anthropictest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// Dials say how the server answers. The zero value answers every request whole: "Hello world" in two deltas.
type Dials struct {
	Status int               // default 200
	Header map[string]string // of the reply
	Body   string            // the whole reply as it is, instead of an answer
	Pieces []string          // the same in pieces; Hold and Reset count them

	Events []string      // data of the events of a stream; default [Answer] of "Hello", " world"
	Pings  bool          // a ping after each event
	Pace   time.Duration // between events

	Silent bool // accept the request and never answer
	Drop   bool // break the connection without an answer
	Hold   int  // stay silent after that many events; 0 = never
	Reset  int  // break the connection after that many events; 0 = never
	Cut    int  // end the stream cleanly after that many events; 0 = never
}

// Request is a request as the server got it.
type Request struct {
	Path   string
	Header http.Header
	Body   string
}

// Server is a running server.
type Server struct {
	URL string // with /v1

	server *httptest.Server
	gone   chan struct{}

	choose   func(Request) Dials
	mu       sync.Mutex
	requests []Request
}

// New starts a server that is stopped with the test. Each request takes the next of dials, the last one is used again.
func New(t testing.TB, dials ...Dials) *Server {
	t.Helper()
	if len(dials) == 0 {
		dials = []Dials{{}}
	}
	var asked atomic.Int64
	return Serve(t, func(Request) Dials { return dials[min(int(asked.Add(1)), len(dials))-1] })
}

// Serve starts a server that answers each request as choose says, which may be called concurrently. It is stopped with
// the test.
func Serve(t testing.TB, choose func(Request) Dials) *Server {
	s := &Server{choose: choose, gone: make(chan struct{}, 100)}
	s.server = httptest.NewServer(s)
	s.URL = s.server.URL + "/v1"
	t.Cleanup(func() {
		s.server.CloseClientConnections()
		s.server.Close()
	})
	return s
}

// Requests lists what the server was asked so far.
func (s *Server) Requests() []Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]Request(nil), s.requests...)
}

// Gone gets a value when a caller leaves before its answer is whole.
func (s *Server) Gone() <-chan struct{} { return s.gone }

// ServeHTTP answers as the dials say.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	request := Request{Path: r.URL.Path, Header: r.Header.Clone(), Body: string(body)}
	s.mu.Lock()
	s.requests = append(s.requests, request)
	s.mu.Unlock()
	d := s.choose(request)
	w.Header().Set("Content-Type", "application/json")
	for name, value := range d.Header {
		w.Header().Set(name, value)
	}
	switch {
	case d.Silent:
		s.wait(r)
	case d.Drop:
		panic(http.ErrAbortHandler)
	case d.Pieces != nil:
		s.send(w, r, d, d.Pieces)
	case d.Body != "" || d.Status >= 300:
		w.WriteHeader(max(d.Status, http.StatusOK))
		_, _ = io.WriteString(w, d.Body)
	case r.URL.Path == "/v1/models":
		_, _ = io.WriteString(w, `{"data":[{"type":"model","id":"m1"},{"type":"model","id":"m2"}],"has_more":false}`)
	case strings.HasSuffix(r.URL.Path, "/count_tokens"):
		_, _ = io.WriteString(w, `{"input_tokens":42}`)
	case gjson.GetBytes(body, "stream").Bool():
		s.stream(w, r, d)
	default:
		_, _ = io.WriteString(w, Message("Hello world"))
	}
}

func (s *Server) stream(w http.ResponseWriter, r *http.Request, d Dials) {
	w.Header().Set("Content-Type", "text/event-stream")
	events := d.Events
	if events == nil {
		events = Answer("Hello", " world")
	}
	pieces := make([]string, len(events))
	for i, event := range events {
		pieces[i] = frame(event)
		if d.Pings {
			pieces[i] += frame(`{"type":"ping"}`)
		}
	}
	s.send(w, r, d, pieces)
}

// send writes pieces at their pace, as far as the dials let it.
func (s *Server) send(w http.ResponseWriter, r *http.Request, d Dials, pieces []string) {
	control := http.NewResponseController(w)
	for i, piece := range pieces {
		switch {
		case i > 0 && i == d.Hold:
			s.wait(r)
			return
		case i > 0 && i == d.Reset:
			panic(http.ErrAbortHandler)
		case i > 0 && i == d.Cut:
			return
		case i > 0 && d.Pace > 0:
			select {
			case <-time.After(d.Pace):
			case <-r.Context().Done():
			}
		}
		_, err := io.WriteString(w, piece)
		if err != nil || control.Flush() != nil || r.Context().Err() != nil {
			s.left()
			return
		}
	}
}

func frame(event string) string {
	return fmt.Sprintf("event: %s\ndata: %s\n\n", gjson.Get(event, "type").Str, event)
}

// wait stays silent until the caller leaves.
func (s *Server) wait(r *http.Request) {
	<-r.Context().Done()
	s.left()
}

func (s *Server) left() {
	select {
	case s.gone <- struct{}{}:
	default:
	}
}

// Package anthropictest has an Anthropic server with dials, for tests of what calls one.
package anthropictest

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"
)

// Dials say how the server answers. The zero value answers every request whole: "Hello world" in two deltas.
type Dials struct {
	Status int               // default 200
	Header map[string]string // of the reply
	Body   string            // the whole reply as it is, instead of an answer

	Events []string      // data of the events of a stream; default [Answer] of "Hello", " world"
	Pings  bool          // a ping after each event
	Pace   time.Duration // between events

	Silent bool // accept the request and never answer
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

	mu       sync.Mutex
	dials    []Dials
	requests []Request
}

// New starts a server that is stopped with the test. Each request takes the next of dials, the last one is used again.
func New(t testing.TB, dials ...Dials) *Server {
	t.Helper()
	if len(dials) == 0 {
		dials = []Dials{{}}
	}
	s := &Server{dials: dials, gone: make(chan struct{}, 100)}
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
	d := s.next(Request{Path: r.URL.Path, Header: r.Header.Clone(), Body: string(body)})
	w.Header().Set("Content-Type", "application/json")
	for name, value := range d.Header {
		w.Header().Set(name, value)
	}
	switch {
	case d.Silent:
		s.wait(r)
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

func (s *Server) next(r Request) Dials {
	s.mu.Lock()
	defer s.mu.Unlock()
	d := s.dials[min(len(s.requests), len(s.dials)-1)]
	s.requests = append(s.requests, r)
	return d
}

func (s *Server) stream(w http.ResponseWriter, r *http.Request, d Dials) {
	w.Header().Set("Content-Type", "text/event-stream")
	control := http.NewResponseController(w)
	events := d.Events
	if events == nil {
		events = Answer("Hello", " world")
	}
	for i, event := range events {
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
		text := frame(event)
		if d.Pings {
			text += frame(`{"type":"ping"}`)
		}
		_, err := io.WriteString(w, text)
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

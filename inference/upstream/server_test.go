package upstream

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

// server is a model server that notes what reaches it. Its handler answers GET /ok with a document.
type server struct {
	*httptest.Server
	mux *http.ServeMux

	mu          sync.Mutex
	connections int
	seen        []*http.Request
}

// newServer starts a server over plain HTTP/1, unless an option says otherwise.
func newServer(t testing.TB, options ...func(*httptest.Server)) *server {
	t.Helper()
	s := &server{mux: http.NewServeMux()}
	s.mux.HandleFunc("GET /ok", func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, `{"ok":true}`) })
	s.Server = httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		s.seen = append(s.seen, r)
		s.mu.Unlock()
		s.mux.ServeHTTP(w, r)
	}))
	s.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			s.mu.Lock()
			s.connections++
			s.mu.Unlock()
		}
	}
	for _, option := range options {
		option(s.Server)
	}
	if s.URL == "" {
		s.Start()
	}
	t.Cleanup(s.Close)
	return s
}

func (s *server) met() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.connections
}

func (s *server) requests() []*http.Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*http.Request(nil), s.seen...)
}

// client makes a client of the server.
func (s *server) client(t testing.TB, c Config) *Client {
	t.Helper()
	c.Name = "b"
	if c.URL == "" {
		c.URL = s.URL
	}
	client, err := NewClient(c)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = client.Close() })
	return client
}

// get reads the document at /ok.
func get(t testing.TB, c *Client) (string, *schemas.Error) {
	t.Helper()
	return fetch(t.Context(), c, "/ok")
}

func fetch(ctx context.Context, c *Client, path string) (string, *schemas.Error) {
	call := c.NewCall(ctx, &inference.GenerateRequest{}, nil)
	defer call.Close()
	reply, err := call.Send(http.MethodGet, path, nil, nil)
	if err != nil {
		return "", schemas.AsError(err)
	}
	data, err := call.Document(reply, 1<<20)
	if err != nil {
		return "", schemas.AsError(err)
	}
	return string(data), nil
}

// within fails the test when f takes unreasonably long.
func within(t *testing.T, what string, f func()) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(time.Minute):
		t.Fatalf("%s takes for ever", what)
	}
}

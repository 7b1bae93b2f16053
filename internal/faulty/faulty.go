// Package faulty is a model server that fails as real ones do, for tests of what callers see of it. Each call is answered
// by the next [Reply] of a script, which has the connection in its hands; the server keeps what it was asked, when, how
// much it sent and whether the caller stayed. What a reply says is put in the words of a [Dialect].
package faulty

import (
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"
)

// Reply answers one call.
type Reply func(c *Call)

// Server is a running server. Its methods are safe for concurrent use.
type Server struct {
	URL     string // without a path
	Dialect Dialect

	server *httptest.Server
	script []Reply

	mu    sync.Mutex
	calls []*Call
}

// New starts a server that ends with the test. The last reply of the script answers all further calls.
func New(t testing.TB, d Dialect, script ...Reply) *Server {
	t.Helper()
	s := &Server{Dialect: d, script: script}
	s.server = httptest.NewServer(s)
	s.URL = s.server.URL
	t.Cleanup(func() {
		s.server.CloseClientConnections()
		s.server.Close()
	})
	return s
}

// ServeHTTP answers as the script says.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	body, _ := io.ReadAll(r.Body)
	c := &Call{Dialect: s.Dialect, w: w, r: r, control: http.NewResponseController(w), Seen: Seen{Began: time.Now(), Body: string(body)}}
	s.mu.Lock()
	s.calls = append(s.calls, c)
	reply := s.script[min(len(s.calls), len(s.script))-1]
	s.mu.Unlock()
	defer func() {
		c.mu.Lock()
		c.Seen.Ended, c.Seen.Left = time.Now(), r.Context().Err() != nil
		c.mu.Unlock()
	}()
	reply(c)
}

// Calls are all calls so far, as the server saw them.
func (s *Server) Calls() []Seen {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make([]Seen, len(s.calls))
	for i, c := range s.calls {
		c.mu.Lock()
		all[i] = c.Seen
		c.mu.Unlock()
	}
	return all
}

// Seen is a call as the server saw it.
type Seen struct {
	Began, Ended time.Time // Ended is zero while the call lasts
	Body         string
	Sent         int  // bytes of the reply's body
	Left         bool // the caller was gone before the reply was whole
}

// Call is a call that is being answered.
type Call struct {
	Dialect Dialect

	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController

	mu   sync.Mutex
	Seen Seen
}

// Refuse answers with a status and a document.
func (c *Call) Refuse(r Refusal) {
	for name, value := range r.Header {
		c.w.Header().Set(name, value)
	}
	c.w.Header().Set("Content-Type", "application/json")
	c.w.WriteHeader(r.Status)
	c.Send(r.Body)
}

// Send sends pieces, each in a packet of its own, and reports whether the caller is still there.
func (c *Call) Send(pieces ...string) bool {
	for _, piece := range pieces {
		n, err := io.WriteString(c.w, piece)
		c.mu.Lock()
		c.Seen.Sent += n
		c.mu.Unlock()
		if err != nil || c.control.Flush() != nil || c.r.Context().Err() != nil {
			return false
		}
	}
	return true
}

// Trickle sends pieces byte by byte.
func (c *Call) Trickle(pace time.Duration, pieces ...string) {
	for _, b := range []byte(strings.Join(pieces, "")) {
		if !c.Send(string([]byte{b})) || !c.Pause(pace) {
			return
		}
	}
}

// Pause stays silent for a while, and reports whether the caller is still there.
func (c *Call) Pause(d time.Duration) bool {
	if d <= 0 {
		return c.r.Context().Err() == nil
	}
	select {
	case <-time.After(d):
		return true
	case <-c.r.Context().Done():
		return false
	}
}

// Hang stays silent until the caller leaves.
func (c *Call) Hang() { <-c.r.Context().Done() }

// Reset breaks the connection.
func (c *Call) Reset() {
	if connection, _, err := c.control.Hijack(); err == nil {
		if tcp, ok := connection.(*net.TCPConn); ok {
			_ = tcp.SetLinger(0)
		}
		_ = connection.Close()
	}
}

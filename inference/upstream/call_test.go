package upstream

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

func TestRedirectsAreNotFollowed(t *testing.T) {
	t.Parallel()
	elsewhere := newServer(t)
	s := newServer(t)
	for _, status := range []int{301, 302, 303, 307, 308} {
		s.mux.Handle(fmt.Sprintf("GET /%d", status), http.RedirectHandler(elsewhere.URL+"/ok", status))
		c := s.client(t, Config{})
		c.SetHeader("Authorization", "Bearer secret")
		if _, err := fetch(t.Context(), c, fmt.Sprintf("/%d", status)); err == nil || err.Code != schemas.CodeUpstreamError {
			t.Errorf("%d: got %v, want an error", status, err)
		}
	}
	if got := elsewhere.requests(); len(got) != 0 {
		t.Errorf("the redirect was followed with %v", got[0].Header)
	}
	if got := s.requests(); len(got) != 5 || got[0].Header.Get("Authorization") != "Bearer secret" {
		t.Errorf("the server itself did not get the credentials: %v", got)
	}
}

// An empty port is that of the scheme, and no part of the host that a server is told.
func TestEmptyPort(t *testing.T) {
	t.Parallel()
	c, err := NewClient(Config{Name: "b", URL: "http://models.internal:/v1"})
	if err != nil {
		t.Fatal(err)
	}
	if u := c.at("/ok"); u.String() != "http://models.internal/v1/ok" {
		t.Errorf("it calls %s", u)
	}
}

// What is escaped in the path of a server's URL stays so.
func TestEscapedPath(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	_, _ = fetch(t.Context(), s.client(t, Config{URL: s.URL + "/a%2Fb"}), "/ok")
	if got := s.requests(); len(got) != 1 || got[0].URL.EscapedPath() != "/a%2Fb/ok" {
		t.Errorf("the server was asked for %v", got)
	}
}

// hangUp is a server that does something rude with each connection.
func hangUp(t *testing.T, rude func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				rude(conn)
			}()
		}
	}()
	return "http://" + l.Addr().String()
}

// TestFailuresSayWhat also checks what nobody may ever see in an error or a log: keys, headers, passwords of proxies, and,
// where callers see it, the address.
func TestFailuresSayWhat(t *testing.T) {
	t.Parallel()
	readRequest := func(c net.Conn) { _, _ = c.Read(make([]byte, 4096)) }
	closed := hangUp(t, func(net.Conn) {})
	const gone = "http://127.0.0.1:1" // a port that was free a moment ago may be another test's by now
	for name, c := range map[string]struct {
		url   string
		proxy inference.Secret
		code  schemas.Code
		want  string
	}{
		"nobody listens": {gone, "", schemas.CodeUpstreamError, "connection refused"},
		// Of a name that is none no resolver is asked, so that this needs no network.
		"a name that is not known": {"http://" + strings.Repeat("x", 64) + ".invalid", "", schemas.CodeUpstreamError, "its name cannot be resolved"},
		"closed without an answer": {closed, "", schemas.CodeUpstreamError, "the model server"},
		"not HTTP":                 {hangUp(t, func(c net.Conn) { readRequest(c); _, _ = io.WriteString(c, "220 ftp ready\r\n") }), "", schemas.CodeUpstreamError, "did not answer in HTTP"},
		"no TLS":                   {strings.Replace(newServer(t).URL, "http:", "https:", 1), "", schemas.CodeUpstreamError, "TLS failed"},
		"a proxy that is gone":     {"http://model.example", inference.Secret("http://me:proxy-secret@" + strings.TrimPrefix(gone, "http://")), schemas.CodeUpstreamError, "connection refused"},
		"cut in the middle": {hangUp(t, func(c net.Conn) {
			readRequest(c)
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"a\":")
		}), "", schemas.CodeUpstreamInterrupted, "before the answer was whole"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			client, err := NewClient(Config{
				Name: "b", URL: c.url, Headers: map[string]string{"X-Account": "header-secret"}, Connection: Connection{Proxy: c.proxy},
			})
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			client.SetHeader("Authorization", "Bearer key-secret")
			_, failed := fetch(t.Context(), client, "/ok")
			if failed == nil || failed.Code != c.code || !strings.Contains(failed.Message, c.want) {
				t.Fatalf("got %v, want %s with %q", failed, c.code, c.want)
			}
			if strings.Contains(failed.Message, "127.0.0.1") {
				t.Errorf("the caller is told the address: %s", failed.Message)
			}
			var log strings.Builder
			slog.New(slog.NewTextHandler(&log, nil)).Error("failed", "error", failed, "cause", errors.Unwrap(failed), "config", client.config)
			for cause := error(failed); cause != nil; cause = errors.Unwrap(cause) {
				fmt.Fprintf(&log, "%v %+v", cause, cause)
			}
			for _, secret := range []string{"key-secret", "proxy-secret"} {
				if strings.Contains(log.String(), secret) {
					t.Errorf("%s is logged: %s", secret, log.String())
				}
			}
			if strings.Contains(failed.Error(), "header-secret") {
				t.Errorf("a header is in the error: %v", failed)
			}
		})
	}
}

func TestTimeouts(t *testing.T) {
	t.Parallel()
	const short = time.Second // enough for the call to reach the server
	for name, c := range map[string]struct {
		timeouts inference.Timeouts
		stream   bool
		want     string
	}{
		"no first token":     {inference.Timeouts{FirstToken: short}, true, "first-token timeout"},
		"silence in between": {inference.Timeouts{Idle: short}, false, "idle timeout"},
		"all in all":         {inference.Timeouts{Total: short}, false, "total timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newServer(t)
			var running atomic.Int64 // at the server, which a call that is too short may never reach
			s.mux.HandleFunc("GET /slow", func(w http.ResponseWriter, r *http.Request) {
				running.Add(1)
				defer running.Add(-1)
				if !c.stream {
					_, _ = io.WriteString(w, "{")
					_ = http.NewResponseController(w).Flush()
				}
				<-r.Context().Done()
			})
			call := s.client(t, Config{Timeouts: c.timeouts}).NewCall(t.Context(), &inference.GenerateRequest{Stream: c.stream}, nil)
			defer call.Close()
			reply, err := call.Send(http.MethodGet, "/slow", nil, nil)
			if err == nil {
				_, err = call.Document(reply, 1<<20)
			}
			if e := schemas.AsError(err); err == nil || e.Code != schemas.CodeUpstreamTimeout || !strings.Contains(e.Message, c.want) {
				t.Errorf("got %v, want a %s", err, c.want)
			}
			within(t, "the call at the server", func() {
				for running.Load() > 0 {
					time.Sleep(time.Millisecond)
				}
			})
		})
	}
}

func TestCancelReachesTheServer(t *testing.T) {
	t.Parallel()
	s := newServer(t)
	began, ended := make(chan struct{}), make(chan time.Time, 1)
	s.mux.HandleFunc("GET /slow", func(_ http.ResponseWriter, r *http.Request) {
		close(began)
		<-r.Context().Done()
		ended <- time.Now()
	})
	ctx, cancel := context.WithCancelCause(t.Context())
	failed := make(chan *schemas.Error, 1)
	c := s.client(t, Config{})
	go func() {
		_, err := fetch(ctx, c, "/slow")
		failed <- err
	}()
	<-began
	why := schemas.Errorf(schemas.CodeCancelled, "the caller left")
	cancel(why)
	cancelled := time.Now()
	if err := <-failed; err != why {
		t.Errorf("got %v, want the cause", err)
	}
	within(t, "the call at the server", func() {
		if took := (<-ended).Sub(cancelled); took > 10*time.Second {
			t.Errorf("the server heard of it after %s", took)
		}
	})
}

package ingest_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptrace"
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/certs"
	"github.com/weir-llm/weir/internal/certs/certstest"
	"github.com/weir-llm/weir/schemas"
)

// secure sets a door up with TLS and a client that trusts it and speaks one version of HTTP.
func secure(t *testing.T, version int, script func(*job), configure ...func(*ingest.Config)) *bench {
	t.Helper()
	ca := certstest.NewAuthority(t)
	pair := ca.Issue("127.0.0.1")
	config, err := certs.Server(certs.ServerConfig{Cert: pair.Cert, Key: pair.Key, Protocols: []string{"h2", "http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	w := setup(t, script, append(configure, func(c *ingest.Config) { c.TLS = config })...)
	w.url = strings.Replace(w.url, "http:", "https:", 1)
	transport := w.client.Transport.(*http.Transport)
	transport.TLSClientConfig = &tls.Config{RootCAs: ca.Pool()}
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(version == 1)
	transport.Protocols.SetHTTP2(version == 2)
	return w
}

func eachVersion(t *testing.T, test func(t *testing.T, version int)) {
	t.Helper()
	for version, name := range map[int]string{1: "HTTP/1.1", 2: "HTTP/2"} {
		t.Run(name, func(t *testing.T) { t.Parallel(); test(t, version) })
	}
}

// piece reads one event, or one comment.
func piece(t *testing.T, r *bufio.Reader) string {
	t.Helper()
	var lines strings.Builder
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			t.Fatal(err)
		}
		lines.WriteString(line)
		if line == "\n" || line[0] == ':' {
			return lines.String()
		}
	}
}

// Each frame is there at once, a silence longer than a write may take is no fault, and every limit on the way holds.
func TestStreamsWithTLS(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version int) {
		next := make(chan struct{})
		w := secure(t, version, func(j *job) {
			j.start()
			for range 3 {
				j.delta(1)
				j.wait(next)
			}
			j.end()
		}, func(c *ingest.Config) { c.WriteTimeout, c.Heartbeat = 500*time.Millisecond, 600*time.Millisecond })
		ctx, cancel := context.WithTimeout(t.Context(), 2*longEnough)
		defer cancel()
		response := w.do(ctx, "POST", "/v1/chat/completions", streaming)
		if response.ProtoMajor != version || response.TLS.Version != tls.VersionTLS13 || response.StatusCode != 200 {
			t.Fatalf("%s, TLS %x, status %d", response.Proto, response.TLS.Version, response.StatusCode)
		}
		body := bufio.NewReader(response.Body)
		for i := range 3 {
			got := piece(t, body)
			for i > 0 && strings.HasPrefix(got, ":") { // the silence was longer
				got = piece(t, body)
			}
			if !strings.Contains(got, event(i)) {
				t.Fatalf("event %d is %q", i, got)
			}
			for range 2 {
				if got := piece(t, body); !strings.HasPrefix(got, ":") {
					t.Fatalf("in the silence came %q", got)
				}
			}
			next <- struct{}{}
		}
		rest := strings.Builder{}
		if _, err := body.WriteTo(&rest); err != nil || !strings.HasSuffix(rest.String(), done) {
			t.Errorf("the end is %q, %v", rest.String(), err)
		}
		w.chat(`{`).wants(t, 400, "invalid_json")
		w.ask("GET", "/v1/models", "", "X", strings.Repeat("x", 33<<10)).wants(t, 431, "request_too_large")
		w.ask("GET", "/v1/models?"+strings.Repeat("x", 9<<10), "").wants(t, 414, "request_too_large")
	})
}

func TestReaderThatStopsReadingIsGivenUpWithTLS(t *testing.T) {
	t.Parallel()
	eachVersion(t, func(t *testing.T, version int) {
		ids := make(chan string, 1)
		w := secure(t, version, flood(ids, 100), patience(20*time.Millisecond, time.Minute), func(c *ingest.Config) { c.WriteTimeout, c.Heartbeat = time.Second, 500*time.Millisecond })
		w.do(t.Context(), "POST", "/v1/chat/completions", streaming)
		w.cancelled(<-ids)
	})
}

// flood answers with more than all buffers on the way hold, or until the request has ended, and then tells its id.
func flood(ids chan<- string, frames uint64) func(*job) {
	return func(j *job) {
		j.start()
		line := []byte(`{"choices":[],"x":"` + strings.Repeat("x", 200<<10) + `"}`)
		for !j.fenced && j.ctx.Err() == nil && j.index < frames {
			j.write(&schemas.Frame{Kind: schemas.KindDelta, Count: 1, Data: line})
		}
		ids <- j.request.Request
	}
}

// A plain request to a door with TLS is told so, and its connection is closed.
func TestPlainCallerAtDoorWithTLS(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	w := secure(t, 1, nil, func(c *ingest.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelInfo}))
	})
	conn := w.dial("127.0.0.1")
	conn.ask(models).wants(t, 400, "HTTPS")
	conn.closed()
	probe := w.dial("127.0.0.1")
	probe.send("\x16\x03\x01 no handshake")
	_, _ = io.Copy(io.Discard, probe.r)
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	if text := log.String(); text != "" {
		t.Errorf("callers filled the log:\n%s", text)
	}
}

// One connection of HTTP/2 carries no more streams than it may: one more goes over another connection.
func TestStreamsPerConnection(t *testing.T) {
	t.Parallel()
	w := secure(t, 2, hang, func(c *ingest.Config) { c.MaxStreamsPerConnection = 2 })
	var connections []net.Addr
	for range 3 {
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			GotConn: func(info httptrace.GotConnInfo) { connections = append(connections, info.Conn.LocalAddr()) },
		})
		if response := w.do(ctx, "POST", "/v1/chat/completions", streaming); response.StatusCode != 200 {
			t.Fatalf("status %d", response.StatusCode)
		}
	}
	if len(connections) != 3 || connections[0] != connections[1] || connections[1] == connections[2] {
		t.Errorf("three streams went over %v, want two over the first", connections)
	}
}

// Stopping ends an answer over HTTP/2 as it does over HTTP/1.1: in an error, not in a reset.
func TestDrainLimitWithTLS(t *testing.T) {
	t.Parallel()
	w := secure(t, 2, hang, func(c *ingest.Config) { c.DrainLimit = 100 * time.Millisecond })
	response := w.do(t.Context(), "POST", "/v1/chat/completions", streaming)
	if err := w.stop(); err != nil {
		t.Error(err)
	}
	read(response).wants(t, 200, "server_shutdown")
}

package natsd

import (
	"context"
	"log/slog"
	"net"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(runChild(dir))
	}
	os.Exit(m.Run())
}

// logBuffer collects what the server logs at warning and above.
type logBuffer struct {
	mu sync.Mutex
	b  strings.Builder
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func testConfig(dir string) Config { return Config{Dir: dir, Listen: "127.0.0.1:0"} }

func startServer(t *testing.T, cfg Config) *Server {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

func connect(t *testing.T, url string, opts ...nats.Option) *nats.Conn {
	t.Helper()
	nc, err := nats.Connect(url, append(opts, nats.Timeout(time.Minute))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	return nc
}

// pipeline connects as the stages of `weir serve` do.
func pipeline(t *testing.T, s *Server) *nats.Conn {
	t.Helper()
	return connect(t, "", nats.InProcessServer(s), nats.UserInfo(s.Username(), s.Password()))
}

func timeout(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	t.Cleanup(cancel)
	return ctx
}

func streams(t *testing.T, nc *nats.Conn) jetstream.JetStream {
	t.Helper()
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	return js
}

func TestReadyFastAndQuiet(t *testing.T) {
	logs := &logBuffer{}
	cfg := testConfig(t.TempDir())
	cfg.Logger = slog.New(slog.NewTextHandler(logs, nil))
	began := time.Now()
	s := startServer(t, cfg)
	if took := time.Since(began); took > 5*time.Second { // on a loaded machine
		t.Errorf("an empty store took %s to be ready, want under a second when nothing else runs", took)
	}
	if _, err := streams(t, pipeline(t, s)).AccountInfo(timeout(t)); err != nil {
		t.Fatal(err)
	}
	s.Close()
	if got := logs.String(); got != "" {
		t.Errorf("a plain start and stop logged:\n%s", got)
	}
}

func TestListenAnyPort(t *testing.T) {
	s := startServer(t, testConfig(t.TempDir()))
	url := s.ClientURL()
	if !strings.HasPrefix(url, "nats://127.0.0.1:") || strings.HasSuffix(url, ":0") {
		t.Fatalf("ClientURL() = %q, want the real port", url)
	}
	connect(t, url, nats.UserInfo(s.Username(), s.Password()))
}

func TestNoListener(t *testing.T) {
	s := startServer(t, Config{Dir: t.TempDir()})
	if s.ClientURL() != "" || s.ContextFile() != "" {
		t.Errorf("without a listener: url %q, context %q, want none", s.ClientURL(), s.ContextFile())
	}
	pipeline(t, s)
}

func TestAddressInUse(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	cfg := testConfig(t.TempDir())
	cfg.Listen = l.Addr().String()
	_, err = New(cfg)
	if err == nil || !strings.Contains(err.Error(), "address already in use") || !strings.Contains(err.Error(), "choose another") {
		t.Fatalf("New on a taken address: %v, want a clear error", err)
	}
	cfg.Listen = "127.0.0.1:0"
	startServer(t, cfg) // the refused start has not kept the store
}

func TestConfigRefused(t *testing.T) {
	for name, cfg := range map[string]Config{
		"no directory": {},
		"bad address":  {Dir: t.TempDir(), Listen: "nonsense"},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := New(cfg); err == nil {
				t.Error("New accepted it")
			}
		})
	}
}

func TestCloseTwiceAndFreesTheStore(t *testing.T) {
	cfg := testConfig(t.TempDir())
	s := startServer(t, cfg)
	s.Close()
	s.Close()
	startServer(t, cfg)
}

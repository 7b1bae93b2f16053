package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// server is a running `weir serve` with a store of its own.
type server struct {
	http, nats string
	dir, data  string
	command    *exec.Cmd
	printed    *lockedBuffer
	exited     chan struct{}
	roots      *x509.CertPool // of its certificate; nil when it is plain
}

// startServer returns when the server is ready. Without more arguments it has no configuration, and so the echo model.
func startServer(ctx context.Context, program, dir string, args ...string) (*server, error) {
	return startServerWith(ctx, nil, program, dir, args...)
}

// startServerWith is startServer for one whose configuration has certificates of roots, for HTTP and NATS alike.
func startServerWith(ctx context.Context, roots *x509.CertPool, program, dir string, args ...string) (*server, error) {
	var addrs [3]string
	for i := range addrs {
		addr, err := freeAddr()
		if err != nil {
			return nil, err
		}
		addrs[i] = addr
	}
	s := &server{http: "http://" + addrs[0], nats: "nats://" + addrs[1], dir: dir, data: filepath.Join(dir, "data"),
		printed: &lockedBuffer{}, exited: make(chan struct{}), roots: roots}
	if roots != nil {
		s.http, s.nats = "https://"+addrs[0], "tls://"+addrs[1]
	}
	s.command = exec.Command(program, append([]string{"serve", "--data-dir", s.data, "--http", addrs[0], "--nats", addrs[1],
		"--admin", addrs[2], "--log-level", "warn", "--json"}, args...)...)
	s.command.Stdout, s.command.Stderr = s.printed, s.printed
	if err := s.command.Start(); err != nil {
		return nil, fmt.Errorf("start weir: %w", err)
	}
	go func() {
		_ = s.command.Wait() // the exit status says nothing that its output does not
		close(s.exited)
	}()
	if err := s.waitReady(ctx); err != nil {
		_ = s.Close()
		return nil, fmt.Errorf("%w; it printed:\n%s", err, s.output())
	}
	return s, nil
}

func (s *server) waitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, checkLimit)
	defer cancel()
	return poll(ctx, func() (bool, error) {
		select {
		case <-s.exited:
			return false, fmt.Errorf("weir serve ended before it was ready")
		default:
		}
		status, _, err := s.get(ctx, "/readyz")
		return err == nil && status == http.StatusOK, nil
	})
}

// get returns the status and the body.
func (s *server) get(ctx context.Context, path string) (int, []byte, error) {
	return s.do(ctx, http.MethodGet, path, nil, nil)
}

func (s *server) do(ctx context.Context, method, path string, header http.Header, body []byte) (int, []byte, error) {
	request, err := http.NewRequestWithContext(ctx, method, s.http+path, bytes.NewReader(body))
	if err != nil {
		return 0, nil, err
	}
	if header != nil {
		request.Header = header
	}
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: s.roots}}}
	response, err := client.Do(request)
	if err != nil {
		return 0, nil, err
	}
	defer func() { _ = response.Body.Close() }()
	var data bytes.Buffer
	_, err = data.ReadFrom(response.Body)
	return response.StatusCode, data.Bytes(), err
}

func (s *server) output() string { return s.printed.String() }

// Close ends the server, gently at first.
func (s *server) Close() error {
	_ = s.command.Process.Signal(syscall.SIGTERM) // it may have ended by itself
	select {
	case <-s.exited:
		return nil
	case <-time.After(checkLimit):
		_ = s.command.Process.Kill()
		<-s.exited
		return fmt.Errorf("weir serve did not stop within %v of SIGTERM and was killed", checkLimit)
	}
}

// poll calls done every 50 ms until it is, fails, or the context ends.
func poll(ctx context.Context, done func() (bool, error)) error {
	ticks := time.NewTicker(50 * time.Millisecond)
	defer ticks.Stop()
	for {
		if ok, err := done(); ok || err != nil {
			return err
		}
		select {
		case <-ticks.C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// freeAddr returns a loopback address that nobody listens on. It is not of those that a system gives to whoever asks for any
// port, because the server listens there only a moment later.
func freeAddr() (string, error) {
	for tries := 0; ; tries++ {
		listener, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", 10_000+rand.IntN(20_000)))
		if err == nil {
			return listener.Addr().String(), listener.Close()
		}
		if tries == 1000 {
			return "", err
		}
	}
}

// lockedBuffer is a buffer that is safe for concurrent use.
type lockedBuffer struct {
	mu     sync.Mutex
	buffer bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buffer.String()
}

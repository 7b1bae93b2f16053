package inference_test

import (
	"bytes"
	"net"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/natsd"
)

// proxy stands between a worker and the server. While it is paused nothing passes in either direction and nothing is lost,
// as for a process that is stopped.
type proxy struct {
	listener net.Listener
	passing  sync.RWMutex // held for writing while it is paused
	paused   atomic.Bool
	running  sync.WaitGroup
	trap     atomic.Pointer[trap] // nil unless it is to pause by itself

	mu    sync.Mutex
	conns []net.Conn
}

// trap pauses a proxy when the worker sends words.
type trap struct {
	words  string
	passes bool          // the words are what passes last, rather than what is held up first
	sprung chan struct{} // closed when it is paused
}

// pauseAt lays a trap.
func (p *proxy) pauseAt(words string, passes bool) *trap {
	t := &trap{words: words, passes: passes, sprung: make(chan struct{})}
	p.trap.Store(t)
	return t
}

func newProxy(t testing.TB, server *natsd.Server) *proxy {
	t.Helper()
	target, err := url.Parse(server.ClientURL())
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &proxy{listener: listener}
	p.running.Go(func() { p.accept(target.Host) })
	t.Cleanup(func() {
		_ = listener.Close()
		p.hangUp()
		p.resume()
		p.running.Wait()
	})
	return p
}

func (p *proxy) accept(target string) {
	for {
		near, err := p.listener.Accept()
		if err != nil {
			return
		}
		far, err := net.Dial("tcp", target)
		if err != nil {
			_ = near.Close()
			continue
		}
		p.mu.Lock()
		p.conns = append(p.conns, near, far)
		p.mu.Unlock()
		p.running.Go(func() { p.copy(near, far, p.spring) })
		p.running.Go(func() { p.copy(far, near, p.pass) })
	}
}

func (p *proxy) copy(from, to net.Conn, write func(to net.Conn, data []byte) error) {
	defer func() { _, _ = from.Close(), to.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		if failed := write(to, buf[:n]); err != nil || failed != nil {
			return
		}
	}
}

func (p *proxy) pass(to net.Conn, data []byte) error {
	p.passing.RLock()
	defer p.passing.RUnlock()
	_, err := to.Write(data)
	return err
}

// spring passes data on, and pauses before or behind it when it holds the words of a trap.
func (p *proxy) spring(to net.Conn, data []byte) error {
	t := p.trap.Load()
	if t == nil || !bytes.Contains(data, []byte(t.words)) || !p.trap.CompareAndSwap(t, nil) {
		return p.pass(to, data)
	}
	p.pause()
	if !t.passes {
		close(t.sprung)
		return p.pass(to, data)
	}
	defer close(t.sprung)
	_, err := to.Write(data)
	return err
}

func (p *proxy) pause() {
	p.passing.Lock()
	p.paused.Store(true)
}

func (p *proxy) resume() {
	if p.paused.Swap(false) {
		p.passing.Unlock()
	}
}

// hangUp closes all connections, with what is held up in them.
func (p *proxy) hangUp() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, conn := range p.conns {
		_ = conn.Close()
	}
	p.conns = nil
}

// connect opens a bus through the proxy.
func (p *proxy) connect(t testing.TB, lease time.Duration) *bus.Bus {
	t.Helper()
	b, err := bus.Connect(t.Context(), bus.Config{URL: "nats://" + p.listener.Addr().String(), Name: "proxied", Lease: lease})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

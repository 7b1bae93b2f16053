package inference_test

import (
	"net"
	"net/url"
	"sync"
	"testing"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/natsd"
)

// proxy stands between a worker and the server. While it is paused nothing passes in either direction and nothing is lost,
// as for a process that is stopped.
type proxy struct {
	listener net.Listener
	passing  sync.RWMutex // held for writing while it is paused
	running  sync.WaitGroup

	mu    sync.Mutex
	conns []net.Conn
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
		p.mu.Lock()
		for _, conn := range p.conns {
			_ = conn.Close()
		}
		p.mu.Unlock()
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
		p.running.Go(func() { p.copy(near, far) })
		p.running.Go(func() { p.copy(far, near) })
	}
}

func (p *proxy) copy(from, to net.Conn) {
	defer func() { _, _ = from.Close(), to.Close() }()
	buf := make([]byte, 32<<10)
	for {
		n, err := from.Read(buf)
		p.passing.RLock()
		_, failed := to.Write(buf[:n])
		p.passing.RUnlock()
		if err != nil || failed != nil {
			return
		}
	}
}

func (p *proxy) pause()  { p.passing.Lock() }
func (p *proxy) resume() { p.passing.Unlock() }

// connect opens a bus through the proxy.
func (p *proxy) connect(t testing.TB) *bus.Bus {
	t.Helper()
	b, err := bus.Connect(t.Context(), bus.Config{URL: "nats://" + p.listener.Addr().String(), Name: "proxied", Lease: lease})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

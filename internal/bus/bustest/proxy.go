package bustest

import (
	"bytes"
	"io"
	"net"
	"strings"
	"sync"
	"testing"
)

// Direction is a way through a [Proxy].
type Direction int

// The directions.
const (
	ToServer Direction = iota
	ToClient
)

// Flow is what a [Proxy] does with the bytes of a direction.
type Flow int

// The flows.
const (
	Pass Flow = iota
	Hold      // bytes wait until the flow is another
	Drop      // bytes are swallowed; [Proxy.Cut] before they pass again, or the protocol is torn
)

// swap is what is left of a [Proxy.Swap].
type swap struct {
	old, new []byte
	left     int
}

type watch struct {
	text []byte
	flow Flow
	seen chan struct{}
}

// Proxy stands between clients and a server and loses, delays and cuts what goes through it. It is safe for concurrent
// use and ends with the test.
type Proxy struct {
	listener net.Listener
	work     sync.WaitGroup

	mu      sync.Mutex
	changed *sync.Cond
	server  string
	flow    [2]Flow
	watch   [2]*watch
	swap    [2]swap
	conns   map[net.Conn]bool
	closed  bool
}

// NewProxy listens on a port of its own for clients of the server at a nats:// URL.
func NewProxy(t testing.TB, serverURL string) *Proxy {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p := &Proxy{listener: listener, conns: map[net.Conn]bool{}}
	p.changed = sync.NewCond(&p.mu)
	p.Lead(serverURL)
	p.work.Go(p.accept)
	t.Cleanup(p.close)
	return p
}

// URL is where clients connect.
func (p *Proxy) URL() string { return "nats://" + p.listener.Addr().String() }

// Lead sends later connections to another server.
func (p *Proxy) Lead(serverURL string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.server = strings.TrimPrefix(serverURL, "nats://")
}

// Set changes the flow of a direction for all connections.
func (p *Proxy) Set(d Direction, f Flow) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.flow[d] = f
	p.changed.Broadcast()
}

// At changes the flow of a direction when a text goes by, from the bytes on that hold it, and closes the channel then. A
// direction waits for one text at a time.
func (p *Proxy) At(d Direction, text string, f Flow) <-chan struct{} {
	w := &watch{text: []byte(text), flow: f, seen: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.watch[d] = w
	return w.seen
}

// Swap puts another text of the same length in the place of a text, the next times that it goes by.
func (p *Proxy) Swap(d Direction, old, new string, times int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.swap[d] = swap{old: []byte(old), new: []byte(new), left: times}
}

// Cut ends all connections, with what is held of them, and lets later ones pass. Clients may connect again at once.
func (p *Proxy) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.cut()
	p.flow = [2]Flow{}
}

// cut needs mu.
func (p *Proxy) cut() {
	for conn := range p.conns {
		conn.Close()
		delete(p.conns, conn)
	}
	p.changed.Broadcast()
}

func (p *Proxy) close() {
	p.listener.Close()
	p.mu.Lock()
	p.closed = true
	p.cut()
	p.mu.Unlock()
	p.work.Wait()
}

func (p *Proxy) accept() {
	for {
		client, err := p.listener.Accept()
		if err != nil {
			return
		}
		p.mu.Lock()
		address := p.server
		p.mu.Unlock()
		server, err := net.Dial("tcp", address)
		if err != nil || !p.keep(client, server) {
			client.Close()
			continue
		}
		p.work.Go(func() { p.pump(ToServer, server, client) })
		p.work.Go(func() { p.pump(ToClient, client, server) })
	}
}

func (p *Proxy) keep(client, server net.Conn) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		server.Close()
		return false
	}
	p.conns[client], p.conns[server] = true, true
	return true
}

func (p *Proxy) pump(d Direction, to io.WriteCloser, from net.Conn) {
	defer to.Close()
	defer from.Close()
	buffer := make([]byte, 64<<10)
	for {
		n, err := from.Read(buffer)
		if err != nil {
			return
		}
		if p.passes(d, from, buffer[:n]) {
			if _, err := to.Write(buffer[:n]); err != nil {
				return
			}
		}
	}
}

// passes waits while the direction is held, and reports whether bytes of a connection may go on.
func (p *Proxy) passes(d Direction, conn net.Conn, b []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if w := p.watch[d]; w != nil && bytes.Contains(b, w.text) {
		p.flow[d], p.watch[d] = w.flow, nil
		close(w.seen)
	}
	for s := &p.swap[d]; s.left > 0; s.left-- {
		i := bytes.Index(b, s.old)
		if i < 0 {
			break
		}
		copy(b[i:], s.new)
	}
	for p.flow[d] == Hold && p.conns[conn] {
		p.changed.Wait()
	}
	return p.flow[d] != Drop && p.conns[conn]
}

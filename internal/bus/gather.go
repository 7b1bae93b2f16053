package bus

import (
	"net"
	"runtime"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
)

const (
	// gatherBytes is how much may wait before a writer waits too.
	gatherBytes = 256 << 10
	// keptGatherBytes is how large a buffer is kept for the next writes.
	keptGatherBytes = 64 << 10
	// gatherTimeout is how long the server may take nothing until the connection is given up, as in the library.
	gatherTimeout = time.Minute
	// gatherClosing is how long what was written may take to leave when the connection is closed.
	gatherClosing = 250 * time.Millisecond
)

// gatherConn is a connection whose writes leave together. The library writes what it has whenever a message is published
// and it is not writing already; with many publishers that is a system call for nearly each message, here and at the
// server. Write only notes the bytes, and a goroutine sends them once everything else that could run had its turn: at low
// load that is at once, and under load few large writes. No timer delays anything.
//
// Write returns before the bytes are sent. When they cannot be sent the connection is closed, which whoever reads from it
// learns, and Write returns why. Close sends what was written, for gatherClosing at most.
type gatherConn struct {
	net.Conn

	mu      sync.Mutex
	changed sync.Cond // of what follows
	waiting []byte
	closed  bool
	failed  error

	done chan struct{} // closed when nothing more is sent
}

func newGatherConn(conn net.Conn) *gatherConn {
	g := &gatherConn{Conn: conn, done: make(chan struct{})}
	g.changed.L = &g.mu
	go g.run()
	return g
}

// Write blocks only while gatherBytes wait.
func (g *gatherConn) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.waiting) >= gatherBytes && g.failed == nil && !g.closed {
		g.changed.Wait()
	}
	switch {
	case g.failed != nil:
		return 0, g.failed
	case g.closed:
		return 0, net.ErrClosed
	}
	g.waiting = append(g.waiting, p...)
	g.changed.Broadcast()
	return len(p), nil
}

func (g *gatherConn) run() {
	defer close(g.done)
	var sent []byte
	for g.wait() {
		runtime.Gosched()
		out, deadline := g.take(sent)
		_ = g.Conn.SetWriteDeadline(deadline)
		if _, err := g.Conn.Write(out); err != nil {
			g.fail(err)
			return
		}
		if sent = out; cap(sent) > keptGatherBytes {
			sent = nil
		}
	}
}

// wait reports whether there is something to send. It blocks until there is, or until the connection is closed.
func (g *gatherConn) wait() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(g.waiting) == 0 && !g.closed {
		g.changed.Wait()
	}
	return len(g.waiting) > 0
}

// take exchanges what waits for an empty buffer, and says until when it must be sent.
func (g *gatherConn) take(empty []byte) ([]byte, time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	out := g.waiting
	g.waiting = empty[:0]
	g.changed.Broadcast()
	if g.closed {
		return out, time.Now().Add(gatherClosing)
	}
	return out, time.Now().Add(gatherTimeout)
}

func (g *gatherConn) fail(err error) {
	_ = g.Conn.Close()
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failed = err
	g.changed.Broadcast()
}

// Close closes the connection once what was written has left.
func (g *gatherConn) Close() error {
	g.mu.Lock()
	if !g.closed {
		g.closed = true
		_ = g.Conn.SetWriteDeadline(time.Now().Add(gatherClosing)) // of a write that is under way
	}
	g.changed.Broadcast()
	g.mu.Unlock()
	<-g.done
	return g.Conn.Close()
}

// SetDeadline is of reads alone: when writes must have ended is known here.
func (g *gatherConn) SetDeadline(t time.Time) error { return g.Conn.SetReadDeadline(t) }

// SetWriteDeadline does nothing, as SetDeadline says.
func (g *gatherConn) SetWriteDeadline(time.Time) error { return nil }

// gatherDialer makes the connections of the library gather.
type gatherDialer struct{ net.Dialer }

func (d *gatherDialer) Dial(network, address string) (net.Conn, error) {
	return gathering(d.Dialer.Dial(network, address))
}

// gatherPipes are connections to an embedded server, which gather too.
type gatherPipes struct{ InProcess }

func (p gatherPipes) InProcessConn() (net.Conn, error) {
	return gathering(p.InProcess.InProcessConn())
}

func gathering(conn net.Conn, err error) (net.Conn, error) {
	if err != nil {
		return nil, err
	}
	return newGatherConn(conn), nil
}

var _ nats.InProcessConnProvider = gatherPipes{}

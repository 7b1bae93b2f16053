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
// Write returns before the bytes are sent. When they cannot be sent the connection is closed, and Read and Write return
// why. Close sends what was written, for gatherClosing at most.
//
// A connection with nothing to send has no goroutine. The library forgets without Close each connection that it made
// again in vain, as when the server refuses it, and the collector closes it then.
type gatherConn struct {
	net.Conn

	mu      sync.Mutex
	changed sync.Cond // of what follows
	waiting []byte
	sending bool // whether send runs
	closed  bool
	until   time.Time // when everything must be sent, once closed
	failed  error

	leaving []byte // of send alone
}

func newGatherConn(conn net.Conn) *gatherConn {
	g := &gatherConn{Conn: conn}
	g.changed.L = &g.mu
	return g
}

// Write blocks only while gatherBytes wait. Nothing need not wait: the library writes that before it closes.
func (g *gatherConn) Write(p []byte) (int, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	for len(p) > 0 && len(g.waiting) >= gatherBytes && g.failed == nil && !g.closed {
		g.changed.Wait()
	}
	switch {
	case g.failed != nil:
		return 0, g.failed
	case g.closed:
		return 0, net.ErrClosed
	}
	g.waiting = append(g.waiting, p...)
	if !g.sending && len(p) > 0 {
		g.sending = true
		go g.send()
	}
	return len(p), nil
}

// Read fails with what kept the bytes from being sent, if that closed the connection.
func (g *gatherConn) Read(p []byte) (int, error) {
	n, err := g.Conn.Read(p)
	if err == nil {
		return n, nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.failed != nil {
		err = g.failed
	}
	return n, err
}

// send sends until nothing waits.
func (g *gatherConn) send() {
	for g.more() {
		runtime.Gosched()
		g.take()
		if _, err := g.Conn.Write(g.leaving); err != nil {
			g.fail(err)
			return
		}
	}
}

// more reports whether something waits. If not, the next Write calls send again.
func (g *gatherConn) more() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if cap(g.leaving) > keptGatherBytes {
		g.leaving = nil
	}
	if g.sending = len(g.waiting) > 0; !g.sending {
		g.changed.Broadcast()
	}
	return g.sending
}

// take exchanges what waits for an empty buffer, and says until when it must be sent.
func (g *gatherConn) take() {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.waiting, g.leaving = g.leaving[:0], g.waiting
	g.changed.Broadcast()
	until := g.until
	if !g.closed {
		until = time.Now().Add(gatherTimeout)
	}
	_ = g.Conn.SetWriteDeadline(until) // under the lock, so that it does not undo that of Close
}

func (g *gatherConn) fail(err error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.failed, g.sending = err, false
	g.changed.Broadcast()
	_ = g.Conn.Close()
}

// Close closes the connection once what was written has left.
func (g *gatherConn) Close() error {
	g.mu.Lock()
	if !g.closed {
		g.closed, g.until = true, time.Now().Add(gatherClosing)
		_ = g.Conn.SetWriteDeadline(g.until) // of a write that is under way
		g.changed.Broadcast()
	}
	for g.sending {
		g.changed.Wait()
	}
	g.mu.Unlock()
	return g.Conn.Close()
}

// SetDeadline is of reads alone: when writes must have ended is known here.
func (g *gatherConn) SetDeadline(t time.Time) error { return g.Conn.SetReadDeadline(t) }

// SetWriteDeadline does nothing, as SetDeadline says.
func (g *gatherConn) SetWriteDeadline(time.Time) error { return nil }

// gather is an option with which the connections of the library gather, whoever dials them: a context may name a proxy.
func gather(o *nats.Options) error {
	if o.CustomDialer == nil {
		o.CustomDialer = &net.Dialer{Timeout: o.Timeout}
	}
	o.CustomDialer = gatherDialer{o.CustomDialer}
	return nil
}

type gatherDialer struct{ nats.CustomDialer }

func (d gatherDialer) Dial(network, address string) (net.Conn, error) {
	return gathering(d.CustomDialer.Dial(network, address))
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

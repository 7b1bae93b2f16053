package ingest

import (
	"net"
	"net/netip"
	"sync"
	"sync/atomic"
)

// connections is a listener that bounds how many connections are open, in all and from one address. One more is closed
// before anything is read from it: an answer would cost what the bound is there to save. Proxies that are trusted to tell
// the caller's address are not bounded, because they are many callers.
type connections struct {
	net.Listener
	all, perAddress int
	trusted         proxies
	refused         func()

	mu        sync.Mutex
	open      int
	addresses map[netip.Addr]int
}

func boundConnections(l net.Listener, all, perAddress int, trusted proxies, refused func()) *connections {
	return &connections{Listener: l, all: all, perAddress: perAddress, trusted: trusted, refused: refused, addresses: make(map[netip.Addr]int)}
}

// Accept returns the next connection that there is room for.
func (c *connections) Accept() (net.Conn, error) {
	for {
		conn, err := c.Listener.Accept()
		if err != nil {
			return nil, err
		}
		tcp, ok := conn.(*net.TCPConn)
		if !ok {
			return conn, nil
		}
		addr := tcp.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap()
		trusted := c.trusted.trust(addr)
		addr = subscriber(addr)
		if !c.enter(addr, trusted) {
			c.refused()
			_ = conn.Close()
			continue
		}
		return &counted{TCPConn: tcp, of: c, addr: addr}, nil
	}
}

func (c *connections) enter(addr netip.Addr, trusted bool) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.open >= c.all || !trusted && c.addresses[addr] >= c.perAddress {
		return false
	}
	c.open++
	c.addresses[addr]++
	return true
}

func (c *connections) leave(addr netip.Addr) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.open--
	leave(c.addresses, addr)
}

// counted is a connection that is counted until it is closed. It stays a TCP connection to net/http, which shuts one half
// down before it closes after an error, so that the answer arrives.
type counted struct {
	*net.TCPConn
	of   *connections
	addr netip.Addr
	left atomic.Bool
}

// Close closes the connection and makes room for another.
func (c *counted) Close() error {
	if c.left.CompareAndSwap(false, true) {
		c.of.leave(c.addr)
	}
	return c.TCPConn.Close()
}

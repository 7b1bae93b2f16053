package rpc

import (
	"context"
	"crypto/tls"
	"net"
	"sync/atomic"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/certs"
)

// dialer opens the connection and remembers why that failed last, which a call's status only tells in text.
type dialer struct {
	addresses   upstream.Addresses // that may be connected to
	authorities *certs.Client      // nil for a plain connection
	failed      atomic.Pointer[dialFailure]
}

type dialFailure struct{ err error }

// dial opens a connection.
func (d *dialer) dial(ctx context.Context, address string) (net.Conn, error) {
	// Pings find a dead server only while calls run; the kernel's probes find it also in between.
	conn, err := d.addresses.Dialer(0).DialContext(ctx, "tcp", address)
	if err != nil || d.authorities == nil { // else it is not made before the handshake
		d.note(err)
	}
	return conn, err
}

// note remembers a failure until a connection is made.
func (d *dialer) note(err error) {
	if err == nil {
		d.failed.Store(nil)
		return
	}
	d.failed.Store(&dialFailure{err})
}

// last is why the last attempt to connect failed, or nil if it did not.
func (d *dialer) last() error {
	if f := d.failed.Load(); f != nil {
		return f.err
	}
	return nil
}

func (d *dialer) credentials() credentials.TransportCredentials {
	if d.authorities == nil {
		return insecure.NewCredentials()
	}
	return &handshake{TransportCredentials: credentials.NewTLS(nil), dialer: d}
}

// handshake is TLS with the authorities as they are in the file when the connection is made.
type handshake struct {
	credentials.TransportCredentials
	dialer *dialer
}

// ClientHandshake makes the connection secure.
func (h *handshake) ClientHandshake(ctx context.Context, authority string, raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	roots, err := h.dialer.authorities.Roots()
	if err != nil {
		h.dialer.note(err)
		return nil, nil, err
	}
	conn, info, err := credentials.NewTLS(&tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}).ClientHandshake(ctx, authority, raw)
	h.dialer.note(err)
	return conn, info, err
}

// Clone as the library asks for.
func (h *handshake) Clone() credentials.TransportCredentials {
	return &handshake{TransportCredentials: h.TransportCredentials.Clone(), dialer: h.dialer}
}

// Package rpctest has what the fake gRPC servers of tests share: a real server on a real connection that can be broken.
package rpctest

import (
	"context"
	"net"
	"strings"
	"sync"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// Server is a running server. It is safe for concurrent use.
type Server struct {
	Address string // host:port
	GRPC    *grpc.Server

	listener net.Listener
	gone     chan struct{}

	wrote *sync.Cond // on mu

	mu          sync.Mutex
	written     []byte // the end of it, of all connections
	connections []net.Conn
	accepted    int
	calls       []metadata.MD
	live        int // calls that run
}

// New starts a server that is stopped with the test. Register adds its services.
func New(t testing.TB, register func(*grpc.Server), options ...grpc.ServerOption) *Server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &Server{Address: listener.Addr().String(), gone: make(chan struct{}, 100)}
	s.listener = &counting{listener, s}
	s.wrote = sync.NewCond(&s.mu)
	s.GRPC = grpc.NewServer(append(options, grpc.ChainStreamInterceptor(s.stream), grpc.ChainUnaryInterceptor(s.unary))...)
	register(s.GRPC)
	var serving sync.WaitGroup
	serving.Go(func() { _ = s.GRPC.Serve(s.listener) })
	t.Cleanup(func() {
		s.GRPC.Stop()
		serving.Wait()
	})
	return s
}

// TLS is the option of a server with a certificate.
func TLS(t testing.TB, cert, key string) grpc.ServerOption {
	t.Helper()
	c, err := credentials.NewServerTLSFromFile(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	return grpc.Creds(c)
}

// Break closes every connection as a crash does, once what the server sent last has left it: the library writes behind the
// back of its caller.
func (s *Server) Break(after string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for !strings.Contains(string(s.written), after) {
		s.wrote.Wait()
	}
	for _, c := range s.connections {
		_ = c.Close()
	}
	s.connections = nil
}

// Connections is how many were accepted so far.
func (s *Server) Connections() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.accepted
}

// Calls lists the metadata of every call so far.
func (s *Server) Calls() []metadata.MD {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]metadata.MD(nil), s.calls...)
}

// Live is how many calls run.
func (s *Server) Live() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.live
}

// Gone gets a value when a caller leaves before its answer is whole.
func (s *Server) Gone() <-chan struct{} { return s.gone }

// Wait stays silent until the caller leaves, and returns what the call ends with.
func (s *Server) Wait(ctx context.Context) error {
	<-ctx.Done()
	s.Left()
	return status.FromContextError(ctx.Err()).Err()
}

// Left notes that a caller has left.
func (s *Server) Left() {
	select {
	case s.gone <- struct{}{}:
	default:
	}
}

func (s *Server) stream(srv any, stream grpc.ServerStream, _ *grpc.StreamServerInfo, handler grpc.StreamHandler) error {
	defer s.called(stream.Context())()
	return handler(srv, stream)
}

func (s *Server) unary(ctx context.Context, request any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	defer s.called(ctx)()
	return handler(ctx, request)
}

func (s *Server) called(ctx context.Context) (done func()) {
	header, _ := metadata.FromIncomingContext(ctx)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.calls = append(s.calls, header)
	s.live++
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.live--
	}
}

// counting is a listener whose connections the server can break.
type counting struct {
	net.Listener
	server *Server
}

func (l *counting) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	l.server.mu.Lock()
	defer l.server.mu.Unlock()
	l.server.connections = append(l.server.connections, c)
	l.server.accepted++
	return &noting{c, l.server}, nil
}

// noting is a connection that says what was written.
type noting struct {
	net.Conn
	server *Server
}

const keepWritten = 64 << 10

func (c *noting) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.server.mu.Lock()
	defer c.server.mu.Unlock()
	c.server.written = append(c.server.written, p[max(0, n-keepWritten):n]...)
	c.server.written = c.server.written[max(0, len(c.server.written)-keepWritten):]
	c.server.wrote.Broadcast()
	return n, err
}

// Lost is the status of a call whose connection was broken; nobody reads it.
func Lost() error { return status.Error(codes.Unavailable, "the connection is gone") }

package backendv1_test

import (
	"context"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendv1"
	"github.com/weir-llm/weir/inference/rpc/rpctest"
	"github.com/weir-llm/weir/internal/certs/certstest"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	pb "github.com/weir-llm/weir/internal/pb/backendv1"
	"github.com/weir-llm/weir/schemas"
)

// TestStatus has the statuses of servers that explain nothing, as [docs/grpc.md] lists them.
func TestStatus(t *testing.T) {
	t.Parallel()
	for code, want := range map[codes.Code]struct {
		code   schemas.Code
		status int
	}{
		codes.Canceled:           {schemas.CodeUpstreamError, 502},
		codes.Unknown:            {schemas.CodeUpstreamError, 502},
		codes.InvalidArgument:    {schemas.CodeUpstreamRejected, 400},
		codes.DeadlineExceeded:   {schemas.CodeUpstreamTimeout, 504},
		codes.NotFound:           {schemas.CodeModelNotFound, 404},
		codes.AlreadyExists:      {schemas.CodeUpstreamError, 502},
		codes.PermissionDenied:   {schemas.CodeUpstreamAuth, 403},
		codes.ResourceExhausted:  {schemas.CodeRateLimit, 429},
		codes.FailedPrecondition: {schemas.CodeUpstreamRejected, 400},
		codes.Aborted:            {schemas.CodeUpstreamError, 503},
		codes.OutOfRange:         {schemas.CodeUpstreamRejected, 400},
		codes.Unimplemented:      {schemas.CodeUnsupported, 501},
		codes.Internal:           {schemas.CodeUpstreamError, 502},
		codes.Unavailable:        {schemas.CodeUpstreamError, 503},
		codes.DataLoss:           {schemas.CodeUpstreamError, 502},
		codes.Unauthenticated:    {schemas.CodeUpstreamAuth, 401},
	} {
		t.Run(code.String(), func(t *testing.T) {
			t.Parallel()
			server := serve(t, func(*pb.GenerateRequest, grpc.ServerStreamingServer[pb.GenerateEvent]) error {
				return status.Error(code, "the words of the server")
			})
			a := ask(t.Context(), backend(t, backendv1.Config{URL: "grpc://" + server.Address}), request(chat))
			if a.err == nil || a.err.Code != want.code {
				t.Fatalf("error %v, want %s", a.err, want.code)
			}
			if got := statusOf(a.err); got != want.status {
				t.Errorf("counts as HTTP %d, want %d", got, want.status)
			}
			if strings.Contains(a.err.Message, "HTTP") || want.status != 400 && strings.Contains(a.err.Error(), "words") {
				t.Errorf("the message is %q", a.err.Error())
			}
		})
	}
}

func statusOf(err error) int {
	for err != nil {
		if s, ok := err.(interface{ HTTPStatus() int }); ok {
			return s.HTTPStatus()
		}
		u, ok := err.(interface{ Unwrap() error })
		if !ok {
			return 0
		}
		err = u.Unwrap()
	}
	return 0
}

func TestReasons(t *testing.T) {
	t.Parallel()
	for reason, want := range map[schemas.Code]schemas.Code{
		schemas.CodeContextLength: schemas.CodeContextLength, schemas.CodeContentFilter: schemas.CodeContentFilter,
		schemas.CodeModelNotFound: schemas.CodeModelNotFound, schemas.CodeRateLimit: schemas.CodeRateLimit,
		schemas.CodeOverloaded: schemas.CodeOverloaded, schemas.CodeQuota: schemas.CodeUpstreamAuth,
		schemas.CodeUnsupported: schemas.CodeUpstreamRejected, schemas.CodeUpstreamTimeout: schemas.CodeUpstreamTimeout,
		"what_nobody_knows": schemas.CodeUpstreamError,
	} {
		server := serve(t, func(*pb.GenerateRequest, grpc.ServerStreamingServer[pb.GenerateEvent]) error {
			return failure(codes.Unknown, reason, 1500*time.Millisecond)
		})
		a := ask(t.Context(), backend(t, backendv1.Config{URL: "grpc://" + server.Address}), request(chat))
		if a.err == nil || a.err.Code != want || a.err.RetryAfter != 1500*time.Millisecond {
			t.Errorf("%s: error %v after %v, want %s", reason, a.err, a.err.RetryAfter, want)
		}
	}
}

// answering is a Generate that answers whole.
var answering = says(ending(&pb.Final{}, openaitest.Answer("hi")...))

func TestOneConnection(t *testing.T) {
	t.Parallel()
	server := serve(t, answering)
	b := backend(t, backendv1.Config{URL: "grpc://" + server.Address})
	var calls sync.WaitGroup
	for range 20 {
		calls.Go(func() {
			for range 5 {
				if a := ask(t.Context(), b, request(chat)); a.err != nil {
					t.Error(a.err)
				}
			}
		})
	}
	calls.Wait()
	if n := server.Connections(); n != 1 {
		t.Errorf("100 calls used %d connections, want 1", n)
	}
	server.Break("")
	if a := ask(t.Context(), b, request(chat)); a.err != nil && a.err.Code != schemas.CodeUpstreamError {
		t.Errorf("right after the connection broke: %v, want an answer or %s, which is tried again", a.err, schemas.CodeUpstreamError)
	}
	waitFor(t, "a new connection", func() bool { return ask(t.Context(), b, request(chat)).err == nil })
}

// A server that says goodbye finishes what it has begun, and the next call goes elsewhere.
func TestGoAway(t *testing.T) {
	t.Parallel()
	begun, goOn := make(chan struct{}), make(chan struct{})
	answer := openaitest.Answer("a", "b")
	server := serve(t, func(_ *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
		if err := stream.Send(chunks(answer[:2]...)); err != nil {
			return err
		}
		close(begun)
		<-goOn
		return stream.Send(ending(&pb.Final{}, answer[2:]...))
	})
	b := backend(t, backendv1.Config{URL: "grpc://" + server.Address, Timeouts: inference.Timeouts{Connect: 10 * time.Second}})
	running := make(chan said)
	go func() { running <- ask(t.Context(), b, request(chat)) }()
	<-begun
	stopped := make(chan struct{})
	go func() { defer close(stopped); server.GRPC.GracefulStop() }()
	// The goaway is on its way; calls are refused as soon as it is there, and the first may still be let in.
	waitFor(t, "the server to refuse", func() bool {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		defer cancel()
		_, err := b.Models(ctx)
		refused := err != nil && schemas.AsError(err).Code == schemas.CodeUpstreamError
		return refused
	})
	close(goOn)
	if a := <-running; a.err != nil || len(a.events) != len(answer) {
		t.Errorf("the answer that had begun: %d events, then %v", len(a.events), a.err)
	}
	<-stopped
}

func TestCancelReachesTheServer(t *testing.T) {
	t.Parallel()
	begun := make(chan struct{})
	server := serve(t, nil)
	server.generate = func(_ *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
		close(begun)
		return server.Wait(stream.Context())
	}
	b := backend(t, backendv1.Config{URL: "grpc://" + server.Address})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-begun; cancel() }()
	if a := ask(ctx, b, request(chat)); a.err == nil || a.err.Code != schemas.CodeCancelled {
		t.Errorf("error %v, want %s", a.err, schemas.CodeCancelled)
	}
	select {
	case <-server.Gone():
	case <-time.After(time.Minute):
		t.Error("the model runs on")
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	authority, stranger := certstest.NewAuthority(t), certstest.NewAuthority(t)
	pair := authority.Issue("127.0.0.1")
	s := &scripted{generate: answering}
	s.Server = rpctest.New(t, func(g *grpc.Server) { pb.RegisterBackendServer(g, s) }, rpctest.TLS(t, pair.Cert, pair.Key))
	file := filepath.Join(t.TempDir(), "ca.pem")
	stranger.WriteTo(file)
	for name, config := range map[string]backendv1.Config{
		"unknown to the system": {URL: "grpcs://" + s.Address}, "another authority": {URL: "grpcs://" + s.Address, CA: stranger.File()},
	} {
		a := ask(t.Context(), backend(t, config), request(chat))
		if a.err == nil || a.err.Code != schemas.CodeUpstreamError || !strings.Contains(a.err.Message, "TLS failed") {
			t.Errorf("%s: error %v, want one that names TLS", name, a.err)
		}
	}
	if a := ask(t.Context(), backend(t, backendv1.Config{URL: "grpc://" + s.Address}), request(chat)); a.err == nil || a.err.Code != schemas.CodeUpstreamError {
		t.Errorf("plain: error %v, want %s", a.err, schemas.CodeUpstreamError)
	}
	if a := ask(t.Context(), backend(t, backendv1.Config{URL: "grpcs://" + s.Address, CA: authority.File()}), request(chat)); a.err != nil {
		t.Error(a.err)
	}
	// A file that is replaced holds from the next connection on.
	b := backend(t, backendv1.Config{URL: "grpcs://" + s.Address, CA: file})
	if a := ask(t.Context(), b, request(chat)); a.err == nil {
		t.Error("a stranger's certificate was accepted")
	}
	authority.WriteTo(file)
	waitFor(t, "the new authority", func() bool { return ask(t.Context(), b, request(chat)).err == nil })
}

func TestHealth(t *testing.T) {
	t.Parallel()
	name := pb.Backend_ServiceDesc.ServiceName
	for service, healthy := range map[string]healthpb.HealthCheckResponse_ServingStatus{
		name: healthpb.HealthCheckResponse_SERVING, "": healthpb.HealthCheckResponse_SERVING,
	} {
		s, h := &scripted{}, health.NewServer()
		s.Server = rpctest.New(t, func(g *grpc.Server) { pb.RegisterBackendServer(g, s); healthpb.RegisterHealthServer(g, h) })
		b := backend(t, backendv1.Config{URL: "grpc://" + s.Address})
		h.SetServingStatus(service, healthy)
		if err := b.Health(t.Context()); err != nil {
			t.Errorf("service %q: %v", service, err)
		}
		h.SetServingStatus(service, healthpb.HealthCheckResponse_NOT_SERVING)
		if err := b.Health(t.Context()); err == nil || schemas.AsError(err).Code != schemas.CodeUnavailable {
			t.Errorf("service %q does not serve: %v", service, err)
		}
	}
	// Without the health service the list of models tells; this server has neither.
	s := serve(t, answering)
	if err := backend(t, backendv1.Config{URL: "grpc://" + s.Address}).Health(t.Context()); err == nil || schemas.AsError(err).Code != schemas.CodeUnsupported {
		t.Errorf("a server that knows neither: %v", err)
	}
}

func TestLargeRequest(t *testing.T) {
	t.Parallel()
	server := serve(t, answering) // which takes 4 MiB, as servers do when nobody tells them otherwise
	b := backend(t, backendv1.Config{URL: "grpc://" + server.Address})
	body := func(size int) *inference.GenerateRequest {
		return request(`{"model":"m","stream":true,"messages":[{"role":"user","content":"` + strings.Repeat("x", size) + `"}]}`)
	}
	if a := ask(t.Context(), b, body(4<<20-1024)); a.err != nil {
		t.Error(a.err)
	}
	if a := ask(t.Context(), b, body(4<<20)); a.err == nil || a.err.Code != schemas.CodeRequestTooLarge {
		t.Errorf("error %v, want %s", a.err, schemas.CodeRequestTooLarge)
	}
}

func TestConfig(t *testing.T) {
	t.Parallel()
	for url, want := range map[string]string{
		"http://h:1": "write it like grpc://", "grpc://h": "has no port", "grpc://u:p@h:1": "credentials", "grpc://h:1/v1": "more than a host",
		"": "write it like grpc://", "grpc://:9": "write it like grpc://",
	} {
		if _, err := backendv1.New(backendv1.Config{Name: "b", URL: url}); err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%q: %v, want %q", url, err, want)
		}
	}
	for want, config := range map[string]backendv1.Config{
		"name is missing": {URL: "grpc://h:1"}, "a ca is for TLS": {Name: "b", URL: "grpc://h:1", CA: "x"}, "read ca": {Name: "b", URL: "grpcs://h:1", CA: "missing"},
		"negative": {Name: "b", URL: "grpc://h:1", Timeouts: inference.Timeouts{Idle: -1}},
	} {
		if _, err := backendv1.New(config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want %q", err, want)
		}
	}
}

package inference_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendv1"
	"github.com/weir-llm/weir/inference/rpc/rpctest"
	"github.com/weir-llm/weir/internal/faulty"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	pb "github.com/weir-llm/weir/internal/pb/backendv1"
	"github.com/weir-llm/weir/schemas"
)

// scripted is a model server over gRPC: each call ends with the next status, the last one again; OK is a whole answer.
type scripted struct {
	pb.UnimplementedBackendServer
	statuses []*status.Status
	pace     time.Duration

	mu    sync.Mutex
	calls []time.Time
}

func (s *scripted) Generate(_ *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
	s.mu.Lock()
	s.calls = append(s.calls, time.Now())
	end := s.statuses[min(len(s.calls), len(s.statuses))-1]
	s.mu.Unlock()
	if end.Code() != codes.OK {
		return end.Err()
	}
	for _, chunk := range openaitest.Answer(faulty.Words()...) {
		if err := stream.Send(&pb.GenerateEvent{ChunkJson: [][]byte{[]byte(chunk)}}); err != nil {
			return err
		}
		time.Sleep(s.pace)
	}
	return stream.Send(&pb.GenerateEvent{Final: &pb.Final{PromptTokens: faulty.PromptTokens, CompletionTokens: faulty.CompletionTokens}})
}

func (s *scripted) seen() []time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.calls)
}

func (s *scripted) backend(t testing.TB, options ...grpc.ServerOption) inference.Backend {
	t.Helper()
	server := rpctest.New(t, func(g *grpc.Server) { pb.RegisterBackendServer(g, s) }, options...)
	b, err := backendv1.New(backendv1.Config{
		Name: "b1", URL: "grpc://" + server.Address, Timeouts: inference.Timeouts{FirstToken: generous, Idle: generous, Total: 2 * time.Minute},
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// TestStatusesOfGRPC has a server that answers each status once, or always, and a fallback that answers.
func TestStatusesOfGRPC(t *testing.T) {
	t.Parallel()
	wait, err := status.New(codes.ResourceExhausted, "canary").WithDetails(&errdetails.RetryInfo{RetryDelay: durationpb.New(2 * time.Second)})
	if err != nil {
		t.Fatal(err)
	}
	plain := func(c codes.Code) *status.Status { return status.New(c, "canary") }
	for name, test := range map[string]struct {
		status *status.Status
		calls  int // of the model when it answers the second call
		code   schemas.Code
		by     string
		gap    time.Duration
	}{
		"unavailable":          {status: plain(codes.Unavailable), calls: 2, gap: 100 * time.Millisecond},
		"internal":             {status: plain(codes.Internal), calls: 2},
		"unknown":              {status: plain(codes.Unknown), calls: 2},
		"aborted":              {status: plain(codes.Aborted), calls: 2},
		"data loss":            {status: plain(codes.DataLoss), calls: 2},
		"its own deadline":     {status: plain(codes.DeadlineExceeded), calls: 2},
		"exhausted":            {status: plain(codes.ResourceExhausted), calls: 1, by: "other"}, // for who knows how long, while another can answer
		"exhausted for a time": {status: wait, calls: 2, gap: 2 * time.Second},
		"not found":            {status: plain(codes.NotFound), calls: 1, by: "other"},
		"unimplemented":        {status: plain(codes.Unimplemented), calls: 1, by: "other"},
		"invalid":              {status: plain(codes.InvalidArgument), calls: 1, code: schemas.CodeUpstreamRejected},
		"unauthenticated":      {status: plain(codes.Unauthenticated), calls: 1, code: schemas.CodeUpstreamAuth},
		"permission denied":    {status: plain(codes.PermissionDenied), calls: 1, code: schemas.CodeUpstreamAuth},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			server, other := &scripted{statuses: []*status.Status{test.status, plain(codes.OK)}}, faulty.New(t, faulty.OpenAI(), faulty.Answers())
			p.models(map[string]inference.Model{
				"m":     {Backends: []inference.Slot{{Backend: server.backend(t), MaxInFlight: 4}}, Fallback: []string{"other"}},
				"other": {Backends: p.behind(4, other)},
			})
			id := p.send("r1", sampled)
			got := p.read(id)
			if got.code() != test.code || test.code == "" && got.text != whole6() {
				t.Errorf("got %q and %q", got.text, got.code())
			}
			r, calls := p.ended(id), server.seen()
			if len(calls) != test.calls || r.AnsweredBy != test.by {
				t.Errorf("%d calls, answered by %q: %+v", len(calls), r.AnsweredBy, r.Tries)
			}
			if test.gap > 0 && len(calls) > 1 && calls[1].Sub(calls[0]) < test.gap {
				t.Errorf("the second call came after %v, want at least %v", calls[1].Sub(calls[0]), test.gap)
			}
		})
	}
}

// TestGoAway has a server that asks its connections to go all the time, as rolling restarts and load balancers do. No answer
// is cut, and no call is made twice.
func TestGoAway(t *testing.T) {
	t.Parallel()
	p := setup(t)
	server := &scripted{statuses: []*status.Status{status.New(codes.OK, "")}, pace: 20 * time.Millisecond}
	backend := server.backend(t, grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionAge: 50 * time.Millisecond, MaxConnectionAgeGrace: time.Minute}))
	p.models(map[string]inference.Model{"m": {Backends: []inference.Slot{{Backend: backend, MaxInFlight: 4}}}})
	const requests = 12
	for i := range requests {
		id := p.send(fmt.Sprintf("r%d", i), sampled)
		if got := p.read(id); got.text != whole6() || got.code() != "" {
			t.Errorf("%s got %q and %q", id, got.text, got.code())
		}
	}
	if calls := len(server.seen()); calls != requests {
		t.Errorf("%d calls for %d requests", calls, requests)
	}
}

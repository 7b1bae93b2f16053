package backendv1_test

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/tidwall/gjson"
	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/protoadapt"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendtest"
	"github.com/weir-llm/weir/inference/backendv1"
	"github.com/weir-llm/weir/inference/rpc/rpctest"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	pb "github.com/weir-llm/weir/internal/pb/backendv1"
	"github.com/weir-llm/weir/schemas"
)

func TestSuite(t *testing.T) {
	for _, op := range []schemas.Op{schemas.OpChat, schemas.OpCompletion} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			backendtest.Run(t, backendtest.Subject{
				Start: start, Dial: dial, Op: op, Embeds: true, Tools: op == schemas.OpChat, Reasoning: op == schemas.OpChat,
				// A document comes in one piece, so that there is no middle of it to fall silent in.
				Unary: func(s backendtest.Script) bool { return s.Fault != backendtest.Hold || s.At < 0 },
			})
		})
	}
}

func start(t testing.TB, s backendtest.Script, timeouts inference.Timeouts) (inference.Backend, backendtest.Server) {
	f := &fake{script: s}
	f.Server = rpctest.New(t, func(g *grpc.Server) { pb.RegisterBackendServer(g, f) }, grpc.MaxSendMsgSize(32<<20))
	return dial(t, f.Address, false, timeouts), f
}

func dial(t testing.TB, address string, secure bool, timeouts inference.Timeouts) inference.Backend {
	t.Helper()
	scheme := "grpc://"
	if secure {
		scheme = "grpcs://"
	}
	b, err := backendv1.New(backendv1.Config{Name: "test", URL: scheme + address, Timeouts: timeouts})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

// fake plays a script in llm.backend.v1.
type fake struct {
	pb.UnimplementedBackendServer
	*rpctest.Server
	script backendtest.Script

	mu    sync.Mutex
	asked []string
}

func (f *fake) Asked() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return append([]string(nil), f.asked...)
}

func (f *fake) Generate(r *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
	f.mu.Lock()
	f.asked = append(f.asked, gjson.GetBytes(r.GetBodyJson(), "model").Str)
	f.mu.Unlock()
	s := f.script
	switch {
	case s.Fault == backendtest.Hold && s.At < 0:
		return f.Wait(stream.Context())
	case s.Fault == backendtest.Reset && s.At < 0:
		f.Break("")
		return rpctest.Lost()
	case s.Refusal != "" && s.Fault != backendtest.Fail:
		return refusal(s)
	}
	if err := stream.SendHeader(metadata.MD{}); err != nil {
		return err
	}
	p := player{fake: f, stream: stream, form: form{model: s.Model, completion: r.GetOp() == string(schemas.OpCompletion)}}
	if gjson.GetBytes(r.GetBodyJson(), "stream").Bool() {
		return p.play()
	}
	return p.document()
}

// player is one answer.
type player struct {
	*fake
	stream grpc.ServerStreamingServer[pb.GenerateEvent]
	form   form
	sent   string // the last chunk
}

func (p *player) send(chunk string) error {
	p.sent = chunk
	err := p.stream.Send(&pb.GenerateEvent{ChunkJson: [][]byte{[]byte(chunk)}})
	if err != nil {
		p.Left()
	}
	return err
}

func (p *player) play() error {
	s := p.script
	chunks := p.form.opening(s)
	for _, chunk := range chunks {
		if err := p.send(chunk); err != nil {
			return err
		}
	}
	for i, text := range append(append([]string{}, s.Text...), "") {
		if s.Fault != "" && i == s.At {
			return p.fault()
		}
		if i == len(s.Text) {
			break
		}
		if i > 0 && s.Pace > 0 {
			select {
			case <-time.After(s.Pace):
			case <-p.stream.Context().Done():
				return p.Wait(p.stream.Context())
			}
		}
		if err := p.send(p.form.text(text)); err != nil {
			return err
		}
	}
	last := &pb.GenerateEvent{Final: final(s)}
	for _, chunk := range append(p.form.calls(s), p.form.finish(s.Finish)) {
		last.ChunkJson = append(last.ChunkJson, []byte(chunk))
	}
	return p.stream.Send(last)
}

func (p *player) document() error {
	switch p.script.Fault {
	case backendtest.Reset:
		p.Break("")
		return rpctest.Lost()
	case backendtest.Cut:
		return nil
	}
	return p.stream.Send(&pb.GenerateEvent{ChunkJson: [][]byte{[]byte(p.form.document(p.script))}, Final: final(p.script)})
}

func (p *player) fault() error {
	switch p.script.Fault {
	case backendtest.Hold:
		return p.Wait(p.stream.Context())
	case backendtest.Reset:
		p.Break(p.sent)
		return rpctest.Lost()
	case backendtest.Fail:
		return refusal(p.script)
	case backendtest.Garbage:
		return p.send(backendtest.Canary)
	}
	return nil // cut
}

func final(s backendtest.Script) *pb.Final {
	return &pb.Final{PromptTokens: uint32(s.Usage.PromptTokens), CompletionTokens: uint32(s.Usage.CompletionTokens)}
}

// refusal is the status of a server that knows how to explain itself; one that does not is in [TestStatus].
func refusal(s backendtest.Script) error {
	code, reason := codes.Internal, schemas.Code("")
	switch s.Refusal {
	case backendtest.RateLimit:
		code, reason = codes.ResourceExhausted, schemas.CodeRateLimit
	case backendtest.Overloaded:
		code, reason = codes.Unavailable, schemas.CodeOverloaded
	case backendtest.Invalid:
		code = codes.InvalidArgument
	case backendtest.Credentials:
		code = codes.Unauthenticated
	case backendtest.UnknownModel:
		code = codes.NotFound
	case backendtest.ContextLength:
		code, reason = codes.InvalidArgument, schemas.CodeContextLength
	case backendtest.GaveUp:
		code = codes.DeadlineExceeded
	}
	return failure(code, reason, s.RetryAfter)
}

func failure(code codes.Code, reason schemas.Code, after time.Duration) error {
	st := status.New(code, "something about the "+backendtest.Canary[:3]+" request")
	var details []protoadapt.MessageV1
	if reason != "" {
		details = append(details, &errdetails.ErrorInfo{Reason: string(reason), Domain: schemas.BackendDomain, Metadata: map[string]string{"param": "messages"}})
	}
	if after > 0 {
		details = append(details, &errdetails.RetryInfo{RetryDelay: durationpb.New(after)})
	}
	st, err := st.WithDetails(details...)
	if err != nil {
		return fmt.Errorf("details: %w", err)
	}
	return st.Err()
}

func (f *fake) Embed(_ context.Context, r *pb.EmbedRequest) (*pb.EmbedResponse, error) {
	if f.script.Refusal != "" {
		return nil, refusal(f.script)
	}
	return &pb.EmbedResponse{BodyJson: []byte(openaitest.EmbeddingResponse)}, nil
}

func (f *fake) ListModels(context.Context, *pb.ListModelsRequest) (*pb.ListModelsResponse, error) {
	if f.script.Refusal != "" {
		return nil, refusal(f.script)
	}
	return &pb.ListModelsResponse{Id: []string{"m1", "m2"}}, nil
}

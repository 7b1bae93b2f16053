package main

import (
	"context"
	"encoding/json"
	"errors"
	"net"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	pb "github.com/weir-llm/weir/internal/pb/backendv1"
)

// maxMessage is the largest request that is taken: Weir's limit on a body, and some room. The library's own is 4 MiB.
const maxMessage = 11 << 20

// Server serves one model over llm.backend.v1.
type Server struct {
	pb.UnimplementedBackendServer // answers what this server does not have, such as Embed
	name                          string
	model                         Model
}

// New makes a server of a model.
func New(name string, model Model) *Server { return &Server{name: name, model: model} }

// Serve answers calls until ctx ends, and returns when those under way have been answered.
func (s *Server) Serve(ctx context.Context, listener net.Listener) error {
	server := grpc.NewServer(grpc.MaxRecvMsgSize(maxMessage))
	pb.RegisterBackendServer(server, s)
	healthy := health.NewServer()
	healthy.SetServingStatus(pb.Backend_ServiceDesc.ServiceName, healthpb.HealthCheckResponse_SERVING)
	healthpb.RegisterHealthServer(server, healthy)
	stopped := context.AfterFunc(ctx, func() {
		healthy.Shutdown() // from now on it says that it is not serving
		server.GracefulStop()
	})
	defer stopped()
	return server.Serve(listener)
}

// ListModels tells what there is.
func (s *Server) ListModels(context.Context, *pb.ListModelsRequest) (*pb.ListModelsResponse, error) {
	return &pb.ListModelsResponse{Id: []string{s.name}}, nil
}

// body is what of a request this server looks at. The whole of it is what an OpenAI server gets.
type body struct {
	Model       string    `json:"model"`
	Messages    []Message `json:"messages"`
	Stream      bool      `json:"stream"`
	MaxTokens   int       `json:"max_tokens"`
	MaxNew      int       `json:"max_completion_tokens"`
	Temperature *float64  `json:"temperature"`
	Tools       []any     `json:"tools"`
}

// Generate answers a chat request.
func (s *Server) Generate(r *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
	var b body
	if err := json.Unmarshal(r.GetBodyJson(), &b); err != nil {
		return Failure(codes.InvalidArgument, "unsupported", "messages must hold text only", "messages", 0)
	}
	switch {
	case r.GetOp() != "chat":
		return Failure(codes.InvalidArgument, "unsupported", "the model only chats", "", 0)
	case len(b.Tools) > 0:
		return Failure(codes.InvalidArgument, "unsupported", "the model has no tools", "tools", 0)
	case b.Model != s.name:
		return Failure(codes.NotFound, "model_not_found", "there is only "+s.name, "model", 0)
	}
	a := &answer{stream: stream, id: "chatcmpl-" + r.GetRequestId(), model: b.Model, created: time.Now().Unix(), streamed: b.Stream, resumed: r.GetResumeText() != ""}
	q := Question{Conversation: b.Messages, Begun: r.GetResumeText(), MaxTokens: max(b.MaxTokens, b.MaxNew), Temperature: b.Temperature}
	if err := a.begin(); err != nil {
		return err
	}
	finish, err := s.model(stream.Context(), q, a.say)
	if err != nil {
		return asStatus(err)
	}
	return a.end(finish, words(b.Messages))
}

// words stands in for counting tokens.
func words(conversation []Message) (count int) {
	for _, m := range conversation {
		count += len(strings.Fields(m.Content))
	}
	return count
}

// Failure is an error that callers understand: reason is an error code of Weir, and param the field at fault, if any. With
// retry the caller is told when to come back.
func Failure(code codes.Code, reason, message, param string, retry time.Duration) error {
	s := status.New(code, message)
	info := &errdetails.ErrorInfo{Domain: "llm.backend.v1", Reason: reason}
	if param != "" {
		info.Metadata = map[string]string{"param": param}
	}
	detailed, err := s.WithDetails(info)
	if err == nil && retry > 0 {
		detailed, err = detailed.WithDetails(retryInfo(retry))
	}
	if err != nil {
		return s.Err()
	}
	return detailed.Err()
}

// asStatus is the status of a call whose model ended in err.
func asStatus(err error) error {
	if _, ok := status.FromError(err); ok {
		return err
	}
	if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
		return status.FromContextError(err).Err()
	}
	return status.Error(codes.Internal, "the model failed")
}

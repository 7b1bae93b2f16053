package main

import (
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-llm/weir/inference/rpc/rpctest"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	pb "github.com/weir-llm/weir/internal/pb/backendv1"
)

// ownModel is a server of llm.backend.v1.
type ownModel struct {
	pb.UnimplementedBackendServer
}

func (ownModel) Generate(r *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
	final := &pb.Final{PromptTokens: 3, CompletionTokens: 2}
	if !strings.Contains(string(r.GetBodyJson()), `"stream":true`) {
		return stream.Send(&pb.GenerateEvent{ChunkJson: [][]byte{[]byte(openaitest.Response("Hello world"))}, Final: final})
	}
	for _, chunk := range openaitest.Answer("Hello", " world") {
		if err := stream.Send(&pb.GenerateEvent{ChunkJson: [][]byte{[]byte(chunk)}}); err != nil {
			return err
		}
	}
	return stream.Send(&pb.GenerateEvent{Final: final})
}

// TestSameAnswerThroughThePipeline asks a model over REST and one over gRPC, and callers see no difference.
func TestSameAnswerThroughThePipeline(t *testing.T) {
	t.Parallel()
	web := openaitest.New(t)
	own := rpctest.New(t, func(g *grpc.Server) { pb.RegisterBackendServer(g, ownModel{}) })
	const config = "models:\n  m:\n    backends: [{name: up, protocol: %s, url: %q, api_key: sk-up}]\n    retry: {max_tries: 1}\n"
	over := map[string]*process{
		"REST": serveModel(t, fmt.Sprintf(config, "openai", web.URL)), "gRPC": serveModel(t, fmt.Sprintf(config, "grpc", "grpc://"+own.Address)),
	}
	for _, body := range []string{
		`{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`, `{"model":"m","messages":[{"role":"user","content":"hi"}]}`,
	} {
		got := map[string]string{}
		for name, serve := range over {
			answer := serve.messages(t.Context(), t, "/v1/chat/completions", body, "Llm-Request-Id", fmt.Sprint("same-", len(body)))
			if answer.status != 200 || !strings.Contains(answer.body, "world") {
				t.Fatalf("%s: %d %s", name, answer.status, answer.body)
			}
			got[name] = answer.body
		}
		if diff := cmp.Diff(got["REST"], got["gRPC"]); diff != "" {
			t.Errorf("%s (-REST +gRPC):\n%s", body, diff)
		}
	}
	if header := own.Calls()[0]; header.Get("authorization")[0] != "Bearer sk-up" {
		t.Errorf("the server got %v", header)
	}
}

// frail is a server of llm.backend.v1 that dies in the middle of its first answer, and goes on with it when asked to.
type frail struct {
	pb.UnimplementedBackendServer
	calls atomic.Int64
}

func (f *frail) Generate(r *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
	answer := openaitest.Answer("Hello", " big", " world")
	first, last := answer[:3], answer[3:]
	f.calls.Add(1)
	switch {
	case r.GetResumeText() == "" && len(r.GetResumeTokenIds()) == 0:
		for i, chunk := range first {
			m := &pb.GenerateEvent{ChunkJson: [][]byte{[]byte(chunk)}}
			if r.GetTellTokenIds() {
				m.PromptTokenIds, m.TokenIds = []uint32{7}, []*pb.Tokens{{Id: []uint32{uint32(i)}}}
			}
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		return status.Error(codes.Unavailable, "going down")
	case r.GetResumeText() == "Hello big", slices.Equal(r.GetResumeTokenIds(), []uint32{0, 1, 2}):
		m := &pb.GenerateEvent{Resumed: true, Final: &pb.Final{PromptTokens: 4, CompletionTokens: 1}}
		for _, chunk := range last {
			m.ChunkJson = append(m.ChunkJson, []byte(chunk))
		}
		return stream.Send(m)
	}
	return status.Error(codes.InvalidArgument, "this is not what was said")
}

// TestGoingOnOverGRPC has a server that dies in the middle of an answer: callers notice nothing, if the configuration says
// that it goes on.
func TestGoingOnOverGRPC(t *testing.T) {
	t.Parallel()
	for how, want := range map[string]string{"tokens": "Hello big world", "prefill": "Hello big world", "none": "Hello big"} {
		t.Run(how, func(t *testing.T) {
			t.Parallel()
			server := &frail{}
			own := rpctest.New(t, func(g *grpc.Server) { pb.RegisterBackendServer(g, server) })
			serve := serveModel(t, fmt.Sprintf("models:\n  m:\n    backends: [{name: up, protocol: grpc, url: 'grpc://%s', continue: %s}]\n", own.Address, how))
			answer := serve.messages(t.Context(), t, "/v1/chat/completions", `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`)
			openaitest.CheckStream(t, answer.body)
			events := readStream(t, strings.NewReader(answer.body))
			if got := text(t, events); got != want || strings.Contains(answer.body, "[DONE]") != (how != "none") {
				t.Errorf("got %q after %d calls: %s", got, server.calls.Load(), answer.body)
			}
		})
	}
}

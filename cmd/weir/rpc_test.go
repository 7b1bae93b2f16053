package main

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"

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

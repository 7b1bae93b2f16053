package backendv1_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendv1"
	"github.com/weir-llm/weir/inference/echo"
	"github.com/weir-llm/weir/inference/openai"
	"github.com/weir-llm/weir/inference/rpc/rpctest"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	pb "github.com/weir-llm/weir/internal/pb/backendv1"
	"github.com/weir-llm/weir/schemas"
)

// model is one model, echo, behind both protocols.
type model struct {
	pb.UnimplementedBackendServer
	echo *echo.Backend
}

// answer runs the model. The request is what the server got, of which it knows nothing else.
func (m *model) answer(ctx context.Context, op schemas.Op, body []byte) (events []string, usage *schemas.Usage, err error) {
	r := &inference.GenerateRequest{
		Identity: schemas.Identity{Tenant: "acme", Request: "req_1"}, Op: op, Body: body, Stream: gjson.GetBytes(body, "stream").Bool(), Attempt: 1,
	}
	if op == schemas.OpEmbedding {
		answer, err := m.echo.Embed(ctx, r)
		return []string{string(answer)}, nil, err
	}
	for event, err := range m.echo.Generate(ctx, r) {
		if err != nil {
			return events, usage, err
		}
		if len(event.Data) > 0 {
			events = append(events, string(event.Data))
		}
		if u := event.Chunk.ParseUsage(); u != nil {
			usage = u
		}
	}
	return events, usage, nil
}

// tooLong is a prompt that the model refuses, as each protocol says it.
const tooLong = "too long"

// rest serves the model as an OpenAI server does.
func (m *model) rest(r openaitest.Request) openaitest.Dials {
	op := map[string]schemas.Op{"/v1/chat/completions": schemas.OpChat, "/v1/completions": schemas.OpCompletion, "/v1/embeddings": schemas.OpEmbedding}[r.Path]
	if strings.Contains(r.Body, tooLong) {
		return openaitest.Dials{Status: 400, Body: `{"error":{"message":"900 tokens","type":"invalid_request_error","param":"messages","code":"context_length_exceeded"}}`}
	}
	events, _, err := m.answer(context.Background(), op, []byte(r.Body))
	switch {
	case err != nil:
		return openaitest.Dials{Status: 500, Body: err.Error()}
	case gjson.Get(r.Body, "stream").Bool():
		return openaitest.Dials{Events: events}
	}
	return openaitest.Dials{Body: events[0], Header: map[string]string{"Content-Type": "application/json"}}
}

func (m *model) Generate(r *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
	if strings.Contains(string(r.GetBodyJson()), tooLong) {
		return failure(codes.InvalidArgument, schemas.CodeContextLength, 0)
	}
	events, usage, err := m.answer(stream.Context(), schemas.Op(r.GetOp()), r.GetBodyJson())
	if err != nil {
		return err
	}
	for _, event := range events {
		if err := stream.Send(chunks(event)); err != nil {
			return err
		}
	}
	return stream.Send(ending(&pb.Final{PromptTokens: uint32(usage.PromptTokens), CompletionTokens: uint32(usage.CompletionTokens)}))
}

func (m *model) Embed(ctx context.Context, r *pb.EmbedRequest) (*pb.EmbedResponse, error) {
	events, _, err := m.answer(ctx, schemas.OpEmbedding, r.GetBodyJson())
	if err != nil {
		return nil, err
	}
	return &pb.EmbedResponse{BodyJson: []byte(events[0])}, nil
}

// both serves a model over both protocols.
func both(t testing.TB, name string) (rest, rpc inference.Backend) {
	t.Helper()
	said, err := echo.New(echo.Config{Name: "echo"})
	if err != nil {
		t.Fatal(err)
	}
	m := &model{echo: said}
	web := openaitest.Serve(m.rest)
	t.Cleanup(web.Close)
	server := rpctest.New(t, func(g *grpc.Server) { pb.RegisterBackendServer(g, m) })
	overREST, err := openai.New(openai.Config{Name: "test", URL: web.URL, Model: name})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = overREST.Close() })
	return overREST, backend(t, backendv1.Config{URL: "grpc://" + server.Address, Model: name})
}

// TestSameAnswer asks one model over REST and over gRPC. Every event is the same, byte for byte, and so is what is told
// beside it.
func TestSameAnswer(t *testing.T) {
	t.Parallel()
	const (
		chat   = `"messages":[{"role":"system","content":"s"},{"role":"user","content":"Grüße an die \"große\" 世界 👋🏽\n\u2028."}]}`
		prompt = `"prompt":["one two","drei"]}`
	)
	for name, test := range map[string]struct {
		op   schemas.Op
		body string
	}{
		"stream":                {schemas.OpChat, `{"model":"m","stream":true,` + chat},
		"stream with usage":     {schemas.OpChat, `{"model":"m","stream":true,"stream_options":{"include_usage":true},` + chat},
		"stream of two answers": {schemas.OpChat, `{"model":"m","n":2,"stream":true,` + chat},
		"cut by a limit":        {schemas.OpChat, `{"model":"m","max_tokens":2,"stream":true,` + chat},
		"long":                  {schemas.OpChat, `{"model":"m","x_echo":{"tokens":3000},"stream":true,` + chat},
		"unary":                 {schemas.OpChat, `{"model":"m",` + chat},
		"completion":            {schemas.OpCompletion, `{"model":"m","stream":true,` + prompt},
		"unary completion":      {schemas.OpCompletion, `{"model":"m",` + prompt},
		"embeddings":            {schemas.OpEmbedding, `{"model":"m","input":["one","two"]}`},
		"embeddings in base64":  {schemas.OpEmbedding, `{"model":"m","encoding_format":"base64","input":["one","two"]}`},
		"refused":               {schemas.OpChat, `{"model":"m","stream":true,"messages":[{"role":"user","content":"` + tooLong + `"}]}`},
	} {
		for _, called := range []string{"", "real"} {
			t.Run(name+" "+called, func(t *testing.T) {
				t.Parallel()
				rest, rpc := both(t, called)
				over := map[string]told{"REST": hear(t, rest, test.op, test.body), "gRPC": hear(t, rpc, test.op, test.body)}
				if len(over["REST"].Events) == 0 && name != "refused" {
					t.Fatalf("no answer: %+v", over)
				}
				if diff := cmp.Diff(over["REST"], over["gRPC"]); diff != "" {
					t.Errorf("REST and gRPC differ (-REST +gRPC):\n%s", diff)
				}
			})
		}
	}
}

// told is everything that a backend yields, but for what depends on when the pieces arrived.
type told struct {
	Events []string
	Chunks []string
	Usage  *schemas.Usage
	Code   schemas.Code
	Param  string
}

func hear(t *testing.T, b inference.Backend, op schemas.Op, body string) (all told) {
	t.Helper()
	r := request(body)
	r.Op = op
	if op == schemas.OpEmbedding {
		answer, err := b.Embed(t.Context(), r)
		if err != nil {
			t.Fatal(err)
		}
		all.Events = []string{string(answer)}
		return all
	}
	for event, err := range b.Generate(t.Context(), r) {
		if err != nil {
			e := schemas.AsError(err)
			all.Code, all.Param = e.Code, e.Param
			continue
		}
		if u := event.Chunk.ParseUsage(); u != nil {
			all.Usage = u
		}
		if len(event.Data) == 0 {
			continue
		}
		all.Events = append(all.Events, string(event.Data))
		for _, c := range event.Chunk.Choices {
			all.Chunks = append(all.Chunks, fmt.Sprintf("%d %q %q %q %s", c.Index, c.Role, c.Content, c.Finish, c.ToolCalls))
		}
	}
	return all
}

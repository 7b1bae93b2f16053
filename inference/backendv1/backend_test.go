package backendv1_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendv1"
	"github.com/weir-llm/weir/inference/rpc/rpctest"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	pb "github.com/weir-llm/weir/internal/pb/backendv1"
	"github.com/weir-llm/weir/schemas"
)

const chat = `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`

// scripted is a server of which a test says what Generate does.
type scripted struct {
	pb.UnimplementedBackendServer
	*rpctest.Server
	generate func(r *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error
}

func (s *scripted) Generate(r *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
	return s.generate(r, stream)
}

func serve(t testing.TB, generate func(r *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error) *scripted {
	t.Helper()
	s := &scripted{generate: generate}
	s.Server = rpctest.New(t, func(g *grpc.Server) { pb.RegisterBackendServer(g, s) })
	return s
}

// says is a Generate that sends these messages.
func says(messages ...*pb.GenerateEvent) func(*pb.GenerateRequest, grpc.ServerStreamingServer[pb.GenerateEvent]) error {
	return func(_ *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
		for _, m := range messages {
			if err := stream.Send(m); err != nil {
				return err
			}
		}
		return nil
	}
}

func chunks(all ...string) *pb.GenerateEvent {
	e := &pb.GenerateEvent{}
	for _, chunk := range all {
		e.ChunkJson = append(e.ChunkJson, []byte(chunk))
	}
	return e
}

func ending(f *pb.Final, all ...string) *pb.GenerateEvent {
	e := chunks(all...)
	e.Final = f
	return e
}

func backend(t testing.TB, config backendv1.Config) *backendv1.Backend {
	t.Helper()
	config.Name = "test"
	b, err := backendv1.New(config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

func request(body string) *inference.GenerateRequest {
	return &inference.GenerateRequest{
		Identity: schemas.Identity{Tenant: "acme", Request: "req_1"}, Op: schemas.OpChat, Body: []byte(body),
		Stream: strings.Contains(body, `"stream":true`), Attempt: 2, Try: 1,
	}
}

// said is what came of a call.
type said struct {
	events []string
	usage  *schemas.Usage
	err    *schemas.Error
}

func ask(ctx context.Context, b inference.Backend, r *inference.GenerateRequest) (a said) {
	for event, err := range b.Generate(ctx, r) {
		if err != nil {
			a.err = schemas.AsError(err)
			continue
		}
		if len(event.Data) > 0 {
			a.events = append(a.events, string(event.Data))
		}
		if u := event.Chunk.ParseUsage(); u != nil {
			a.usage = u
		}
	}
	return a
}

func TestWhatTheServerGets(t *testing.T) {
	t.Parallel()
	var got *pb.GenerateRequest
	server := serve(t, func(r *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
		got = r
		return says(ending(&pb.Final{}, openaitest.Answer("hi")...))(r, stream)
	})
	b := backend(t, backendv1.Config{URL: "grpc://" + server.Address, APIKey: "sk-1", Model: "real"})
	r := request(chat)
	r.Deadline = time.Now().Add(time.Hour)
	r.Header = schemas.Header{"traceparent": {"00-a-b-01"}, "tracestate": {"x=y"}, "Llm-Priority": {"batch"}, "Cookie": {"c"}}
	if a := ask(t.Context(), b, r); a.err != nil {
		t.Fatal(a.err)
	}
	want := &pb.GenerateRequest{
		RequestId: "req_1", Tenant: "acme", Op: "chat", BodyJson: []byte(strings.Replace(chat, `"m"`, `"real"`, 1)), Attempt: 2,
		DeadlineUnixMs: r.Deadline.UnixMilli(),
	}
	if !proto.Equal(want, got) {
		t.Errorf("server got %v, want %v", got, want)
	}
	header := server.Calls()[0]
	for name, want := range map[string][]string{
		"authorization": {"Bearer sk-1"}, "traceparent": {"00-a-b-01"}, "tracestate": {"x=y"}, "llm-priority": nil, "cookie": nil,
	} {
		if diff := cmp.Diff(want, header.Get(name)); diff != "" {
			t.Errorf("metadata %s (-want +got):\n%s", name, diff)
		}
	}
	if agent := header.Get("user-agent"); len(agent) != 1 || !strings.HasPrefix(agent[0], "weir") {
		t.Errorf("user agent %q", agent)
	}
	if header.Get(":authority")[0] != server.Address {
		t.Errorf("authority %q", header.Get(":authority"))
	}
}

func TestUsage(t *testing.T) {
	t.Parallel()
	const asking = `{"model":"m","stream":true,"stream_options":{"include_usage":true},"messages":[]}`
	final := &pb.Final{PromptTokens: 3, CompletionTokens: 2, CachedTokens: 1}
	counted := `{"id":"chatcmpl-1","created":1764000000,"model":"m","object":"chat.completion.chunk","choices":[],"usage":{"prompt_tokens":3,"completion_tokens":2,"total_tokens":5,"prompt_tokens_details":{"cached_tokens":1}}}`
	answer := openaitest.Answer("a", "b")
	for name, test := range map[string]struct {
		body     string
		messages []*pb.GenerateEvent
		want     []string
	}{
		"of the last message, not asked for": {chat, []*pb.GenerateEvent{chunks(answer...), ending(final)}, answer},
		"of the last message, asked for":     {asking, []*pb.GenerateEvent{ending(final, answer...)}, append(answer[:4:4], counted)},
		"of a chunk, not asked for":          {chat, []*pb.GenerateEvent{chunks(append(answer[:4:4], openaitest.Usage)...), ending(final)}, answer},
		"of a chunk, asked for":              {asking, []*pb.GenerateEvent{chunks(append(answer[:4:4], openaitest.Usage)...), ending(final)}, append(answer[:4:4], openaitest.Usage)},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, says(test.messages...))
			a := ask(t.Context(), backend(t, backendv1.Config{URL: "grpc://" + server.Address}), request(test.body))
			if a.err != nil || a.usage == nil || a.usage.TotalTokens != 5 {
				t.Errorf("usage %+v, %v", a.usage, a.err)
			}
			if diff := cmp.Diff(test.want, a.events); diff != "" {
				t.Errorf("events (-want +got):\n%s", diff)
			}
		})
	}
}

func TestUnaryUsage(t *testing.T) {
	t.Parallel()
	plain := openaitest.Response("hi")
	without := plain[:strings.Index(plain, `,"usage"`)] + "}"
	for name, document := range map[string]string{"none": without, "null": strings.TrimSuffix(without, "}") + `,"usage":null}`, "its own": plain} {
		server := serve(t, says(chunks(document), ending(&pb.Final{PromptTokens: 3, CompletionTokens: 2})))
		a := ask(t.Context(), backend(t, backendv1.Config{URL: "grpc://" + server.Address}), request(strings.Replace(chat, `"stream":true,`, "", 1)))
		if diff := cmp.Diff([]string{plain}, a.events); diff != "" || a.err != nil || a.usage.TotalTokens != 5 {
			t.Errorf("%s: %v, usage %+v, events (-want +got):\n%s", name, a.err, a.usage, diff)
		}
	}
}

func TestNotWhole(t *testing.T) {
	t.Parallel()
	answer := openaitest.Answer("a")
	unary := strings.Replace(chat, `"stream":true,`, "", 1)
	for name, test := range map[string]struct {
		body     string
		messages []*pb.GenerateEvent
		want     schemas.Code
		says     string
	}{
		"nothing":             {chat, nil, schemas.CodeUpstreamInterrupted, "without sending an event"},
		"only the end":        {chat, []*pb.GenerateEvent{ending(&pb.Final{})}, schemas.CodeUpstreamInterrupted, "without sending an event"},
		"no final":            {chat, []*pb.GenerateEvent{chunks(answer...)}, schemas.CodeUpstreamInterrupted, "no final message"},
		"no finish_reason":    {chat, []*pb.GenerateEvent{ending(&pb.Final{}, answer[:2]...)}, schemas.CodeUpstreamInterrupted, "no finish_reason"},
		"no choices":          {chat, []*pb.GenerateEvent{ending(&pb.Final{}, `{}`)}, schemas.CodeUpstreamError, "no choices"},
		"an error as a chunk": {chat, []*pb.GenerateEvent{chunks(answer[0], `{"error":{"message":"no","code":"context_length_exceeded"}}`)}, schemas.CodeContextLength, "does not fit"},
		"a document cut":      {unary, []*pb.GenerateEvent{chunks(openaitest.Response("a"))}, schemas.CodeUpstreamInterrupted, "no final message"},
		"chunks for one":      {unary, []*pb.GenerateEvent{ending(&pb.Final{}, answer...)}, schemas.CodeUpstreamError, "stream instead of one document"},
		"empty chunk":         {chat, []*pb.GenerateEvent{chunks("")}, schemas.CodeUpstreamError, "not a JSON object"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			server := serve(t, says(test.messages...))
			a := ask(t.Context(), backend(t, backendv1.Config{URL: "grpc://" + server.Address}), request(test.body))
			if a.err == nil || a.err.Code != test.want || !strings.Contains(a.err.Message, test.says) {
				t.Errorf("%q, then %v; want %s that says %q", a.events, a.err, test.want, test.says)
			}
		})
	}
}

// A message without chunks is no token: it does not end the wait for the first.
func TestEmptyMessagesAreNoTokens(t *testing.T) {
	t.Parallel()
	server := serve(t, func(_ *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
		for stream.Send(&pb.GenerateEvent{}) == nil {
			select {
			case <-stream.Context().Done():
			case <-time.After(20 * time.Millisecond):
			}
		}
		return stream.Context().Err()
	})
	b := backend(t, backendv1.Config{URL: "grpc://" + server.Address, Timeouts: inference.Timeouts{FirstToken: 300 * time.Millisecond}})
	if a := ask(t.Context(), b, request(chat)); a.err == nil || !strings.Contains(a.err.Message, "first-token timeout") {
		t.Errorf("error %v, want the first-token timeout", a.err)
	}
}

// What came while the loop body was busy is told to be there, and the last of it is not.
func TestMore(t *testing.T) {
	t.Parallel()
	sent := make(chan struct{}, 1)
	answer := openaitest.Answer("a", "b", "c")
	server := serve(t, func(_ *pb.GenerateRequest, stream grpc.ServerStreamingServer[pb.GenerateEvent]) error {
		defer func() { sent <- struct{}{} }()
		for _, chunk := range answer[:4] {
			if err := stream.Send(chunks(chunk)); err != nil {
				return err
			}
		}
		return stream.Send(ending(&pb.Final{PromptTokens: 1}, answer[4]))
	})
	b := backend(t, backendv1.Config{URL: "grpc://" + server.Address})
	told := func() (more []bool) {
		for event, err := range b.Generate(t.Context(), request(chat)) {
			if err != nil {
				t.Fatal(err)
			}
			if more = append(more, event.More); len(more) == 1 {
				<-sent
				waitFor(t, "the messages to leave", func() bool { return server.Live() == 0 })
			}
		}
		if len(more) != 6 || more[5] {
			t.Fatalf("more = %v, want six events of which the last is told to be it", more)
		}
		return more
	}
	// The first event may have come alone. Those after it arrive while it is handled, unless the machine has other things to do.
	waitFor(t, "events that are told to be followed", func() bool { more := told(); return more[3] && more[4] })
}

func waitFor(t testing.TB, what string, done func() bool) {
	t.Helper()
	ticker := time.NewTicker(5 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(time.Minute); !done(); <-ticker.C {
		if time.Now().After(end) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

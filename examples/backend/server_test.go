package main

import (
	"context"
	"errors"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendv1"
	"github.com/weir-llm/weir/schemas"
)

// start runs a server of a model, and a backend that calls it as Weir does.
func start(t *testing.T, model Model) *backendv1.Backend {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var serving sync.WaitGroup
	ctx, stop := context.WithCancel(context.Background())
	serving.Go(func() {
		if err := New("m", model).Serve(ctx, listener); err != nil {
			t.Error(err)
		}
	})
	b, err := backendv1.New(backendv1.Config{Name: "example", URL: "grpc://" + listener.Addr().String(), Continue: inference.ContinueText})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close(); stop(); serving.Wait() })
	return b
}

func ask(ctx context.Context, b inference.Backend, op schemas.Op, body string) (text, finish string, events int, usage *schemas.Usage, failed *schemas.Error) {
	r := &inference.GenerateRequest{
		Identity: schemas.Identity{Tenant: "acme", Request: "req_1"}, Op: op, Body: []byte(body), Stream: strings.Contains(body, `"stream":true`), Attempt: 1,
	}
	for event, err := range b.Generate(ctx, r) {
		if err != nil {
			return text, finish, events, usage, schemas.AsError(err)
		}
		if len(event.Data) > 0 {
			events++
		}
		for _, c := range event.Chunk.Choices {
			text += c.Content
			finish += c.Finish
		}
		if u := event.Chunk.ParseUsage(); u != nil {
			usage = u
		}
	}
	return text, finish, events, usage, nil
}

const question = `"messages":[{"role":"system","content":"Be brief."},{"role":"user","content":"Hello big world"}]}`

func TestAnswers(t *testing.T) {
	t.Parallel()
	b := start(t, Echo)
	for body, want := range map[string]struct {
		text, finish string
		events       int
		count        int64
	}{
		`{"model":"m","stream":true,` + question:                               {"echo: Hello big world", "stop", 6, 4},
		`{"model":"m",` + question:                                             {"echo: Hello big world", "stop", 1, 4},
		`{"model":"m","stream":true,"max_tokens":2,` + question:                {"echo: Hello ", "length", 4, 2},
		`{"model":"m","max_completion_tokens":2,"temperature":0.5,` + question: {"echo: Hello ", "length", 1, 2},
	} {
		text, finish, events, usage, err := ask(t.Context(), b, schemas.OpChat, body)
		if err != nil || text != want.text || finish != want.finish || events != want.events {
			t.Errorf("%s: %q ended for %q in %d events, %v; want %+v", body, text, finish, events, err, want)
		}
		if usage == nil || usage.PromptTokens != 5 || usage.CompletionTokens != want.count {
			t.Errorf("%s: usage %+v, want 5 and %d", body, usage, want.count)
		}
	}
	if err := b.Health(t.Context()); err != nil {
		t.Error(err)
	}
	if names, err := b.Models(t.Context()); err != nil || len(names) != 1 || names[0] != "m" {
		t.Errorf("models %q, %v", names, err)
	}
}

// An answer that was cut is gone on with from its text, unless that is not how it began.
func TestGoesOn(t *testing.T) {
	t.Parallel()
	b := start(t, Echo)
	for begun, want := range map[string]struct {
		text string
		code schemas.Code
	}{
		"echo: Hello": {" big world", ""},
		"ECHO":        {"", schemas.CodeUpstreamRejected},
	} {
		r := &inference.GenerateRequest{
			Identity: schemas.Identity{Tenant: "acme", Request: "req_1"}, Op: schemas.OpChat, Stream: true, Attempt: 2,
			Body: []byte(`{"model":"m","stream":true,` + question), Resume: &inference.Resume{Text: begun, Tokens: 2},
		}
		text, code := "", schemas.Code("")
		for event, err := range b.Generate(t.Context(), r) {
			if err != nil {
				code = schemas.AsError(err).Code
				continue
			}
			for _, c := range event.Chunk.Choices {
				text += c.Content
			}
		}
		if text != want.text || code != want.code {
			t.Errorf("%q goes on with %q, then %q; want %+v", begun, text, code, want)
		}
	}
}

func TestFailures(t *testing.T) {
	t.Parallel()
	failing := func(err error) Model {
		return func(context.Context, Question, func(string) error) (string, error) { return "", err }
	}
	chat := `{"model":"m",` + question
	for name, test := range map[string]struct {
		model Model
		op    schemas.Op
		body  string
		want  schemas.Code
	}{
		"a completion":     {Echo, schemas.OpCompletion, `{"model":"m","prompt":"x"}`, schemas.CodeUpstreamRejected},
		"tools":            {Echo, schemas.OpChat, `{"model":"m","tools":[{}],` + question, schemas.CodeUpstreamRejected},
		"a picture":        {Echo, schemas.OpChat, `{"model":"m","messages":[{"role":"user","content":[{}]}]}`, schemas.CodeUpstreamRejected},
		"another model":    {Echo, schemas.OpChat, `{"model":"x",` + question, schemas.CodeModelNotFound},
		"a broken model":   {failing(errors.New("secret")), schemas.OpChat, chat, schemas.CodeUpstreamError},
		"too long a talk":  {failing(Failure(codes.InvalidArgument, "context_length_exceeded", "too long", "messages", 0)), schemas.OpChat, chat, schemas.CodeContextLength},
		"too many callers": {failing(Failure(codes.ResourceExhausted, "rate_limit_exceeded", "slow down", "", 2*time.Second)), schemas.OpChat, chat, schemas.CodeRateLimit},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			_, _, events, _, err := ask(t.Context(), start(t, test.model), test.op, test.body)
			if err == nil || err.Code != test.want || events > 0 || strings.Contains(err.Error(), "secret") {
				t.Fatalf("%d events, then %v; want %s", events, err, test.want)
			}
			if test.want == schemas.CodeRateLimit && err.RetryAfter != 2*time.Second {
				t.Errorf("retry after %v", err.RetryAfter)
			}
		})
	}
}

// A caller that leaves stops the model.
func TestCallerLeaves(t *testing.T) {
	t.Parallel()
	stopped := make(chan error, 1)
	b := start(t, func(ctx context.Context, _ Question, say func(string) error) (string, error) {
		if err := say("one"); err != nil {
			return "", err
		}
		<-ctx.Done()
		stopped <- ctx.Err()
		return "", ctx.Err()
	})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	for event := range b.Generate(ctx, &inference.GenerateRequest{Op: schemas.OpChat, Stream: true, Body: []byte(`{"model":"m","stream":true,` + question)}) {
		if len(event.Chunk.Choices) > 0 && event.Chunk.Choices[0].Content != "" {
			break
		}
	}
	select {
	case <-stopped:
	case <-time.After(time.Minute):
		t.Error("the model runs on")
	}
}

// Package openai is the backend for servers that speak the OpenAI protocol: OpenAI itself, vLLM, llama.cpp, Ollama and
// many more.
//
// **An answer that this backend ends without an error is whole**: every choice has its finish_reason. The server's end
// mark and a clean end of the connection prove nothing, since proxies and dying servers send both. What the server
// sends is passed on byte for byte, but for the mendings of [openai.Mender].
package openai

import (
	"context"
	"iter"
	"net/http"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// Backend calls one server over a pool of connections that it owns.
type Backend struct {
	config Config
	client *upstream.Client
}

var _ inference.Backend = (*Backend)(nil)

// New makes a backend. It does not connect. Close releases its connections.
func New(config Config) (*Backend, error) {
	config = config.withDefaults()
	client, err := upstream.NewClient(config.upstream())
	if err != nil {
		return nil, err
	}
	if config.APIKey != "" {
		client.SetHeader("Authorization", "Bearer "+config.APIKey.Reveal())
	}
	return &Backend{config: config, client: client}, nil
}

// Close closes the connections that are idle.
func (b *Backend) Close() error { return b.client.Close() }

// Name of the backend, as configured.
func (b *Backend) Name() string { return b.config.Name }

// Capabilities of the backend, as configured.
func (b *Backend) Capabilities() inference.Capabilities {
	return inference.Capabilities{Deterministic: b.config.Deterministic, Continue: b.config.Continue, Vocabulary: b.config.Model}
}

// Generate calls the server's endpoint for the request's op.
func (b *Backend) Generate(ctx context.Context, r *inference.GenerateRequest) iter.Seq2[inference.Event, error] {
	return func(yield func(inference.Event, error) bool) {
		c := b.newCall(ctx, r, yield)
		defer c.Close()
		if err := c.run(); err != nil {
			c.Fail(err)
		}
	}
}

func (b *Backend) newCall(ctx context.Context, r *inference.GenerateRequest, yield func(inference.Event, error) bool) *call {
	return &call{Call: b.client.NewCall(ctx, r, yield), backend: b, request: r}
}

func endpoint(op schemas.Op) (string, error) {
	switch op {
	case schemas.OpChat, "":
		return "/chat/completions", nil
	case schemas.OpCompletion:
		return "/completions", nil
	}
	return "", schemas.Errorf(schemas.CodeUnsupported, "the model server's protocol has no operation %q; use %q or %q", op, schemas.OpChat, schemas.OpCompletion)
}

// Embed posts an embedding request. A server that knows one form of vectors is answered for in the other.
func (b *Backend) Embed(ctx context.Context, r *inference.GenerateRequest) ([]byte, error) {
	c := b.newCall(ctx, r, nil)
	defer c.Close()
	data, err := c.Exchange(http.MethodPost, "/embeddings", c.outgoing(), nil, openai.MaxEmbeddingBytes, &c.chunk)
	if err != nil {
		return nil, err
	}
	answer, count, err := openai.Embeddings(c.mender.MendDocument(data, &c.chunk), openai.EncodingFormat(r.Body))
	switch {
	case err != nil:
		return nil, schemas.Errorf(schemas.CodeUpstreamError, "the model server's embeddings cannot be read; try again, and have the operator check the backend's url").WithCause(err)
	case count == 0:
		return nil, schemas.Errorf(schemas.CodeUpstreamError, "the model server's answer has no embeddings; try again, and have the operator check the backend's url")
	}
	return answer, nil
}

// Models lists what the server offers.
func (b *Backend) Models(ctx context.Context) ([]string, error) {
	return b.client.Models(ctx, "/models", nil, openai.DecodeModels)
}

// Health asks for the list of models.
func (b *Backend) Health(ctx context.Context) error {
	_, err := b.Models(ctx)
	return err
}

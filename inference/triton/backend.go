// Package triton is the backend for Triton Inference Server with its vLLM backend, over ModelStreamInfer.
//
// **An answer that this backend ends without an error is whole**: the model said why it ended. The model takes plain text
// and gives plain text: a chat is written down by a [Template], and what a chat can have beyond text (tools, pictures,
// structured output, log probabilities, several answers) is refused, never dropped in silence.
package triton

import (
	"context"
	"fmt"
	"iter"
	"slices"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/rpc"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/openai"
	pb "github.com/weir-llm/weir/internal/pb/triton"
	"github.com/weir-llm/weir/schemas"
)

// DefaultMaxTokens is the limit of an answer to a request that sets none: vLLM's own is 16 tokens.
const DefaultMaxTokens = 4096

// Config describes one server.
type Config struct {
	Name   string           // required; the operator's name for it
	URL    string           // required; grpc://host:port, or grpcs://host:port for TLS
	CA     string           // PEM file of the authorities that its certificate must come from; default: those of the system
	APIKey inference.Secret // optional; sent as a bearer token, for what stands in front of Triton

	// Model is the name in Triton's repository, when it differs from the public one. Empty sends the public name.
	Model string

	// Template writes a chat down as the model was trained to read it. Empty is none: only completions are served.
	Template Template

	// MaxTokens limits the answer to a request that sets no limit. Default DefaultMaxTokens.
	MaxTokens int

	// Deterministic is the operator's word that temperature 0 gives the same text again; see [inference.Capabilities].
	Deterministic bool

	Timeouts inference.Timeouts

	Addresses upstream.Addresses // that may be connected to
}

// Backend calls one server over one connection that it owns.
type Backend struct {
	config Config
	client *rpc.Client
	stub   pb.GRPCInferenceServiceClient
}

var _ inference.Backend = (*Backend)(nil)

// New makes a backend. It does not connect. Close ends its connection.
func New(config Config) (*Backend, error) {
	if config.MaxTokens == 0 {
		config.MaxTokens = DefaultMaxTokens
	}
	if err := config.Template.Validate(); err != nil {
		return nil, fmt.Errorf("backend %s: %w", config.Name, err)
	}
	client, err := rpc.NewClient(rpc.Config{Name: config.Name, URL: config.URL, CA: config.CA, APIKey: config.APIKey, Timeouts: config.Timeouts, Addresses: config.Addresses})
	if err != nil {
		return nil, err
	}
	return &Backend{config: config, client: client, stub: pb.NewGRPCInferenceServiceClient(client.Conn())}, nil
}

// Close ends the connection.
func (b *Backend) Close() error { return b.client.Close() }

// Name of the backend, as configured.
func (b *Backend) Name() string { return b.config.Name }

// Capabilities of the backend, as configured.
func (b *Backend) Capabilities() inference.Capabilities {
	return inference.Capabilities{Deterministic: b.config.Deterministic, Continue: inference.ContinueNone}
}

// Generate runs a chat or completion request.
func (b *Backend) Generate(ctx context.Context, r *inference.GenerateRequest) iter.Seq2[inference.Event, error] {
	return func(yield func(inference.Event, error) bool) {
		c := &call{Call: b.client.NewCall(ctx, r, yield), backend: b, request: r}
		defer c.Close()
		if err := c.run(); err != nil && !c.Stopped() {
			yield(inference.Event{}, err)
		}
	}
}

// Embed is not something that the vLLM backend offers to clients.
func (b *Backend) Embed(context.Context, *inference.GenerateRequest) ([]byte, error) {
	return nil, schemas.Errorf(schemas.CodeUnsupported, "the model server's protocol has no embeddings; choose another model")
}

// Models lists the models of the repository that are ready.
func (b *Backend) Models(ctx context.Context) ([]string, error) {
	c := b.client.NewCall(ctx, &inference.GenerateRequest{}, nil)
	defer c.Close()
	index, err := b.stub.RepositoryIndex(c.Context(), &pb.RepositoryIndexRequest{Ready: true}, rpc.Options(openai.MaxEventBytes)...)
	if err != nil {
		return nil, c.Failed(err)
	}
	var names []string
	for _, m := range index.GetModels() { // one for each version
		if !slices.Contains(names, m.GetName()) {
			names = append(names, m.GetName())
		}
	}
	return names, nil
}

// Health asks the server whether it is ready, and whether the configured model is.
func (b *Backend) Health(ctx context.Context) error {
	c := b.client.NewCall(ctx, &inference.GenerateRequest{}, nil)
	defer c.Close()
	known, err := c.Health("")
	if err == nil && !known {
		err = b.serverReady(c)
	}
	if err != nil || b.config.Model == "" {
		return err
	}
	reply, err := b.stub.ModelReady(c.Context(), &pb.ModelReadyRequest{Name: b.config.Model})
	switch {
	case err != nil:
		return c.Failed(err)
	case !reply.GetReady():
		return rpc.NotReady("model " + b.config.Model)
	}
	return nil
}

func (b *Backend) serverReady(c *rpc.Call) error {
	reply, err := b.stub.ServerReady(c.Context(), &pb.ServerReadyRequest{})
	switch {
	case err != nil:
		return c.Failed(err)
	case !reply.GetReady():
		return rpc.NotReady("server")
	}
	return nil
}

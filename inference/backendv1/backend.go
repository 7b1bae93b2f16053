// Package backendv1 is the backend for model servers that speak llm.backend.v1, the gRPC protocol of
// schemas/proto/llm/backend/v1/backend.proto.
//
// **An answer that this backend ends without an error is whole**: its last message was final, and every choice has its
// finish_reason. The chunks are passed on byte for byte, but for the mendings of [openai.Mender], so that the same model
// gives the same events over this protocol and over HTTP.
package backendv1

import (
	"context"
	"iter"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/rpc"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/openai"
	pb "github.com/weir-llm/weir/internal/pb/backendv1"
	"github.com/weir-llm/weir/schemas"
)

// Config describes one model server.
type Config struct {
	Name   string           // required; the operator's name for it
	URL    string           // required; grpc://host:port, or grpcs://host:port for TLS
	CA     string           // PEM file of the authorities that its certificate must come from; default: those of the system
	APIKey inference.Secret // optional; sent as a bearer token

	// Model is the server's name for the model, when it differs from the public one. Empty sends the public name.
	Model string

	// Deterministic is the operator's word that temperature 0 gives the same text again; see [inference.Capabilities].
	Deterministic bool

	// Continue is how the server goes on with an answer that was cut: by [inference.ContinueText] from resume_text, by
	// [inference.ContinueTokens] also from the tokens that it tells. Default: it does not.
	Continue inference.Continuation

	Timeouts inference.Timeouts

	Addresses upstream.Addresses // that may be connected to
}

// Backend calls one server over one connection that it owns.
type Backend struct {
	config Config
	client *rpc.Client
	stub   pb.BackendClient
}

var _ inference.Backend = (*Backend)(nil)

// New makes a backend. It does not connect. Close ends its connection.
func New(config Config) (*Backend, error) {
	client, err := rpc.NewClient(rpc.Config{Name: config.Name, URL: config.URL, CA: config.CA, APIKey: config.APIKey, Timeouts: config.Timeouts, Addresses: config.Addresses})
	if err != nil {
		return nil, err
	}
	return &Backend{config: config, client: client, stub: pb.NewBackendClient(client.Conn())}, nil
}

// Close ends the connection.
func (b *Backend) Close() error { return b.client.Close() }

// Name of the backend, as configured.
func (b *Backend) Name() string { return b.config.Name }

// Capabilities of the backend, as configured.
func (b *Backend) Capabilities() inference.Capabilities {
	return inference.Capabilities{Deterministic: b.config.Deterministic, Continue: b.config.Continue, Vocabulary: b.config.Model}
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

// Embed runs an embedding request. A server that knows one form of vectors is answered for in the other.
func (b *Backend) Embed(ctx context.Context, r *inference.GenerateRequest) ([]byte, error) {
	c := &call{Call: b.client.NewCall(ctx, r, nil), backend: b, request: r}
	defer c.Close()
	request := &pb.EmbedRequest{RequestId: r.Identity.Request, Tenant: r.Identity.Tenant, BodyJson: c.body()}
	reply, err := b.stub.Embed(c.Context(), request, rpc.Options(openai.MaxEmbeddingBytes)...)
	if err != nil {
		return nil, c.Failed(err)
	}
	return c.embeddings(reply.GetBodyJson())
}

// Models lists what the server offers.
func (b *Backend) Models(ctx context.Context) ([]string, error) {
	c := b.client.NewCall(ctx, &inference.GenerateRequest{}, nil)
	defer c.Close()
	reply, err := b.stub.ListModels(c.Context(), &pb.ListModelsRequest{})
	if err != nil {
		return nil, c.Failed(err)
	}
	return reply.GetId(), nil
}

// Health asks grpc.health.v1, and a server that does not have it for the list of models.
func (b *Backend) Health(ctx context.Context) error {
	c := b.client.NewCall(ctx, &inference.GenerateRequest{}, nil)
	defer c.Close()
	known, err := c.Health(pb.Backend_ServiceDesc.ServiceName, "")
	if err == nil && !known {
		_, err = b.Models(ctx)
	}
	return err
}

// checkOp refuses what the protocol does not have.
func checkOp(op schemas.Op) error {
	switch op {
	case schemas.OpChat, schemas.OpCompletion, "":
		return nil
	}
	return schemas.Errorf(schemas.CodeUnsupported, "the model server's protocol has no operation %q; use %q or %q", op, schemas.OpChat, schemas.OpCompletion)
}

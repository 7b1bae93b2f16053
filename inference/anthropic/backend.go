// Package anthropic is the backend for servers that speak the Anthropic Messages protocol.
//
// **An answer that this backend ends without an error is whole**: it had a stop_reason and its message_stop. A messages
// request is relayed: what the server sends is passed on byte for byte, but for the model's name in message_start where
// the server has another, and for pings, which are not kept. A chat request is translated, and so is its answer.
package anthropic

import (
	"context"
	"iter"
	"net/http"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// DefaultMaxTokens is the limit of a chat request that sets none, since the protocol demands one.
const DefaultMaxTokens = 4096

// Config describes one model server.
type Config struct {
	Name   string           // required; the operator's name for it
	URL    string           // required; up to and without /messages, such as https://api.anthropic.com/v1
	APIKey inference.Secret // optional; sent as x-api-key

	// Model is the server's name for the model, when it differs from the public one. Empty sends the public name.
	Model string

	// MaxInFlight is how many calls run at once; the caller keeps to it, and the connection pool is sized for it. Default 32.
	MaxInFlight int

	// MaxTokens limits the answer to a chat request that sets no limit. Default DefaultMaxTokens.
	MaxTokens int

	// Version of the protocol for chat requests, and for messages requests that name none. Default 2023-06-01, which has
	// the sampling parameters that chat requests may hold; from 2026-10-21 on they are left out.
	Version string

	// Continue is whether the model goes on with an answer that was cut, from a last turn of the assistant. Models from
	// Claude 4.6 on refuse that, and all refuse it while they think. Default: it does not.
	Continue inference.Continuation

	// Deterministic is the operator's word that temperature 0 gives the same text again, as no Claude does but other servers of
	// the protocol may; see [inference.Capabilities].
	Deterministic bool

	SkipMalformed bool // leave events out that cannot be read, instead of failing the call

	Timeouts inference.Timeouts
	Headers  map[string]string // more headers for every call

	Connection upstream.Connection
}

// Backend calls one server over a pool of connections that it owns.
type Backend struct {
	config Config
	client *upstream.Client
}

var _ inference.Backend = (*Backend)(nil)

// New makes a backend. It does not connect. Close releases its connections.
func New(config Config) (*Backend, error) {
	if config.MaxTokens == 0 {
		config.MaxTokens = DefaultMaxTokens
	}
	if config.Version == "" {
		config.Version = anthropic.DefaultVersion
	}
	if err := anthropic.CheckVersion(config.Version); err != nil {
		return nil, err
	}
	client, err := upstream.NewClient(upstream.Config{
		Name: config.Name, URL: config.URL, MaxInFlight: config.MaxInFlight, Timeouts: config.Timeouts, Headers: config.Headers,
		Connection: config.Connection, SkipMalformed: config.SkipMalformed,
	})
	if err != nil {
		return nil, err
	}
	if config.APIKey != "" {
		client.SetHeader("X-Api-Key", config.APIKey.Reveal())
	}
	return &Backend{config: config, client: client}, nil
}

// Close closes the connections that are idle.
func (b *Backend) Close() error { return b.client.Close() }

// Name of the backend, as configured.
func (b *Backend) Name() string { return b.config.Name }

// Capabilities of the backend, as configured.
func (b *Backend) Capabilities() inference.Capabilities {
	return inference.Capabilities{
		Ops:      []schemas.Op{schemas.OpMessages, schemas.OpCountTokens, schemas.OpChat},
		Continue: min(b.config.Continue, inference.ContinueText), Deterministic: b.config.Deterministic,
	}
}

// Generate calls the server's endpoint for the request's op.
func (b *Backend) Generate(ctx context.Context, r *inference.GenerateRequest) iter.Seq2[inference.Event, error] {
	return func(yield func(inference.Event, error) bool) {
		c := &call{Call: b.client.NewCall(ctx, r, yield), backend: b, request: r}
		defer c.Close()
		if err := c.run(); err != nil {
			c.Fail(err)
		}
	}
}

// Embed is not something that the protocol has.
func (b *Backend) Embed(context.Context, *inference.GenerateRequest) ([]byte, error) {
	return nil, schemas.Errorf(schemas.CodeUnsupported, "the model server's protocol has no embeddings; choose another model")
}

// Models lists what the server offers.
func (b *Backend) Models(ctx context.Context) ([]string, error) {
	header := http.Header{anthropicVersion: {b.config.Version}}
	return b.client.Models(ctx, "/models", header, openai.DecodeModels) // both dialects list them as data[].id
}

// Health asks for the list of models.
func (b *Backend) Health(ctx context.Context) error {
	_, err := b.Models(ctx)
	return err
}

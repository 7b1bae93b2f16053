// Package ollama is the backend for servers that speak Ollama's own API. Its OpenAI-compatible endpoints are for the
// backend of that protocol; this one is for what they lack: the size of the context, how long a model stays loaded, and an
// error instead of an answer to half a question.
//
// **An answer that this backend ends without an error is whole**: its last line said that it is done.
package ollama

import (
	"context"
	"fmt"
	"iter"
	"net/http"
	"net/url"
	"strings"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/ollama"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// Config describes one model server.
type Config struct {
	Name   string           // required; the operator's name for it
	URL    string           // required; up to and without /api, such as http://127.0.0.1:11434
	APIKey inference.Secret // optional; sent as a bearer token

	// Model is the server's name for the model, when it differs from the public one. Empty sends the public name.
	Model string

	// MaxInFlight is how many calls run at once; the caller keeps to it, and the connection pool is sized for it. Default 32.
	MaxInFlight int

	// Deterministic is the operator's word that temperature 0 gives the same text again; see [inference.Capabilities].
	Deterministic bool

	// Continue is whether the models go on with an answer that was cut, from a last message of the assistant. That depends on
	// a model's template: most leave the message open, some end it. Default: they do not.
	Continue inference.Continuation

	Policy   ollama.Policy
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
	if err := CheckURL(config.URL); err != nil {
		return nil, fmt.Errorf("backend %s: %w", config.Name, err)
	}
	if err := config.Policy.Validate(); err != nil {
		return nil, fmt.Errorf("backend %s: %w", config.Name, err)
	}
	client, err := upstream.NewClient(upstream.Config{
		Name: config.Name, URL: config.URL, MaxInFlight: config.MaxInFlight, Timeouts: config.Timeouts, Headers: config.Headers,
		Connection: config.Connection,
	})
	if err != nil {
		return nil, err
	}
	if config.APIKey != "" {
		client.SetHeader("Authorization", "Bearer "+config.APIKey.Reveal())
	}
	return &Backend{config: config, client: client}, nil
}

// CheckURL reports an address of the other API, or one that names an endpoint. What is no address at all is for others to
// say.
func CheckURL(address string) error {
	u, err := url.Parse(address)
	if err != nil {
		return nil
	}
	switch path := strings.TrimRight(u.Path, "/"); {
	case strings.HasSuffix(path, "/v1"):
		return fmt.Errorf("url ends in /v1, which is the server's OpenAI-compatible API: leave /v1 away, or set protocol: openai")
	case strings.HasSuffix(path, "/api"), strings.Contains(path, "/api/"):
		return fmt.Errorf("url ends in /api: leave it away, such as http://127.0.0.1:11434")
	}
	return nil
}

// Close closes the connections that are idle.
func (b *Backend) Close() error { return b.client.Close() }

// Name of the backend, as configured.
func (b *Backend) Name() string { return b.config.Name }

// Capabilities of the backend, as configured.
func (b *Backend) Capabilities() inference.Capabilities {
	return inference.Capabilities{Deterministic: b.config.Deterministic, Continue: min(b.config.Continue, inference.ContinueText)}
}

// Generate chats with the model.
func (b *Backend) Generate(ctx context.Context, r *inference.GenerateRequest) iter.Seq2[inference.Event, error] {
	return func(yield func(inference.Event, error) bool) {
		c := &call{Call: b.client.NewCall(ctx, r, yield), backend: b, request: r}
		defer c.Close()
		if err := c.run(); err != nil {
			c.Fail(err)
		}
	}
}

// Embed turns texts into vectors.
func (b *Backend) Embed(ctx context.Context, r *inference.GenerateRequest) ([]byte, error) {
	public := openai.Model(r.Body)
	body, err := ollama.FromEmbedding(r.Body, b.model(r, public), b.config.Policy)
	if err != nil {
		return nil, err
	}
	c := b.client.NewCall(ctx, r, nil)
	defer c.Close()
	data, err := c.Exchange(http.MethodPost, "/api/embed", body, nil, openai.MaxEmbeddingBytes, &openai.Chunk{})
	if err != nil {
		return nil, err
	}
	count := 0
	if data, err = ollama.ToEmbeddings(data, public); err == nil {
		data, count, err = openai.Embeddings(data, openai.EncodingFormat(r.Body))
	}
	switch {
	case err != nil:
		return nil, schemas.Errorf(schemas.CodeUpstreamError, "the model server's embeddings cannot be read; try again, and have the operator check the backend's url").WithCause(err)
	case count == 0:
		return nil, schemas.Errorf(schemas.CodeUpstreamError, "the model server's answer has no embeddings; try again, and have the operator check the backend's url")
	}
	return openai.OneLine(data), nil
}

// model is the server's name for the model that the caller calls by its public name.
func (b *Backend) model(r *inference.GenerateRequest, public string) string {
	switch {
	case r.Model != "":
		return r.Model
	case b.config.Model != "":
		return b.config.Model
	}
	return public
}

// Models lists what the server has on its disk.
func (b *Backend) Models(ctx context.Context) ([]string, error) {
	return b.client.Models(ctx, "/api/tags", nil, ollama.DecodeModels)
}

// Health asks for the version.
func (b *Backend) Health(ctx context.Context) error {
	c := b.client.NewCall(ctx, &inference.GenerateRequest{}, nil)
	defer c.Close()
	_, err := c.Exchange(http.MethodGet, "/api/version", nil, nil, openai.MaxEventBytes, &openai.Chunk{})
	return err
}

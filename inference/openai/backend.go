// Package openai is the backend for servers that speak the OpenAI protocol: OpenAI itself, vLLM, llama.cpp, Ollama and
// many more.
//
// **An answer that this backend ends without an error is whole**: every choice has its finish_reason. The server's end
// mark and a clean end of the connection prove nothing, since proxies and dying servers send both. What the server
// sends is passed on byte for byte, but for the mendings of [openai.Mender].
package openai

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// firstBuffer bounds what is set aside for a reply because it says that it is so long.
const firstBuffer = 64 << 10

// maxErrorBytes is how much of a reply that reports an error is read.
const maxErrorBytes = 64 << 10

// Backend calls one server over a pool of connections that it owns.
type Backend struct {
	config  Config
	client  *http.Client
	header  http.Header // of every call
	overdue overdue
}

var _ inference.Backend = (*Backend)(nil)

// New makes a backend. It does not connect. Close releases its connections.
func New(config Config) (*Backend, error) {
	config = config.withDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	header := http.Header{"User-Agent": {"weir"}}
	for name, value := range config.Headers {
		header.Set(name, value)
	}
	if config.APIKey != "" {
		header.Set("Authorization", "Bearer "+config.APIKey.Reveal())
	}
	return &Backend{config: config, client: newClient(config), header: header, overdue: newOverdue(config.Timeouts)}, nil
}

func newClient(config Config) *http.Client {
	dialer := &net.Dialer{Timeout: config.Timeouts.Connect, KeepAlive: 15 * time.Second}
	return &http.Client{
		Transport: &http.Transport{
			DialContext:         dialer.DialContext,
			ReadBufferSize:      openai.ReadBytes, // what arrived during a write leaves in one frame
			TLSHandshakeTimeout: config.Timeouts.Connect,
			MaxIdleConns:        config.MaxInFlight,
			MaxIdleConnsPerHost: config.MaxInFlight,
			IdleConnTimeout:     90 * time.Second,
			DisableCompression:  true, // a compressed stream arrives late and in lumps
			ForceAttemptHTTP2:   strings.HasPrefix(config.URL, "https:"),
		},
		// A redirect would carry the credentials to an address the operator did not configure.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// Close closes the connections that are idle.
func (b *Backend) Close() error {
	b.client.CloseIdleConnections()
	return nil
}

// Name of the backend, as configured.
func (b *Backend) Name() string { return b.config.Name }

// Capabilities of the backend, as configured.
func (b *Backend) Capabilities() inference.Capabilities {
	return inference.Capabilities{Deterministic: b.config.Deterministic, Continue: inference.ContinueNone}
}

// Generate calls the server's endpoint for the request's op.
func (b *Backend) Generate(ctx context.Context, r *inference.GenerateRequest) iter.Seq2[inference.Event, error] {
	return func(yield func(inference.Event, error) bool) {
		path, err := endpoint(r.Op)
		if err != nil {
			yield(inference.Event{}, err)
			return
		}
		c := b.newCall(ctx, r, yield)
		defer c.close()
		if err := c.run(path); err != nil && !c.stopped {
			yield(inference.Event{}, err)
		}
	}
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
	defer c.close()
	data, err := c.exchange(http.MethodPost, "/embeddings", c.outgoing(), openai.MaxEmbeddingBytes)
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
	c := b.newCall(ctx, &inference.GenerateRequest{}, nil)
	defer c.close()
	body, err := c.exchange(http.MethodGet, "/models", nil, openai.MaxEventBytes)
	if err != nil {
		return nil, err
	}
	names, err := openai.DecodeModels(body)
	if err != nil {
		return nil, schemas.Errorf(schemas.CodeUpstreamError, "the model server's list of models cannot be read; the operator should check the backend's url").WithCause(err)
	}
	return names, nil
}

// Health asks for the list of models.
func (b *Backend) Health(ctx context.Context) error {
	_, err := b.Models(ctx)
	return err
}

// exchange makes a call outside Generate and returns the JSON document it was answered with, of at most limit bytes.
func (c *call) exchange(method, path string, body []byte, limit int64) ([]byte, error) {
	reply, err := c.send(method, path, body)
	if err != nil {
		return nil, err
	}
	defer reply.Body.Close()
	data, err := c.readDocument(reply, limit)
	if err != nil {
		return nil, err
	}
	if err := c.chunk.Peek(data); err != nil {
		return nil, notAnAnswer(data, err)
	}
	if c.chunk.Error != "" {
		return nil, openai.EventError([]byte(c.chunk.Error))
	}
	return data, nil
}

// notAnAnswer says what a reply is when it is not what was asked for, without quoting it.
func notAnAnswer(data []byte, cause error) *schemas.Error {
	what := "something that is not JSON"
	switch trimmed := strings.TrimSpace(string(data[:min(len(data), 64)])); {
	case trimmed == "":
		what = "an empty body"
	case strings.HasPrefix(trimmed, "<"):
		what = "a web page"
	}
	return schemas.Errorf(schemas.CodeUpstreamError, "the model server answered with %s; try again, and have the operator check the backend's url", what).
		WithCause(fmt.Errorf("read reply: %w", cause))
}

// readAtMost reads a body that is announced to have so many bytes, or -1, and may have at most limit; whether there was
// more is the second result.
func readAtMost(r io.Reader, announced, limit int64) (data []byte, more bool, err error) {
	var b bytes.Buffer
	b.Grow(int(min(max(announced, 0), firstBuffer)) + bytes.MinRead)
	_, err = b.ReadFrom(io.LimitReader(r, limit+1))
	if int64(b.Len()) > limit {
		return b.Bytes()[:limit], true, err
	}
	return b.Bytes(), false, err
}

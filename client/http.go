package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"go.opentelemetry.io/otel/propagation"

	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

const (
	headerRequestID      = "X-Request-Id"
	headerMessagesID     = "Request-Id" // of the Messages dialect
	headerIdempotencyKey = "Idempotency-Key"

	connectTimeout = 10 * time.Second
	// silence is after how long a stream without as much as a heartbeat counts as cut; the door sends one every 15 s.
	silence = 45 * time.Second
	// maxAnswer bounds what is read of an answer in one piece. No worker takes a larger one from a model.
	maxAnswer = openai.MaxEmbeddingBytes
	// maxRefusal bounds what is read of an answer that no door gives.
	maxRefusal = 64 << 10
)

// pathOf is the route of an operation.
func pathOf(op schemas.Op) (string, error) {
	switch op {
	case "", schemas.OpChat:
		return "/v1/chat/completions", nil
	case schemas.OpCompletion:
		return "/v1/completions", nil
	case schemas.OpEmbedding:
		return "/v1/embeddings", nil
	case schemas.OpMessages:
		return "/v1/messages", nil
	case schemas.OpCountTokens:
		return "/v1/messages/count_tokens", nil
	case schemas.OpResponses:
		return "/v1/responses", nil
	}
	return "", schemas.Errorf(schemas.CodeInvalidValue, "the operation %q is not known: leave Request.Op out for chat, or use one of the schemas.Op constants", op)
}

// overHTTP speaks to the HTTP door.
type overHTTP struct {
	follower
	base   string // without /v1
	key    string
	client *http.Client
	own    bool // the client is not the caller's
}

func newOverHTTP(cfg Config) (transport, error) {
	base, err := url.Parse(cfg.URL)
	if err != nil || base.Host == "" {
		return nil, fmt.Errorf("the URL %q has no host: write it as http://host:8080", cfg.URL)
	}
	if base.User != nil || base.RawQuery != "" || base.Fragment != "" {
		return nil, errors.New("the URL has more than a host and a path: give the API key in Config.APIKey")
	}
	t := &overHTTP{
		follower: cfg.follower(),
		base:     strings.TrimSuffix(strings.TrimSuffix(cfg.URL, "/"), "/v1"), key: cfg.APIKey, client: cfg.HTTPClient,
	}
	if t.client == nil {
		files, err := cfg.certs()
		if err != nil {
			return nil, err
		}
		if t.client, err = newHTTPClient(files); err != nil {
			return nil, err
		}
		t.own = true
	} else if cfg.CAFile != "" || cfg.CertFile != "" {
		return nil, errors.New("both Config.HTTPClient and PEM files are given: give the files to the HTTP client")
	}
	return t, nil
}

func (t *overHTTP) close() error {
	if t.own {
		t.client.CloseIdleConnections()
	}
	return nil
}

// do sends one HTTP request. What a door refuses is its error, and what never reached one is a broken connection. The
// caller closes the body.
func (t *overHTTP) do(ctx context.Context, method, path string, body []byte, header http.Header) (*http.Response, error) {
	r, err := http.NewRequestWithContext(ctx, method, t.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header = header
	if r.Header == nil {
		r.Header = http.Header{}
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	if t.key != "" {
		r.Header.Set("Authorization", "Bearer "+t.key)
	}
	propagation.TraceContext{}.Inject(ctx, propagation.HeaderCarrier(r.Header))
	response, err := t.client.Do(r)
	if err != nil {
		return nil, &broken{cause: err}
	}
	if response.StatusCode < 300 {
		return response, nil
	}
	defer response.Body.Close()
	text, err := io.ReadAll(io.LimitReader(response.Body, maxRefusal))
	if err != nil {
		return nil, &broken{cause: err}
	}
	return nil, refusal(response, text)
}

// refusal is the error of an answer without success.
func refusal(response *http.Response, text []byte) error {
	e, err := decodeRefusal(text)
	switch {
	case err == nil && e.Code == schemas.CodeShutdown:
		return &broken{cause: e} // another door has the request, or this one after its restart
	case err == nil:
		if e.RetryAfter == 0 {
			e.RetryAfter = retryAfter(response.Header)
		}
		return e
	case response.StatusCode == http.StatusBadGateway || response.StatusCode == http.StatusServiceUnavailable || response.StatusCode == http.StatusGatewayTimeout:
		return &broken{cause: fmt.Errorf("status %s without an answer of a door", response.Status), pause: retryAfter(response.Header)}
	}
	return schemas.Errorf(schemas.CodeUnavailable, "status %s, which no door of Weir answers: is the URL right?", response.Status)
}

// decodeRefusal reads an error in the dialect of either surface.
func decodeRefusal(text []byte) (*schemas.Error, error) {
	if e, ok := anthropic.DecodeError(text); ok {
		return e, nil
	}
	return schemas.DecodeError(text)
}

func retryAfter(h http.Header) time.Duration {
	seconds, err := strconv.ParseUint(h.Get("Retry-After"), 10, 16)
	if err != nil {
		return 0
	}
	return time.Duration(seconds) * time.Second
}

// headers are those of a request. Its id, or its key, makes it safe to send again.
func (r *outgoing) headers() http.Header {
	h := http.Header{}
	for name, values := range r.Encode() {
		h.Set(name, values[0])
	}
	if r.key != "" {
		h.Del(schemas.HeaderRequestID)
		h.Set(headerIdempotencyKey, r.key)
	}
	for name, own := range map[string]string{anthropic.HeaderVersion: schemas.HeaderAnthropicVersion, anthropic.HeaderBeta: schemas.HeaderAnthropicBeta} {
		if value := h.Get(own); value != "" {
			h.Del(own)
			h.Set(name, value)
		}
	}
	return h
}

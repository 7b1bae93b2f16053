// Package client is the way for a Go program to use Weir: send a request, stream its answer, come back to a stream where
// it broke off, fetch the result, cancel. One type works over three transports, chosen by [Config]:
//
//   - NATS as a trusted service, with credentials of the account that the pipeline works in;
//   - NATS as a tenant, with an API key;
//   - HTTP, with an API key, or without one on the machine of an open door.
//
// **What Send has accepted ends in exactly one result, whatever dies, and each reader gets its events without a gap or a
// duplicate.** A stream whose connection breaks takes itself up again after the last event; a program that restarts does
// the same with [Client.Resume]. An answer that cannot be finished ends in an error after the events already seen; it is
// never short in silence. Errors of the pipeline are [schemas.Error] values on every transport, to be read with
// errors.AsType.
package client

import (
	"cmp"
	"context"
	"errors"
	"iter"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"go.opentelemetry.io/otel/trace"

	"github.com/weir-llm/weir/schemas"
)

// InProcess is an embedded nats-server to connect to without a socket.
type InProcess interface {
	InProcessConn() (net.Conn, error)
}

// Config says where the pipeline is and who calls. One of URL, Context and InProcess is required.
type Config struct {
	// URL is nats://host:4222, or several, comma-separated; or http://host:8080 (or https), with or without /v1.
	URL       string
	Context   string    // a context of the nats CLI, by name or file
	InProcess InProcess // an embedded server

	// APIKey makes the client a tenant's. Without one, a client over NATS is a trusted service of every tenant.
	APIKey string
	// Tenant is whose requests these are when a request names none; default DefaultTenant. With an API key over NATS it is
	// required and must be the key's, since it is part of every subject; over HTTP the key alone decides.
	Tenant string

	// ReadOnly says that the API key is one of scope audit, or that this client shall count as nobody: a request that it reads
	// is cancelled, or goes on, as if it did not. Over NATS such a key needs it; over HTTP the key says it by itself.
	ReadOnly bool

	Username, Password string // optional: of a trusted service
	CredsFile          string // optional: a NATS credentials file of a trusted service

	HTTPClient *http.Client // optional: for HTTP instead of a client of its own, which Close then leaves alone

	// ReconnectFor is how long a stream tries to come back without getting any further before it ends in
	// service_unavailable; default one minute. A trusted client tries for as long as its context lasts.
	ReconnectFor time.Duration

	// CAFile, CertFile and KeyFile are PEM files: the authorities that the server's certificate must come from, and a
	// certificate of one's own. They are read again when they change, but for the authorities of a client over HTTP. All
	// optional.
	CAFile, CertFile, KeyFile string

	Name           string               // optional: of the connection, as `nats server report connections` shows it; default weir-client
	Logger         *slog.Logger         // optional: for what the client mends by itself and what it leaves out
	TracerProvider trace.TracerProvider // optional: a request then belongs to the trace of the context it was sent with
}

// defaultReconnect is how long a stream without progress tries to come back.
const defaultReconnect = time.Minute

func (c *Config) setDefaults() {
	if c.Name == "" {
		c.Name = "weir-client"
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.ReconnectFor <= 0 {
		c.ReconnectFor = defaultReconnect
	}
}

// Client sends requests and reads answers. It is safe for concurrent use; one is enough for a process.
type Client struct {
	way transport
	// tenant is that of requests which name none; bound says that there is no other.
	tenant string
	bound  bool
}

// transport is one way into the pipeline. Identities and requests are valid when they get here.
type transport interface {
	// send returns once the request is stored.
	send(ctx context.Context, r *outgoing) error
	stream(ctx context.Context, r *outgoing) iter.Seq2[Event, error]
	resume(ctx context.Context, id schemas.Identity, from uint64) iter.Seq2[Event, error]
	// result does not wait: the error is ErrNotFound while there is none.
	result(ctx context.Context, id schemas.Identity) (*schemas.Result, error)
	// await returns when the request has ended, or is likely to have.
	await(ctx context.Context, id schemas.Identity) error
	cancel(ctx context.Context, id schemas.Identity) error
	close() error
}

// Connect opens the connection. Over NATS it fails when no server answers; a connection that is lost later comes back by
// itself, and streams go on where they were. Over HTTP nothing is sent yet. The caller closes the client.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	cfg.setDefaults()
	if cfg.Tenant != "" {
		if err := schemas.ValidateTenant(cfg.Tenant); err != nil {
			return nil, err
		}
	}
	c := &Client{tenant: cmp.Or(cfg.Tenant, DefaultTenant)}
	var err error
	switch {
	case strings.HasPrefix(cfg.URL, "http://") || strings.HasPrefix(cfg.URL, "https://"):
		c.way, err = newOverHTTP(cfg)
		c.bound = true
	case cfg.APIKey != "":
		c.way, err = newTenant(ctx, cfg)
		c.bound = true
	default:
		c.way, err = newTrusted(ctx, cfg)
	}
	if err != nil {
		return nil, err
	}
	return c, nil
}

// Close ends the connection. Requests that were accepted go on; streams that are being read end with an error.
func (c *Client) Close() error { return c.way.close() }

// ErrNotFound says that there is no result: the request has not ended yet, or was never sent, or ended longer ago than
// results are kept on the bus.
var ErrNotFound = errors.New("no result")

// identity is that of a request, of the client's own tenant when none is named.
func (c *Client) identity(tenant, id string) (schemas.Identity, error) {
	tenant, err := c.tenantOf(tenant)
	if err != nil {
		return schemas.Identity{}, err
	}
	identity := schemas.Identity{Tenant: tenant, Request: id}
	return identity, identity.Validate()
}

// tenantOf refuses a tenant that is not the client's own rather than to act for the wrong one.
func (c *Client) tenantOf(tenant string) (string, error) {
	if tenant == "" || tenant == c.tenant {
		return c.tenant, nil
	}
	if c.bound {
		return "", schemas.Errorf(schemas.CodeInvalidValue, "the tenant is %q, but this client is one of tenant %q: leave it out, or set Config.Tenant to the tenant of the API key", tenant, c.tenant)
	}
	return tenant, nil
}

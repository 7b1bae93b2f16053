// Package rpc is what every backend that calls a model server over gRPC has in common: one connection that is reused, the
// timeouts, how a call is cancelled, how the messages of a stream are read, what a status is called, and health. What
// the messages mean is for the package of the protocol to say.
package rpc

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/certs"
	"github.com/weir-llm/weir/schemas"
)

// Schemes of a server's url.
const (
	SchemePlain = "grpc"
	SchemeTLS   = "grpcs"
)

const (
	pingTimeout = 20 * time.Second // after which a connection that does not answer a ping is given up
	minPing     = 15 * time.Second
	maxRedial   = 2 * time.Second // between two attempts to connect; whoever calls has a backoff of its own
)

// Config describes one model server.
type Config struct {
	Name     string           // required; the operator's name for it
	URL      string           // required; grpc://host:port, or grpcs://host:port for TLS
	CA       string           // PEM file of the authorities that its certificate must come from, followed; default: those of the system
	APIKey   inference.Secret // optional; sent as a bearer token
	Timeouts inference.Timeouts

	Addresses upstream.Addresses // that may be connected to
}

// Validate reports the first setting that cannot work.
func (c Config) Validate() error {
	if c.Name == "" {
		return errors.New("backend: name is missing: give each backend one, it stands in results and metrics")
	}
	if err := CheckURL(c.URL); err != nil {
		return fmt.Errorf("backend %s: url %w", c.Name, err)
	}
	if c.CA != "" && !c.tls() {
		return fmt.Errorf("backend %s: a ca is for TLS: write the url with %s://, or remove ca", c.Name, SchemeTLS)
	}
	if err := c.Timeouts.Validate(); err != nil {
		return fmt.Errorf("backend %s: %w", c.Name, err)
	}
	return nil
}

func (c Config) tls() bool {
	u, err := url.Parse(c.URL)
	return err == nil && u.Scheme == SchemeTLS
}

// CheckURL reports why text is not the address of a gRPC server.
func CheckURL(text string) error {
	const example = "write it like grpc://10.0.0.7:9000, or grpcs:// for TLS"
	u, err := url.Parse(text)
	switch {
	case err != nil || u.Scheme != SchemePlain && u.Scheme != SchemeTLS || u.Hostname() == "":
		return errors.New("is not a grpc or grpcs address: " + example)
	case u.Port() == "":
		return errors.New("has no port: " + example)
	case u.User != nil || u.RawQuery != "" || u.Fragment != "" || u.Path != "" && u.Path != "/":
		return errors.New("holds more than a host and a port: " + example + "; credentials go into api_key")
	}
	return nil
}

// Client calls one server over one connection that it owns, on which all calls run side by side. It is safe for
// concurrent use.
type Client struct {
	config Config
	conn   *grpc.ClientConn
	bounds *upstream.Bounds
	dialer *dialer
}

// NewClient makes a client. It does not connect; the first call does, and so does the next one after a connection was lost.
// Close releases it.
func NewClient(config Config) (*Client, error) {
	config.Timeouts = config.Timeouts.WithDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	c := &Client{config: config, bounds: upstream.NewBounds(config.Timeouts), dialer: &dialer{addresses: config.Addresses}}
	if config.tls() {
		authorities, err := certs.NewClient(certs.ClientConfig{CA: config.CA})
		if err != nil {
			return nil, fmt.Errorf("backend %s: read ca: %w", config.Name, err)
		}
		c.dialer.authorities = authorities
	}
	u, _ := url.Parse(config.URL)
	conn, err := grpc.NewClient("dns:///"+u.Host, c.options()...)
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", config.Name, err)
	}
	c.conn = conn
	return c, nil
}

func (c *Client) options() []grpc.DialOption {
	redial := backoff.Config{BaseDelay: 100 * time.Millisecond, Multiplier: 1.6, Jitter: 0.2, MaxDelay: maxRedial}
	return []grpc.DialOption{
		grpc.WithTransportCredentials(c.dialer.credentials()),
		grpc.WithContextDialer(c.dialer.dial),
		grpc.WithConnectParams(grpc.ConnectParams{Backoff: redial, MinConnectTimeout: c.config.Timeouts.Connect}),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: pingEvery(c.config.Timeouts), Timeout: pingTimeout}),
		grpc.WithUserAgent("weir"),
		grpc.WithDisableServiceConfig(), // retries are the caller's, and nobody else decides
		grpc.WithNoProxy(),
	}
}

// pingEvery is the silence after which the server is asked whether it is still there. A silence that the timeouts allow holds
// two such questions at most: servers count pings while they send nothing, and by default close the connection at the
// third.
func pingEvery(t inference.Timeouts) time.Duration {
	return max(max(t.FirstToken, t.Idle)/2, minPing)
}

// Conn is the connection, for the stubs of the protocol.
func (c *Client) Conn() grpc.ClientConnInterface { return c.conn }

// Close ends the connection and every call on it.
func (c *Client) Close() error { return c.conn.Close() }

// outgoing adds the credentials and the trace to a call.
func (c *Client) outgoing(ctx context.Context, header schemas.Header) context.Context {
	pairs := make([]string, 0, 6)
	if c.config.APIKey != "" {
		pairs = append(pairs, "authorization", "Bearer "+c.config.APIKey.Reveal())
	}
	for _, name := range [...]string{schemas.HeaderTraceParent, schemas.HeaderTraceState} {
		if v := header[name]; len(v) > 0 {
			pairs = append(pairs, name, v[0])
		}
	}
	if len(pairs) == 0 {
		return ctx
	}
	return metadata.AppendToOutgoingContext(ctx, pairs...)
}

// Package upstream is what every backend that calls a model server over HTTP has in common: the pool of connections, the
// timeouts, how a call is cancelled, how a stream of events is read, and what a failure of the network is called. What
// the events mean is for the package of the protocol to say.
package upstream

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"github.com/weir-llm/weir/inference"
)

// DefaultMaxInFlight is how many calls run at once when nothing else is configured.
const DefaultMaxInFlight = 32

// Config describes one model server.
type Config struct {
	Name        string // required; the operator's name for it
	URL         string // required; the base URL
	MaxInFlight int    // the connection pool is sized for it; default DefaultMaxInFlight
	Timeouts    inference.Timeouts
	Headers     map[string]string // of every call; optional

	// SkipMalformed leaves an event out that cannot be read, instead of failing the call. At most maxMalformed of a call are.
	SkipMalformed bool
	Connection    Connection
}

// WithDefaults fills in the fields that are zero.
func (c Config) WithDefaults() Config {
	c.URL = strings.TrimRight(c.URL, "/")
	if c.MaxInFlight == 0 {
		c.MaxInFlight = DefaultMaxInFlight
	}
	c.Timeouts = c.Timeouts.WithDefaults()
	return c
}

// Validate reports the first setting that cannot work.
func (c Config) Validate() error {
	if c.Name == "" {
		return errors.New("backend: name is missing: give each backend one, it stands in results and metrics")
	}
	u, err := url.Parse(c.URL)
	if err != nil || u.Host == "" || (u.Scheme != "http" && u.Scheme != "https") {
		return fmt.Errorf("backend %s: url is not an http or https address: write it like http://10.0.0.7:8000/v1", c.Name)
	}
	if u.User != nil || u.RawQuery != "" || u.Fragment != "" {
		return fmt.Errorf("backend %s: url holds credentials, a query or a fragment: use api_key and headers instead", c.Name)
	}
	if c.MaxInFlight < 0 {
		return fmt.Errorf("backend %s: max_in_flight is negative: leave it out for %d", c.Name, DefaultMaxInFlight)
	}
	if err := c.Timeouts.Validate(); err != nil {
		return fmt.Errorf("backend %s: %w", c.Name, err)
	}
	if err := c.Connection.Validate(c.URL); err != nil {
		return fmt.Errorf("backend %s: %w", c.Name, err)
	}
	for name, value := range c.Headers {
		if name == "" || strings.ContainsAny(name, " \t\r\n:") || strings.ContainsAny(value, "\r\n") {
			return fmt.Errorf("backend %s: header %q cannot be sent: check its name and that it has no line breaks", c.Name, http.CanonicalHeaderKey(name))
		}
	}
	return nil
}

// Client calls one server over a pool of connections that it owns. It is safe for concurrent use.
type Client struct {
	config    Config
	url       *url.URL // of config
	transport *http.Transport
	header    http.Header // of every call
	bounds    *Bounds
}

// NewClient makes a client. It does not connect. Close releases its connections.
func NewClient(config Config) (*Client, error) {
	config = config.WithDefaults()
	if err := config.Validate(); err != nil {
		return nil, err
	}
	base, err := url.Parse(config.URL)
	if err != nil {
		return nil, err // unreachable: it was validated
	}
	base.Host = strings.TrimSuffix(base.Host, ":") // an empty port is that of the scheme, and no part of the Host header
	header := http.Header{"User-Agent": {"weir"}}
	for name, value := range config.Headers {
		header.Set(name, value)
	}
	transport, err := config.Connection.transport(config)
	if err != nil {
		return nil, fmt.Errorf("backend %s: %w", config.Name, err)
	}
	return &Client{config: config, url: base, transport: transport, header: header, bounds: NewBounds(config.Timeouts)}, nil
}

// at is the URL of a path of the server, which needs no escaping.
func (c *Client) at(path string) *url.URL {
	u := *c.url
	if u.Path += path; u.RawPath != "" {
		u.RawPath += path
	}
	return &u
}

// SetHeader adds a header to every call. It must not be called once there are any.
func (c *Client) SetHeader(name, value string) { c.header.Set(name, value) }

// Close closes the connections that are idle.
func (c *Client) Close() error {
	c.transport.CloseIdleConnections()
	return nil
}

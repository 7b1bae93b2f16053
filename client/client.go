// Package client is the way for a Go service to use Weir over NATS: send a request, stream its answer, come back to a
// stream where it broke off, fetch the result, cancel.
//
// **What Send has accepted ends in exactly one result, whatever dies, and each reader gets its events without a gap or a
// duplicate.** An answer that cannot be finished ends in an error after the events already seen; it is never short in
// silence. Errors of the pipeline are [schemas.Error] values, to be read with errors.AsType.
//
// The client needs credentials of the account that the pipeline works in, and is trusted with every tenant of it.
package client

import (
	"context"
	"errors"
	"log/slog"
	"net"

	"go.opentelemetry.io/otel/trace"

	"github.com/weir-llm/weir/internal/bus"
)

// InProcess is an embedded nats-server to connect to without a socket.
type InProcess interface {
	InProcessConn() (net.Conn, error)
}

// Config says where the pipeline is. One of URL, Context and InProcess is required.
type Config struct {
	URL       string    // nats://host:4222, or several, comma-separated
	Context   string    // a context of the nats CLI, by name or file
	InProcess InProcess // an embedded server

	Username, Password string // optional
	CredsFile          string // optional: a NATS credentials file

	// CAFile, CertFile and KeyFile are PEM files: the authorities that the server's certificate must come from, and a
	// certificate of one's own. They are read again when they change. All optional.
	CAFile, CertFile, KeyFile string

	Name           string               // optional: of the connection, as `nats server report connections` shows it; default weir-client
	Logger         *slog.Logger         // optional: for what the client mends by itself and what it leaves out
	TracerProvider trace.TracerProvider // optional: a request then belongs to the trace of the context it was sent with
}

// Client sends requests and reads answers. It is safe for concurrent use; one is enough for a process.
type Client struct {
	bus *bus.Bus
}

// Connect opens the connection. It fails when no server answers; a connection that is lost later comes back by itself, and
// streams go on where they were. The caller closes the client.
func Connect(ctx context.Context, cfg Config) (*Client, error) {
	if cfg.Name == "" {
		cfg.Name = "weir-client"
	}
	b, err := bus.Connect(ctx, bus.Config{
		URL: cfg.URL, Context: cfg.Context, InProcess: cfg.InProcess, Username: cfg.Username, Password: cfg.Password,
		CredsFile: cfg.CredsFile, CAFile: cfg.CAFile, CertFile: cfg.CertFile, KeyFile: cfg.KeyFile, Name: cfg.Name, Logger: cfg.Logger, TracerProvider: cfg.TracerProvider,
	})
	if err != nil {
		return nil, err
	}
	return &Client{bus: b}, nil
}

// Close ends the connection. Requests that were accepted go on; streams that are being read end with an error.
func (c *Client) Close() error { return c.bus.Close() }

// ErrNotFound says that there is no result: the request has not ended yet, or was never sent, or ended longer ago than
// results are kept on the bus.
var ErrNotFound = errors.New("no result")

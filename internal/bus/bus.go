// Package bus is the only place that knows JetStream: it owns the streams and consumers, the fenced write, the committed
// read and what becomes of a delivery. The stages meet here and nowhere else.
//
// What it guarantees:
//
//   - [Bus.Accept] returns only after the request is stored; nothing is accepted before.
//   - [Bus.Append] writes a frame only if the frame expected before it is still the last of its chain, so that of two
//     writers one is fenced, whatever was killed or paused (docs/adr/0001).
//   - [Reader] yields only what a stream has committed, in its order, without a gap or a duplicate.
//   - A delivery that is not settled comes back after the lease.
package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/synadia-io/orbit.go/natscontext"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-llm/weir/internal/certs"
	"github.com/weir-llm/weir/schemas"
)

// DefaultLease is how long a delivery stays with its owner without a sign of life.
const DefaultLease = 30 * time.Second

// syncQueue bounds what waits for a stored read, which asks for far less at once. The library would take half a megabyte
// for each such read.
const syncQueue = 1024

// connectTimeout bounds how long a server may take to let a connection in.
const connectTimeout = 5 * time.Second

// Errors of the bus. Everything that a caller of Weir may see is a [schemas.Error] instead.
var (
	// ErrFenced says that somebody else owns the chain. The writer must cancel its work and go silent.
	ErrFenced = errors.New("fenced: somebody else owns the request")
	// ErrUnresolved says that the outcome of a write stayed unknown. The writer must go silent; the lease decides.
	ErrUnresolved = errors.New("the outcome of the write is unknown")
	// ErrUnpinned says that another puller is served now.
	ErrUnpinned = errors.New("another puller is served now")
	// ErrNotFound says that there is no such record.
	ErrNotFound = errors.New("not found")
)

// InProcess is an embedded server: connections to it are pipes.
type InProcess interface {
	InProcessConn() (net.Conn, error)
}

// Config of a [Bus].
type Config struct {
	URL       string    // nats://…, comma-separated; required without InProcess and Context
	InProcess InProcess // optional: an embedded server instead of URL

	Username, Password string // optional
	CredsFile          string // optional: a NATS credentials file
	Context            string // optional: a context of the nats CLI, by name or file

	// CAFile, CertFile and KeyFile are PEM files: the authorities that the server's certificate must come from, and a
	// certificate of one's own. With any of them the connection is TLS or none. All optional.
	CAFile, CertFile, KeyFile string

	Edge *Credentials // optional: a user in account EDGE, with which [Bus.Serve] serves tenants

	Name     string        // of the connection, as `nats server report connections` shows it
	Replicas int           // of the streams; default 1
	Lease    time.Duration // default DefaultLease
	// StoreBytes is the size that the bounded streams share; default 8 GiB.
	StoreBytes int64
	// Room reports why the store should take no new requests, beyond what the streams themselves tell; optional.
	Room func() error

	Logger         *slog.Logger          // optional
	TracerProvider trace.TracerProvider  // optional
	Registerer     prometheus.Registerer // optional
}

// Credentials are those of a user at the server that the rest of a [Config] names.
type Credentials struct {
	Username, Password string
	CredsFile          string
}

func (c *Config) setDefaults() error {
	if c.InProcess == nil && c.URL == "" && c.Context == "" {
		return errors.New("connect to NATS: no server given; set --nats nats://host:4222 or --context NAME")
	}
	if c.Replicas == 0 {
		c.Replicas = 1
	}
	if c.Lease == 0 {
		c.Lease = DefaultLease
	}
	if c.StoreBytes == 0 {
		c.StoreBytes = 8 << 30
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	return nil
}

// Bus is a process's connection to the pipeline. It is safe for concurrent use.
type Bus struct {
	cfg    Config
	log    *slog.Logger
	tracer trace.Tracer // nil when nobody looks
	meters *metrics
	certs  *certs.Client

	control *requester // pulls, acks, hints, API
	frames  *requester // frame writes, so that nothing else delays them
	js      jetstream.JetStream
	acks    *acker

	stored chan struct{} // bounds stored reads, which hold the lock that writes need
	room   watermark

	gapMu   sync.Mutex
	gaps    map[int]func() // called when hints may have been missed
	gapNext int

	saidMu sync.Mutex
	said   map[string]said // by the name of the connection, of which there are few
}

// Connect opens the connections. It fails when no server answers; later the connections re-establish themselves for ever.
func Connect(ctx context.Context, cfg Config) (*Bus, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	b := &Bus{
		cfg: cfg, log: cfg.Logger, tracer: newTracer(cfg.TracerProvider), stored: make(chan struct{}, storedReads), said: map[string]said{},
		gaps: map[int]func(){},
	}
	var err error
	if b.meters, err = newMetrics(cfg.Registerer); err != nil {
		return nil, err
	}
	if b.certs, err = certs.NewClient(certs.ClientConfig{CA: cfg.CAFile, Cert: cfg.CertFile, Key: cfg.KeyFile, Logger: cfg.Logger}); err != nil {
		return nil, fmt.Errorf("TLS to NATS: %w", err)
	}
	if b.control, err = b.dial(cfg.Name); err != nil {
		return nil, err
	}
	if b.frames, err = b.dial(cfg.Name + "-frames"); err != nil {
		b.control.Close()
		return nil, err
	}
	b.acks = newAcker(b.control.Conn)
	if b.js, err = jetstream.New(b.control.Conn); err != nil {
		return nil, errors.Join(fmt.Errorf("open JetStream: %w", err), b.Close())
	}
	if err := ctx.Err(); err != nil {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func (b *Bus) dial(name string) (*requester, error) {
	r := &requester{lost: make(chan struct{})}
	conn, err := b.connect(name, nats.DisconnectErrHandler(func(conn *nats.Conn, err error) {
		r.disconnected()
		b.disconnected(conn, err)
	}))
	if err != nil {
		return nil, err
	}
	r.Conn, r.inbox = conn, conn.NewInbox()
	return r, nil
}

// connect opens a connection whose writes leave together. The options of the caller come after all others, and so decide.
func (b *Bus) connect(name string, more ...nats.Option) (*nats.Conn, error) {
	options := []nats.Option{
		nats.Name(name), nats.MaxReconnects(-1), nats.ReconnectWait(200 * time.Millisecond), nats.ReconnectJitter(50*time.Millisecond, 100*time.Millisecond),
		nats.ReconnectBufSize(-1), nats.PingInterval(10 * time.Second), nats.MaxPingsOutstanding(2),
		nats.SyncQueueLen(syncQueue), nats.IgnoreAuthErrorAbort(), nats.CustomInboxPrefix("_INBOX_pipe"), nats.Timeout(connectTimeout),
		nats.DisconnectErrHandler(b.disconnected), nats.ReconnectHandler(b.reconnected), nats.ErrorHandler(b.asyncError),
	}
	if b.cfg.Username != "" {
		options = append(options, nats.UserInfo(b.cfg.Username, b.cfg.Password))
	}
	if b.cfg.CredsFile != "" {
		options = append(options, nats.UserCredentials(b.cfg.CredsFile))
	}
	options = append(options, b.tlsOptions()...)
	options = append(append(options, more...), gather)
	if b.cfg.InProcess != nil {
		conn, err := nats.Connect("", append(options, nats.InProcessServer(gatherPipes{b.cfg.InProcess}))...)
		return conn, wrap("connect to the embedded NATS server", err)
	}
	if b.cfg.Context != "" {
		conn, _, err := natscontext.Connect(b.cfg.Context, options...)
		return conn, wrap("connect with the NATS context "+b.cfg.Context+" (nats context ls lists them)", advised(err))
	}
	conn, err := nats.Connect(b.cfg.URL, options...)
	return conn, wrap("connect to NATS at "+Addresses(b.cfg.URL), advised(err))
}

// Addresses is a list of servers without what may be in front of a host: a token, or a user and a password.
func Addresses(servers string) string {
	list := strings.Split(servers, ",")
	for i, server := range list {
		scheme, rest, found := strings.Cut(server, "://")
		if !found {
			scheme, rest = "nats", server
		}
		list[i] = strings.TrimSpace(scheme) + "://" + rest[strings.LastIndexByte(rest, '@')+1:]
	}
	return strings.Join(list, ",")
}

// advised adds to an error what to do about it.
func advised(err error) error {
	switch {
	case errors.Is(err, nats.ErrNoServers):
		return fmt.Errorf("%w: start weir serve or that server, or name another with --nats or --context", err)
	case errors.Is(err, nats.ErrAuthorization):
		return fmt.Errorf("%w: name credentials with --context or --creds; weir serve wrote its operator's to nats/context/weir.json in its data directory", err)
	}
	return err
}

// tlsOptions follow the files, so that a reconnect uses those of the day.
func (b *Bus) tlsOptions() []nats.Option {
	if b.cfg.CAFile == "" && b.cfg.CertFile == "" {
		return nil // a tls:// URL, or a server that insists, brings TLS with the authorities of the system
	}
	var own nats.TLSCertHandler
	if b.certs.HasCertificate() {
		own = b.certs.Certificate
	}
	return []nats.Option{nats.ClientTLSConfig(own, b.certs.Roots)}
}

// Close flushes what was published and closes the connections.
func (b *Bus) Close() error {
	var errs []error
	if b.acks != nil {
		b.acks.flush()
	}
	for _, conn := range []*requester{b.frames, b.control} {
		if conn == nil {
			continue
		}
		errs = append(errs, flush(conn.Conn))
		conn.Close()
	}
	return wrap("close the bus", errors.Join(errs...))
}

// flush waits until the server has what was published. A connection that is lost, before or meanwhile, has nothing to flush:
// what was acknowledged is safe, and the rest was a hint.
func flush(conn *nats.Conn) error {
	if !conn.IsConnected() {
		return nil
	}
	if err := conn.FlushTimeout(2 * tryTimeout); !errors.Is(err, nats.ErrConnectionClosed) {
		return err
	}
	return nil
}

// Lease is how long an unsettled delivery stays with its owner.
func (b *Bus) Lease() time.Duration { return b.cfg.Lease }

// Ready reports why the bus could not accept a request now: no connection, no JetStream, or no room.
func (b *Bus) Ready(ctx context.Context) error {
	if !b.control.IsConnected() || !b.frames.IsConnected() {
		return schemas.Errorf(schemas.CodeUnavailable, "not connected to NATS")
	}
	if _, err := b.js.AccountInfo(ctx); err != nil {
		return schemas.Errorf(schemas.CodeUnavailable, "JetStream does not answer").WithCause(err)
	}
	return b.checkRoom(ctx)
}

func (b *Bus) disconnected(conn *nats.Conn, err error) {
	if err != nil {
		b.log.Warn("NATS connection lost", "connection", conn.Opts.Name, "error", err)
	}
}

func (b *Bus) reconnected(conn *nats.Conn) {
	b.log.Info("NATS connection restored", "connection", conn.Opts.Name, "server", conn.ConnectedServerName())
	b.gap()
}

// repeatAfter is how often the same error of a connection is logged: one that is refused tries again all the time.
const repeatAfter = 30 * time.Second

// said is the last error of a connection that was logged.
type said struct {
	text string
	at   time.Time
}

// repeats reports whether the error was logged for the connection just before, and notes it when not.
func (b *Bus) repeats(connection string, err error) bool {
	b.saidMu.Lock()
	defer b.saidMu.Unlock()
	last := b.said[connection]
	if last.text == err.Error() && time.Since(last.at) < repeatAfter {
		return true
	}
	b.said[connection] = said{err.Error(), time.Now()}
	return false
}

// asyncError counts slow readers, which is normal (they fall back to the stream), and logs the rest.
func (b *Bus) asyncError(conn *nats.Conn, sub *nats.Subscription, err error) {
	if errors.Is(err, nats.ErrSlowConsumer) {
		b.meters.slowReaders.Inc()
		if sub != nil && sub.Subject == schemas.CachedAll {
			b.gap()
		}
		return
	}
	if b.repeats(conn.Opts.Name, err) {
		return
	}
	b.log.Warn("NATS reported an error", "connection", conn.Opts.Name, "error", err)
}

func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("%s: %w", what, err)
}

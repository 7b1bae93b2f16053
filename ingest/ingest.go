// Package ingest has the doors, HTTP and a NATS service: it turns requests of the OpenAI and Anthropic APIs into requests on the
// bus, and their frames back into answers.
//
// It owns authentication, size and shape, idempotency, disconnects, resume, and the HTTP status of each error code. It
// keeps no state that a second ingest could not rebuild: what a process remembers (who reads which stream) only decides
// when a request that nobody reads is cancelled, and a killed ingest cancels nothing.
//
// What it guarantees: a request that was answered with anything but an error is stored. An answer is whole, or it ends in
// an explicit error; the connection is never just closed after part of an answer. What a reader has seen can be read
// again from any event on, by any ingest.
package ingest

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/internal/telemetry"
)

// DefaultAddr is where the HTTP door listens when nothing else is configured.
const DefaultAddr = "127.0.0.1:8080"

// Config of an [Ingest]. The zero value of every optional field means its default.
type Config struct {
	Bus  *bus.Bus // required
	Addr string   // host:port, port 0 for any; default DefaultAddr

	// TLS of the door, for HTTP/1.1 and HTTP/2; nil for a plain one.
	TLS *tls.Config

	// Keys knows the API keys. While there is none, callers on this machine need none, as tenant default, if Addr is a loopback
	// address. Optional: without it there is no key.
	Keys Keyring
	// Models gives the configured models for GET /v1/models, which also lists those of live workers. Optional.
	Models func() []string
	// MayUse reports whether a tenant may use a model, beside what its keys allow. Optional: it may use all. The router refuses
	// in any case; here it spares the way, and the list of models is right.
	MayUse func(tenant, model string) bool

	// CORSOrigins are the web origins whose pages may call the API, as browsers send them, such as https://app.example.com; a
	// star stands for all, while there is a key. Optional: none.
	CORSOrigins []string

	MaxBodyBytes int64 // of a request; default 10 MiB
	MaxBodies    int64 // bytes of bodies held until they are stored, less 64 KiB of each; beyond, the answer is 503; default 256 MiB
	MaxStreams   int   // requests being answered at once, beyond which the answer is 503; default 10,000

	MaxStreamsPerKey         int // of those, for one key; beyond, the answer is 429; default 2,000
	MaxStreamsPerAddress     int // of those, for one address of a caller, or one /64 of IPv6; default 2,000
	MaxConnectionsPerAddress int // open at once; one more is closed; default 4,000, and twice MaxStreams in all
	MaxStreamsPerConnection  int // of HTTP/2; default 250

	// TrustedProxies may tell the address of a caller in X-Forwarded-For. Optional.
	TrustedProxies []netip.Prefix

	HeaderTimeout time.Duration // for reading a request's header, and for a TLS handshake; default 5 s
	IdleTimeout   time.Duration // of a connection between two requests; default 2 min
	HoldStatus    time.Duration // how long the HTTP status waits for the first event; default 10 s
	Heartbeat     time.Duration // silence after which a stream gets a comment; default 15 s
	WriteTimeout  time.Duration // for one write to a caller; default 30 s
	BodyTimeout   time.Duration // for reading a request's body; default 30 s
	AcceptTimeout time.Duration // for storing a request; default 15 s

	DisconnectGrace time.Duration // between a caller's leaving and the cancel; default 10 s
	DetachedMax     time.Duration // how long a request that goes on does so without a reader; default 5 min
	DrainLimit      time.Duration // how long answers under way may take once Run's context has ended; default 25 s

	Logger         *slog.Logger          // optional
	TracerProvider trace.TracerProvider  // optional
	Registerer     prometheus.Registerer // optional
}

func (c *Config) setDefaults() error {
	if c.Bus == nil {
		return errors.New("ingest: Config.Bus is required")
	}
	if c.Addr == "" {
		c.Addr = DefaultAddr
	}
	if c.Keys == nil {
		none, err := keys.New(keys.Config{})
		if err != nil {
			return err
		}
		c.Keys = none
	}
	if c.Models == nil {
		c.Models = func() []string { return nil }
	}
	if c.Logger == nil {
		c.Logger = telemetry.Discard()
	}
	if c.TracerProvider == nil {
		c.TracerProvider = noop.NewTracerProvider()
	}
	orDefault(&c.MaxBodyBytes, defaultBodyBytes)
	orDefault(&c.MaxBodies, 256<<20)
	orDefault(&c.MaxStreams, 10_000)
	orDefault(&c.MaxStreamsPerKey, 2_000)
	orDefault(&c.MaxStreamsPerAddress, 2_000)
	orDefault(&c.MaxConnectionsPerAddress, 4_000)
	orDefault(&c.MaxStreamsPerConnection, 250)
	orDefault(&c.HeaderTimeout, 5*time.Second)
	orDefault(&c.IdleTimeout, 2*time.Minute)
	orDefault(&c.HoldStatus, 10*time.Second)
	orDefault(&c.Heartbeat, 15*time.Second)
	orDefault(&c.WriteTimeout, 30*time.Second)
	orDefault(&c.BodyTimeout, 30*time.Second)
	orDefault(&c.AcceptTimeout, 15*time.Second)
	orDefault(&c.DisconnectGrace, 10*time.Second)
	orDefault(&c.DetachedMax, 5*time.Minute)
	orDefault(&c.DrainLimit, 25*time.Second)
	return nil
}

func orDefault[T int | int64 | time.Duration](v *T, value T) {
	if *v <= 0 {
		*v = value
	}
}

// Ingest is the doors of a process.
type Ingest struct {
	cfg      Config
	log      *slog.Logger
	tracer   trace.Tracer
	meters   *metrics
	keys     Keyring
	cors     *cors
	local    bool // the listener is for this machine only
	listener net.Listener
	started  time.Time

	readers *readers
	live    *liveModels
	places  *places
	bodies  bodyRoom
	proxies proxies
	buffers buffers

	draining atomic.Bool
	health   healthCheck
}

// New checks the configuration and listens, so that an address in use is an error here. It refuses an address that others
// can reach while there is no key. Run serves; Close is needed only when Run is never called.
func New(cfg Config) (*Ingest, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	local, err := checkAddr(cfg.Addr, cfg.Keys.Open())
	if err != nil {
		return nil, err
	}
	cors, err := newCORS(cfg.CORSOrigins, cfg.Keys.Open)
	if err != nil {
		return nil, err
	}
	meters, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, fmt.Errorf("register the metrics of ingest: %w", err)
	}
	listener, err := net.Listen("tcp", cfg.Addr)
	if err != nil {
		return nil, fmt.Errorf("listen for HTTP: %w; choose another address with --http", err)
	}
	return &Ingest{
		cfg: cfg, log: cfg.Logger.With(telemetry.KeyStage, "ingest"), meters: meters, keys: cfg.Keys, local: local,
		listener: boundConnections(listener, 2*cfg.MaxStreams, cfg.MaxConnectionsPerAddress, cfg.TrustedProxies, meters.refused.Inc),
		cors:     cors,
		tracer:   cfg.TracerProvider.Tracer("github.com/weir-llm/weir/ingest"),
		started:  time.Now(),
		readers:  newReaders(cfg.DisconnectGrace, cfg.DetachedMax),
		live:     newLiveModels(),
		places:   newPlaces(cfg.MaxStreams, cfg.MaxStreamsPerKey, cfg.MaxStreamsPerAddress),
		bodies:   bodyRoom{max: cfg.MaxBodies},
		proxies:  cfg.TrustedProxies,
	}, nil
}

// Addr is the address that the door listens on.
func (s *Ingest) Addr() net.Addr { return s.listener.Addr() }

// Close stops listening. Run does so by itself.
func (s *Ingest) Close() error { return s.listener.Close() }

// Run serves until ctx ends, and then until the answers under way are finished or the drain limit has passed: readiness
// turns off, nothing new is accepted, and an answer that is still not finished at the limit ends with the error
// server_shutdown, while its request goes on and can be read from another ingest.
func (s *Ingest) Run(ctx context.Context) error {
	work, cut := context.WithCancelCause(context.WithoutCancel(ctx))
	defer cut(nil)
	stop, err := s.subscribe(work)
	if err != nil {
		return errors.Join(err, s.listener.Close())
	}
	defer stop()

	door, err := s.serve(work)
	if err != nil {
		return errors.Join(err, s.listener.Close())
	}

	var owned sync.WaitGroup
	defer owned.Wait()
	defer cut(nil)
	owned.Go(func() { s.readers.run(work, s.abandon, s.announce) })

	server := s.server(work)
	served := make(chan error, 1)
	owned.Go(func() { served <- s.serveHTTP(server) })
	select {
	case err := <-served:
		cut(errDrained)
		return errors.Join(fmt.Errorf("serve HTTP: %w", err), server.Close(), door.close())
	case <-ctx.Done():
	}
	return errors.Join(s.drain(work, cut, server, door), door.close())
}

func (s *Ingest) drain(work context.Context, cut context.CancelCauseFunc, server *http.Server, door *service) error {
	s.draining.Store(true)
	limit, cancel := context.WithTimeout(work, s.cfg.DrainLimit)
	defer cancel()
	if shutdown(limit, server, door) == nil {
		return nil
	}
	cut(errDrained)
	last, cancel := context.WithTimeout(context.WithoutCancel(work), cutLimit)
	defer cancel()
	if err := shutdown(last, server, door); err != nil {
		return errors.Join(fmt.Errorf("drain ingest: %w", err), server.Close())
	}
	return nil
}

// shutdown waits for the answers under way in both doors.
func shutdown(ctx context.Context, server *http.Server, door *service) error {
	drained := make(chan error, 1)
	go func() { drained <- door.drain(ctx) }()
	return errors.Join(server.Shutdown(ctx), <-drained)
}

// subscribe listens to what other processes say: which requests they read, and which models workers have.
func (s *Ingest) subscribe(ctx context.Context) (stop func(), err error) {
	stopAttach, err := s.cfg.Bus.OnAttach(s.readers.heard(func(id identity) { s.announce(ctx, id) }))
	if err != nil {
		return nil, fmt.Errorf("listen for readers: %w", err)
	}
	stopBeat, err := s.cfg.Bus.OnBeat(s.live.beat)
	if err != nil {
		stopAttach()
		return nil, fmt.Errorf("listen for workers: %w", err)
	}
	return func() { stopAttach(); stopBeat() }, nil
}

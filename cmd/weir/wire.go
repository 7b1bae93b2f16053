package main

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"errors"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/internal/telemetry"
)

// The stages of a process hang together like this, in the order of construction; they stop in the order of the flow:
//
//	config ─► logger, metrics, traces
//	              │
//	   natsd ─► bus ─► sink      inference      router      ingest       admin
//	   (serve)    │    ▲  │      ▲      │       ▲    │      ▲    │      readyz asks
//	              └────┴──┴──────┴──────┴───────┴────┴──────┴────┘      bus and stages
//
// Every command that runs a stage goes through node, so that there is one wiring.

// node is a process of the pipeline: what its stages share, and what must be closed after them.
type node struct {
	cfg      *Config   // as it was at the start
	live     *live     // as it is now
	follows  *follower // of the file; nil when there is none
	name     string    // unique among live processes
	log      *slog.Logger
	registry *prometheus.Registry
	tracer   trace.TracerProvider
	nats     *natsd.Server // nil when the server is another process
	tls      *tls.Config   // of the HTTP door; nil when it is plain
	bus      *bus.Bus
	keys     *keys.Ring // nil in a process without ingest

	httpAddress string
	checks      []func(context.Context) error // of readiness
	closers     []func() error                // run in reverse order
}

// openNode starts what all stages need. The caller closes the node.
func openNode(ctx context.Context, cfg *Config, command string, log *slog.Logger) (_ *node, err error) {
	n := &node{cfg: cfg, name: instanceName(), log: log, registry: telemetry.NewRegistry()}
	defer func() {
		if err != nil {
			err = errors.Join(err, n.close())
		}
	}()
	if n.tls, err = n.httpTLS(); err != nil {
		return nil, err // before anything listens
	}
	if err := n.openTraces(ctx, command); err != nil {
		return nil, err
	}
	embedded := command == cmdServe && !cfg.externalNATS()
	if embedded {
		if err := n.openServer(); err != nil {
			return nil, err
		}
	}
	if err := n.openBus(ctx, command); err != nil {
		return nil, err
	}
	if err := n.bus.Setup(ctx); err != nil {
		return nil, err
	}
	if embedded {
		// Nobody else works on this store, so what is half done belongs to a process that is gone.
		return n, n.bus.ResetConsumers(ctx)
	}
	return n, nil
}

func (n *node) onClose(f func() error) { n.closers = append(n.closers, f) }

// close closes everything that was opened, the last first.
func (n *node) close() error {
	var errs []error
	for _, f := range slices.Backward(n.closers) {
		errs = append(errs, f())
	}
	n.closers = nil
	return errors.Join(errs...)
}

const traceFlush = 2 * time.Second

func (n *node) openTraces(ctx context.Context, command string) error {
	provider, shutdown, err := telemetry.New(ctx, telemetry.Config{
		ServiceName: "weir-" + command, Version: version(), Endpoint: n.cfg.Telemetry.OTLPEndpoint,
	})
	if err != nil {
		return err
	}
	n.tracer = provider
	n.onClose(func() error {
		ctx, cancel := context.WithTimeout(context.Background(), traceFlush)
		defer cancel()
		if err := shutdown(ctx); err != nil {
			n.log.Warn("the last traces were not exported", telemetry.KeyError, err)
		}
		return nil
	})
	return nil
}

func (n *node) openServer() (err error) {
	t, own := n.cfg.TLS.NATS, n.cfg.TLS.Client
	n.nats, err = natsd.New(natsd.Config{
		Dir: n.cfg.DataDir, Listen: n.cfg.NATS, SyncAlways: n.cfg.Durability == "power", Logger: n.log,
		TLS: natsd.TLS{
			Cert: t.Cert, Key: t.Key, ClientCA: t.ClientCA, ClientAuth: t.ClientAuth,
			CA: own.CA, ClientCert: own.Cert, ClientKey: own.Key,
		},
	})
	if err != nil {
		return err
	}
	n.onClose(func() error { n.nats.Close(); return nil })
	return nil
}

func (n *node) openBus(ctx context.Context, command string) (err error) {
	cfg := busConfig(n.cfg, "weir-"+command)
	if n.nats != nil {
		cfg = n.embedded(cfg)
	}
	cfg.Logger, cfg.TracerProvider, cfg.Registerer = n.log, n.tracer, n.registry
	if n.bus, err = bus.Connect(ctx, cfg); err != nil {
		return err
	}
	n.onClose(n.bus.Close)
	n.checks = append(n.checks, n.bus.Ready)
	return nil
}

// embedded says how to reach the server of this process: over loopback, because the in-process pipe hands over every piece
// from goroutine to goroutine, unbuffered. With TLS it is the pipe, which needs neither trust nor a certificate.
func (n *node) embedded(cfg bus.Config) bus.Config {
	cfg.URL, cfg.Context, cfg.CredsFile, cfg.CAFile, cfg.CertFile, cfg.KeyFile = n.nats.ClientURL(), "", "", "", "", ""
	if n.cfg.TLS.NATS.given() {
		cfg.InProcess = n.nats
	}
	cfg.Username, cfg.Password, cfg.Room = n.nats.Username(), n.nats.Password(), n.nats.Room
	user, password := n.nats.EdgeUser()
	cfg.Edge = &bus.Credentials{Username: user, Password: password}
	return cfg
}

// busConfig says how to reach the server that the configuration names. A password in the URL is taken out of it, because
// an address may be shown in errors and logs.
func busConfig(cfg *Config, name string) bus.Config {
	servers := cfg.NATS
	if !strings.Contains(servers, "://") {
		servers = "nats://" + servers
	}
	servers, user := splitUser(servers)
	password, _ := user.Password()
	return bus.Config{
		Edge: edgeCredentials(cfg.Ingest.Edge),
		URL:  servers, Username: user.Username(), Password: password, Context: contextFile(cfg.Context), CredsFile: cfg.Creds, Name: name,
		CAFile: cfg.TLS.Client.CA, CertFile: cfg.TLS.Client.Cert, KeyFile: cfg.TLS.Client.Key,
		Replicas: cfg.Replicas, Lease: time.Duration(cfg.Lease),
	}
}

func edgeCredentials(e Edge) *bus.Credentials {
	if e == (Edge{}) {
		return nil
	}
	return &bus.Credentials{Username: e.User, Password: e.Password.Reveal(), CredsFile: e.Creds}
}

// contextFile makes the path of a context's file absolute, as the library wants it. A name stays as it is.
func contextFile(name string) string {
	if info, err := os.Stat(name); name == "" || err != nil || info.IsDir() {
		return name
	}
	path, err := filepath.Abs(name)
	if err != nil {
		return name
	}
	return path
}

// ready reports why the process could not take work now.
func (n *node) ready(ctx context.Context) error {
	for _, check := range n.checks {
		if err := check(ctx); err != nil {
			return err
		}
	}
	return nil
}

// instanceName tells processes apart for the people who read it, and makes a restarted one a new one.
func instanceName() string {
	host, _ := os.Hostname()
	host = strings.Map(func(r rune) rune {
		if r == '-' || r == '_' || r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' {
			return r
		}
		return '-'
	}, host)
	return host[:min(len(host), 40)] + "-" + strings.ToLower(rand.Text()[:8])
}

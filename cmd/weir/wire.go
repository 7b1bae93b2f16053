package main

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/echo"
	"github.com/weir-llm/weir/inference/openai"
	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/sink"
	"github.com/weir-llm/weir/sink/sqlite"
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
	cfg      *Config
	name     string // unique among live processes
	log      *slog.Logger
	registry *prometheus.Registry
	tracer   trace.TracerProvider
	nats     *natsd.Server // nil when the server is another process
	bus      *bus.Bus

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
	n.nats, err = natsd.New(natsd.Config{
		Dir: n.cfg.DataDir, Listen: n.cfg.NATS, Open: len(n.cfg.Keys) == 0, SyncAlways: n.cfg.Durability == "power", Logger: n.log,
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
		cfg.URL, cfg.Context, cfg.CredsFile = "", "", ""
		cfg.InProcess, cfg.Username, cfg.Password = n.nats, n.nats.Username(), n.nats.Password()
		cfg.Room = n.nats.Room
	}
	cfg.Logger, cfg.TracerProvider, cfg.Registerer = n.log, n.tracer, n.registry
	if n.bus, err = bus.Connect(ctx, cfg); err != nil {
		return err
	}
	n.onClose(n.bus.Close)
	n.checks = append(n.checks, n.bus.Ready)
	return nil
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
		URL: servers, Username: user.Username(), Password: password, Context: cfg.Context, CredsFile: cfg.Creds, Name: name,
		Replicas: cfg.Replicas, Lease: time.Duration(cfg.Lease),
	}
}

// Shares of the drain limit. What ingest cannot finish goes on in inference, and ends up in the sink.
const (
	ingestShare    = 0.5
	inferenceShare = 0.3
	sinkShare      = 0.1
)

// share is a part of the drain limit; a stage that runs alone has nearly all of it.
func (n *node) share(part float64, alone bool) time.Duration {
	if alone {
		part = 0.9
	}
	return time.Duration(part * float64(n.cfg.DrainTimeout))
}

func (n *node) ingest(alone bool) (part, error) {
	keys := make([]ingest.Key, len(n.cfg.Keys))
	for i, k := range n.cfg.Keys {
		keys[i] = ingest.Key{ID: k.ID, Hash: k.SHA256, Tenant: k.Tenant}
	}
	door, err := ingest.New(ingest.Config{
		Bus: n.bus, Addr: n.cfg.HTTP, Keys: keys, Models: n.cfg.modelNames,
		MaxBodyBytes: n.cfg.Ingest.MaxBodyBytes, MaxStreams: n.cfg.Ingest.MaxStreams,
		DisconnectGrace: time.Duration(n.cfg.Ingest.DisconnectGrace), DetachedMax: time.Duration(n.cfg.Ingest.DetachedMax),
		DrainLimit: n.share(ingestShare, alone), Logger: n.log, TracerProvider: n.tracer, Registerer: n.registry,
	})
	if err != nil {
		return part{}, err
	}
	n.httpAddress = door.Addr().String()
	n.checks = append(n.checks, door.Ready)
	return part{cmdIngest, door.Run}, nil
}

func (n *node) router(bool) (part, error) {
	r, err := router.New(router.Config{Bus: n.bus, Name: n.name, Models: n.cfg.modelNames, Logger: n.log, Registerer: n.registry})
	if err != nil {
		return part{}, err
	}
	return part{cmdRouter, r.Run}, nil
}

func (n *node) inference(alone bool) (part, error) {
	models := make(map[string]inference.Model, len(n.cfg.Models))
	for name, m := range n.cfg.Models {
		served, err := n.model(name, m)
		if err != nil {
			return part{}, err
		}
		models[name] = served
	}
	worker, err := inference.New(inference.Config{
		Bus: n.bus, Name: n.name, Models: models, DrainTimeout: n.share(inferenceShare, alone),
		Logger: n.log, TracerProvider: n.tracer, Registerer: n.registry,
	})
	if err != nil {
		return part{}, err
	}
	return part{cmdInference, worker.Run}, nil
}

func (n *node) model(name string, m Model) (inference.Model, error) {
	served := inference.Model{
		Retry: inference.Retry{MaxTries: m.Retry.MaxTries, Initial: time.Duration(m.Retry.Initial), Max: time.Duration(m.Retry.Max)},
	}
	for _, b := range m.Backends {
		backend, err := newBackend(name, b, m.Timeouts)
		if err != nil {
			return served, fmt.Errorf("model %s: %w", name, err)
		}
		served.Backends = append(served.Backends, inference.Slot{Backend: backend, MaxInFlight: maxInFlight(b)})
	}
	return served, nil
}

const defaultMaxInFlight = 32

func maxInFlight(b Backend) int {
	if b.MaxInFlight == 0 {
		return defaultMaxInFlight
	}
	return b.MaxInFlight
}

func newBackend(model string, b Backend, t Timeouts) (inference.Backend, error) {
	if b.Protocol == "echo" {
		return echo.New(echo.Config{
			Name: b.Name, Models: []string{model}, Deterministic: b.Deterministic,
			Dials: echo.Dials{Tokens: b.Echo.Tokens, IntervalMS: b.Echo.IntervalMS, Vary: b.Echo.Vary},
		})
	}
	return openai.New(openai.Config{
		Name: b.Name, URL: b.URL, APIKey: b.APIKey, Model: b.Model, MaxInFlight: maxInFlight(b),
		Deterministic: b.Deterministic != nil && *b.Deterministic, RequireFinishReason: b.RequireFinishReason,
		Timeouts: inference.Timeouts{
			Connect: time.Duration(t.Connect), FirstToken: time.Duration(t.FirstToken), Idle: time.Duration(t.Idle), Total: time.Duration(t.Total),
		},
	})
}

func (n *node) sink(alone bool) (part, error) {
	if err := os.MkdirAll(filepath.Dir(n.cfg.Sink.Path), 0o700); err != nil {
		return part{}, fmt.Errorf("make the directory of the database: %w; choose another with --data-dir", err)
	}
	store, err := sqlite.Open(context.Background(), sqlite.Config{Path: n.cfg.Sink.Path})
	if err != nil {
		return part{}, err
	}
	n.onClose(store.Close)
	s, err := sink.New(sink.Config{Bus: n.bus, Store: store, DrainTimeout: n.share(sinkShare, alone), Logger: n.log, Registerer: n.registry})
	if err != nil {
		return part{}, err
	}
	n.checks = append(n.checks, s.Ready)
	return part{cmdSink, s.Run}, nil
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

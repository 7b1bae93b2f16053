package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/anthropic"
	"github.com/weir-llm/weir/inference/echo"
	"github.com/weir-llm/weir/inference/openai"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/schemas"
	"github.com/weir-llm/weir/sink"
	"github.com/weir-llm/weir/sink/sqlite"
)

// Shares of the drain limit. What ingest cannot finish goes on in inference, and ends up in the sink. Ingest has the
// most, because what its callers wait for runs on while it drains.
const (
	ingestShare    = 0.6
	inferenceShare = 0.25
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
	door, err := ingest.New(ingest.Config{
		Bus: n.bus, Addr: n.cfg.HTTP, TLS: n.tls, Keys: n.keys, Models: n.live.modelNames, MayUse: n.live.mayUse,
		MaxBodyBytes: n.cfg.Ingest.MaxBodyBytes, MaxBodies: n.cfg.Ingest.MaxBodiesBytes, MaxStreams: n.cfg.Ingest.MaxStreams,
		MaxStreamsPerKey: n.cfg.Ingest.MaxStreamsPerKey, MaxStreamsPerAddress: n.cfg.Ingest.MaxStreamsPerAddress,
		MaxConnectionsPerAddress: n.cfg.Ingest.MaxConnectionsPerAddress, TrustedProxies: n.cfg.Ingest.proxies(),
		Heartbeat:       time.Duration(n.cfg.Ingest.Heartbeat),
		DisconnectGrace: time.Duration(n.cfg.Ingest.DisconnectGrace), DetachedMax: time.Duration(n.cfg.Ingest.DetachedMax),
		CORSOrigins: n.cfg.Ingest.CORS.Origins,
		DrainLimit:  n.share(ingestShare, alone), Logger: n.log, TracerProvider: n.tracer, Registerer: n.registry,
	})
	if err != nil {
		return part{}, err
	}
	n.httpAddress = door.Addr().String()
	if n.nats == nil && n.cfg.Ingest.Edge == (Edge{}) {
		n.log.Info("tenants on NATS are not served: ingest.edge names no user in account EDGE")
	}
	n.checks = append(n.checks, door.Ready)
	return part{cmdIngest, door.Run}, nil
}

func (n *node) router(bool) (part, error) {
	count, err := n.cfg.counting()
	if err != nil {
		return part{}, err
	}
	limits := n.live.limits
	if n.follows == nil { // without a file no tenant can ever have any
		limits = nil
	}
	r, err := router.New(router.Config{
		Bus: n.bus, Name: n.name, Models: n.live.modelNames, Weight: n.live.weight, Cache: n.cfg.caching(n.live.cachePolicy), Limits: limits, Price: n.live.price, Count: count,
		Active: n.cfg.Router.Active, Partitions: n.cfg.Router.Partitions, Logger: n.log, Registerer: n.registry,
	})
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
		Price: func() *schemas.Price { return n.live.price(name) }, Midstream: m.Midstream.policy(),
		Retry: m.Retry.config(), Fallback: m.Fallback, Context: m.Context,
		Balance: inference.Balance{
			Affinity: m.Balance.Affinity, SlowStart: time.Duration(m.Balance.SlowStart), Breaker: m.Breaker.config(), Adaptive: m.adaptive(),
		},
	}
	var err error
	if served.Hedge, err = m.Hedge.config(); err != nil {
		return served, fmt.Errorf("model %s: hedge: %w", name, err)
	}
	for _, b := range m.Backends {
		backend, err := newBackend(name, b, m.Timeouts.config(), n.cfg.Network.addresses())
		if err != nil {
			return served, fmt.Errorf("model %s: %w", name, err)
		}
		if closer, ok := backend.(io.Closer); ok {
			n.onClose(closer.Close)
		}
		served.Backends = append(served.Backends, inference.Slot{Backend: backend, MaxInFlight: maxInFlight(b), Weight: b.Weight})
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

func (t Timeouts) config() inference.Timeouts {
	return inference.Timeouts{
		Connect: time.Duration(t.Connect), FirstToken: time.Duration(t.FirstToken), Idle: time.Duration(t.Idle), Total: time.Duration(t.Total),
	}
}

func newBackend(model string, b Backend, timeouts inference.Timeouts, addresses upstream.Addresses) (inference.Backend, error) {
	if b.Protocol == "echo" {
		return echo.New(echo.Config{
			Name: b.Name, Models: []string{model}, Deterministic: b.Deterministic, Continue: b.continuation(),
			Dials: echo.Dials{Tokens: b.Echo.Tokens, IntervalMS: b.Echo.IntervalMS, Vary: b.Echo.Vary},
		})
	}
	connection := b.connection(addresses)
	if overGRPC(b.Protocol) {
		return newRPCBackend(b, timeouts, addresses)
	}
	if b.Protocol == "ollama" {
		return newOllama(b, timeouts, connection)
	}
	if b.Protocol == "anthropic" {
		return anthropic.New(anthropic.Config{
			Name: b.Name, URL: b.URL, APIKey: b.APIKey, Model: b.Model, MaxInFlight: maxInFlight(b),
			MaxTokens: b.MaxTokens, Version: b.AnthropicVersion, Continue: b.continuation(), SkipMalformed: b.skipsMalformed(), Timeouts: timeouts, Connection: connection,
			Deterministic: b.Deterministic != nil && *b.Deterministic,
		})
	}
	return openai.New(openai.Config{
		Name: b.Name, URL: b.URL, APIKey: b.APIKey, Model: b.Model, MaxInFlight: maxInFlight(b),
		Deterministic: b.Deterministic != nil && *b.Deterministic, Continue: b.continuation(), SkipMalformed: b.skipsMalformed(), RequireFinishReason: b.RequireFinishReason,
		MaxCompletionTokens: b.MaxCompletionTokens, Timeouts: timeouts, Connection: connection,
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

// Package telemetry makes the three things that every stage is handed by configuration: a logger, a tracer provider and
// a metrics registry. Nothing in it is global, and what is not configured costs nothing.
package telemetry

import (
	"context"
	"errors"
	"fmt"
	"net/url"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/exporters/otlp/otlptrace/otlptracehttp"
	"go.opentelemetry.io/otel/sdk/resource"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"
)

// Config says where traces go.
type Config struct {
	ServiceName string // required: service.name of every span, e.g. weir-router
	Version     string // optional: service.version
	Endpoint    string // OTLP over HTTP, e.g. http://127.0.0.1:4318; empty: no traces are made
	// SampleRatio is the share of traces that are begun here and exported; 0 means all. A trace that the caller began
	// follows the caller's decision.
	SampleRatio float64
}

// New gives the tracer provider and the function that exports what is buffered and ends it, which gives up when its
// context does. Without an endpoint the provider makes no spans and runs no goroutines. New does not connect: a
// collector that is down is retried in the background and never holds a request up.
func New(ctx context.Context, cfg Config) (trace.TracerProvider, func(context.Context) error, error) {
	if err := cfg.validate(); err != nil {
		return nil, nil, err
	}
	if cfg.Endpoint == "" {
		return noop.NewTracerProvider(), func(context.Context) error { return nil }, nil
	}
	exporter, err := otlptracehttp.New(ctx, otlptracehttp.WithEndpointURL(cfg.Endpoint))
	if err != nil {
		return nil, nil, fmt.Errorf("open trace exporter to %s: %w", cfg.Endpoint, err)
	}
	provider := sdktrace.NewTracerProvider(
		sdktrace.WithBatcher(exporter),
		sdktrace.WithSampler(sdktrace.ParentBased(sdktrace.TraceIDRatioBased(cfg.SampleRatio))),
		sdktrace.WithResource(resource.NewSchemaless(
			attribute.String("service.name", cfg.ServiceName),
			attribute.String("service.version", cfg.Version),
		)),
	)
	return provider, provider.Shutdown, nil
}

func (cfg *Config) validate() error {
	if cfg.ServiceName == "" {
		return errors.New("telemetry: the service name is empty")
	}
	if cfg.SampleRatio == 0 {
		cfg.SampleRatio = 1
	}
	if cfg.SampleRatio < 0 || cfg.SampleRatio > 1 {
		return fmt.Errorf("telemetry: the sample ratio is %v: use a number from 0 to 1", cfg.SampleRatio)
	}
	if cfg.Endpoint == "" {
		return nil
	}
	u, err := url.Parse(cfg.Endpoint)
	if err != nil || u.Host == "" || u.Scheme != "http" && u.Scheme != "https" {
		return fmt.Errorf("telemetry: the OTLP endpoint %q is not a URL such as http://127.0.0.1:4318", cfg.Endpoint)
	}
	// The exporter posts to exactly the given path; a bare host means the collector's own.
	if u.Path == "" || u.Path == "/" {
		cfg.Endpoint = u.JoinPath("/v1/traces").String()
	}
	return nil
}

package bus

import (
	"context"
	"strings"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/weir-llm/weir/schemas"
)

// carrier reads keys without regard to case and writes them in lower case, as W3C Trace Context wants; the carrier of
// net/http would write Traceparent, which a NATS client does not find.
type carrier schemas.Header

func (c carrier) Get(key string) string {
	for name, values := range c {
		if len(name) == len(key) && len(values) > 0 && strings.EqualFold(name, key) {
			return values[0]
		}
	}
	return ""
}

func (c carrier) Set(key, value string) { c[strings.ToLower(key)] = []string{value} }

func (c carrier) Keys() []string {
	keys := make([]string, 0, len(c))
	for key := range c {
		keys = append(keys, key)
	}
	return keys
}

// newTracer is nil for the provider that makes no traces, so that nothing is put together for it.
func newTracer(provider trace.TracerProvider) trace.Tracer {
	if _, off := provider.(noop.TracerProvider); off || provider == nil {
		return nil
	}
	return provider.Tracer("github.com/weir-llm/weir/internal/bus")
}

var propagator propagation.TraceContext

// inject writes the trace context of ctx into the headers of a message.
func inject(ctx context.Context, h schemas.Header) {
	if trace.SpanContextFromContext(ctx).IsValid() {
		propagator.Inject(ctx, carrier(h))
	}
}

// Extract returns ctx with the trace context that a message carries.
func Extract(ctx context.Context, h schemas.Header) context.Context {
	return propagator.Extract(ctx, carrier(h))
}

// TraceParent is the traceparent of ctx, or empty.
func TraceParent(ctx context.Context) string {
	if !trace.SpanContextFromContext(ctx).IsValid() {
		return ""
	}
	h := carrier{}
	propagator.Inject(ctx, h)
	return h.Get(schemas.HeaderTraceParent)
}

func attributes(destination, operation string, id schemas.Identity) []attribute.KeyValue {
	return []attribute.KeyValue{
		attribute.String("messaging.system", "nats"),
		attribute.String("messaging.destination.name", destination),
		attribute.String("messaging.operation.type", operation),
		attribute.String("messaging.message.id", id.String()),
	}
}

// Process opens the span of handling a delivery as a child of the span that sent it.
func (b *Bus) Process(ctx context.Context, d *Delivery, destination string, id schemas.Identity) (context.Context, trace.Span) {
	return b.start(Extract(ctx, d.Header), trace.SpanKindConsumer, "process", destination, id)
}

// start opens a span. What only a recording span shows is put together only for one.
func (b *Bus) start(ctx context.Context, kind trace.SpanKind, operation, destination string, id schemas.Identity) (context.Context, trace.Span) {
	if b.tracer == nil {
		return ctx, noop.Span{} // what came in ctx is passed on all the same
	}
	ctx, span := b.tracer.Start(ctx, operation+" "+destination, trace.WithSpanKind(kind))
	if span.IsRecording() {
		span.SetAttributes(attributes(destination, operation, id)...)
	}
	return ctx, span
}

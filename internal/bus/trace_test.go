package bus_test

import (
	"context"
	"testing"

	sdk "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

const traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"

// One trace leads from what the caller sent to every message of its request.
func TestOneTraceFromCallerToResult(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	provider := sdk.NewTracerProvider(sdk.WithSpanProcessor(recorder))
	b := bustest.Connect(t, bustest.Server(t), bus.Config{TracerProvider: provider})
	for _, key := range []string{"traceparent", "Traceparent"} { // NATS is case-sensitive, HTTP is not
		if got := bus.TraceParent(bus.Extract(t.Context(), schemas.Header{key: {traceparent}})); got != traceparent {
			t.Errorf("%s: %q", key, got)
		}
	}
	ctx := bus.Extract(t.Context(), schemas.Header{schemas.HeaderTraceParent: {traceparent}})

	if _, err := b.Accept(ctx, request(alice.Request)); err != nil {
		t.Fatal(err)
	}
	d := takeRequest(t, b, "acme")
	process, span := b.Process(t.Context(), d, "llm.requests.{tenant}.{model}", alice)
	if err := b.EnsureWorkConsumer(t.Context(), "echo"); err != nil {
		t.Fatal(err)
	}
	if _, err := b.Dispatch(process, work(alice.Request, []byte("{}"))); err != nil {
		t.Fatal(err)
	}
	span.End()
	puller := b.Work("echo")
	t.Cleanup(puller.Close)
	run, span := b.Process(t.Context(), take(t, puller, 1, atOnce)[0], "llm.work.{model}", alice)
	if err := b.PutResult(run, result(alice.Request, nil)); err != nil {
		t.Fatal(err)
	}
	span.End()
	sink := b.Results()
	t.Cleanup(sink.Close)
	_, span = b.Process(t.Context(), take(t, sink, 1, atOnce)[0], "llm.results.{tenant}.{request}", alice)
	span.End()

	parent := trace.SpanContextFromContext(ctx)
	byID := map[trace.SpanID]sdk.ReadOnlySpan{}
	for _, s := range recorder.Ended() {
		byID[s.SpanContext().SpanID()] = s
	}
	want := []string{
		"process llm.results.{tenant}.{request}", "send llm.results.{tenant}.{request}", "process llm.work.{model}", "send llm.work.{model}",
		"process llm.requests.{tenant}.{model}", "send llm.requests.{tenant}.{model}",
	}
	// The process span of the sink was the last to end; its ancestors are the whole way back.
	at := recorder.Ended()[len(recorder.Ended())-1].SpanContext()
	for _, name := range want {
		s := byID[at.SpanID()]
		if s == nil || s.Name() != name || s.SpanContext().TraceID() != parent.TraceID() || len(s.Attributes()) == 0 {
			t.Fatalf("span %v where %q should be", s, name)
		}
		at = s.Parent()
	}
	if at.SpanID() != parent.SpanID() {
		t.Errorf("the first span has the parent %s, want the caller's %s", at.SpanID(), parent.SpanID())
	}
}

// Without a tracer of our own the caller's trace goes through unchanged.
func TestTraceGoesThroughWithoutATracer(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	accept := func(ctx context.Context, id string, h schemas.Header) {
		r := request(id)
		r.Header = h
		if _, err := b.Accept(ctx, r); err != nil {
			t.Fatal(err)
		}
		d := takeRequest(t, b, "acme")
		if got := d.Header[schemas.HeaderTraceParent]; len(got) != 1 || got[0] != traceparent {
			t.Errorf("%s: traceparent %q", id, got)
		}
		d.Settle(bus.Ack)
	}
	h := schemas.Header{schemas.HeaderTraceParent: {traceparent}}
	accept(bus.Extract(t.Context(), h), "by-context", nil)
	accept(t.Context(), "by-header", h)
}

package telemetry

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestWithoutEndpointNothingRuns(t *testing.T) {
	before := runtime.NumGoroutine()
	provider, shutdown, err := New(t.Context(), Config{ServiceName: "weir-test"})
	if err != nil {
		t.Fatal(err)
	}
	_, span := provider.Tracer("test").Start(t.Context(), "accept")
	if span.IsRecording() || span.SpanContext().IsValid() {
		t.Error("a span is made although there is nowhere to send it")
	}
	span.End()
	if got := runtime.NumGoroutine(); got > before {
		t.Errorf("goroutines: %d, want the %d of before", got, before)
	}
	if err := shutdown(t.Context()); err != nil {
		t.Errorf("shutdown: %v", err)
	}
}

func TestShutdownExportsWhatIsBuffered(t *testing.T) {
	t.Parallel()
	posts := make(chan string, 4)
	collector := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		posts <- r.URL.Path + " " + string(body)
	}))
	defer collector.Close()

	provider, shutdown, err := New(t.Context(), Config{ServiceName: "weir-test", Endpoint: collector.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, span := provider.Tracer("test").Start(t.Context(), "accept")
	span.End()
	if err := shutdown(t.Context()); err != nil {
		t.Fatalf("shutdown: %v", err)
	}
	got := <-posts
	if !strings.HasPrefix(got, "/v1/traces ") || !strings.Contains(got, "weir-test") || !strings.Contains(got, "accept") {
		t.Errorf("the collector got %q, want the span accept of weir-test at /v1/traces", got)
	}
}

func TestShutdownGivesUpWithItsContext(t *testing.T) {
	t.Parallel()
	release := make(chan struct{})
	collector := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { <-release }))
	defer collector.Close()
	defer close(release)

	provider, shutdown, err := New(t.Context(), Config{ServiceName: "weir-test", Endpoint: collector.URL})
	if err != nil {
		t.Fatal(err)
	}
	_, span := provider.Tracer("test").Start(t.Context(), "accept")
	span.End()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if err := shutdown(ctx); err == nil {
		t.Error("shutdown succeeded although the collector hangs")
	}
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	for name, cfg := range map[string]Config{
		"no service name": {},
		"no scheme":       {ServiceName: "weir-test", Endpoint: "127.0.0.1:4318"},
		"other scheme":    {ServiceName: "weir-test", Endpoint: "grpc://127.0.0.1:4317"},
		"sample ratio":    {ServiceName: "weir-test", SampleRatio: 2},
	} {
		if _, _, err := New(t.Context(), cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func TestLogger(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	log, err := NewLogger(&out, "json", "warn")
	if err != nil {
		t.Fatal(err)
	}
	log.Info("below the level")
	log.Warn("store is failing", KeyRequest, "req_1")
	if got := out.String(); strings.Contains(got, "below") || !strings.Contains(got, `"request_id":"req_1"`) {
		t.Errorf("log holds %s", got)
	}
	for _, bad := range [][2]string{{"xml", "info"}, {"text", "loud"}, {"", ""}} {
		if _, err := NewLogger(io.Discard, bad[0], bad[1]); err == nil {
			t.Errorf("format %q, level %q: no error", bad[0], bad[1])
		}
	}
}

func TestRegistryServesRuntimeMetrics(t *testing.T) {
	t.Parallel()
	w := httptest.NewRecorder()
	MetricsHandler(NewRegistry()).ServeHTTP(w, httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/metrics", nil))
	if got := w.Body.String(); !strings.Contains(got, "go_goroutines") || !strings.Contains(got, "process_resident_memory_bytes") {
		t.Errorf("metrics lack those of the runtime or the process:\n%s", got)
	}
}

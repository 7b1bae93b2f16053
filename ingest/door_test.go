package ingest_test

import (
	"bytes"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/tidwall/gjson"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/schemas"
)

func withKey(t *testing.T) func(*ingest.Config) {
	acme := ring(t, keys.Configured{ID: "k1", SHA256: hashOf("secret"), Tenant: "acme"}, keys.Configured{ID: "k2", SHA256: hashOf("rotated"), Tenant: "acme"})
	return func(c *ingest.Config) { c.Keys = acme }
}

func TestAuthentication(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(1), withKey(t))
	for _, header := range [][]string{
		nil, {"Authorization", ""}, {"Authorization", "Bearer"}, {"Authorization", "Bearer "}, {"Authorization", "Bearer secre"},
		{"Authorization", "Bearer secret2"}, {"Authorization", "Basic secret"}, {"Authorization", "secret"}, {"Authorization", "Bearer  secret"},
		{"Authorization", "Bearer " + hashOf("secret")},
	} {
		for _, path := range []string{"/v1/models", "/v1/streams/x", "/v1/streams/x/result"} {
			got := w.ask("GET", path, "", header...).wants(t, 401, "invalid_api_key", `"type":"invalid_request_error"`)
			if got.header.Get("WWW-Authenticate") != "Bearer" || got.id() == "" {
				t.Errorf("headers %v", got.header)
			}
		}
		w.chat(streaming, header...).wants(t, 401)
	}
	w.chat(streaming, "Authorization", "Bearer secret").wants(t, 200)
	w.chat(streaming, "Authorization", "bearer rotated").wants(t, 200)
	// With keys the name of the host says nothing.
	w.ask("GET", "/v1/models", "", "Authorization", "Bearer secret", "Host", "llm.example.com").wants(t, 200)
	w.ask("GET", "/livez", "").wants(t, 200)
}

func TestNewRefuses(t *testing.T) {
	t.Parallel()
	w := setup(t, nil)
	for name, c := range map[string]struct {
		cfg  ingest.Config
		want string
	}{
		"no bus":          {ingest.Config{}, "required"},
		"open to all":     {ingest.Config{Bus: w.bus, Addr: ":0"}, "without API keys"},
		"open to the net": {ingest.Config{Bus: w.bus, Addr: "0.0.0.0:0"}, "weir keys create"},
		"open on v6":      {ingest.Config{Bus: w.bus, Addr: "[::]:0"}, "without API keys"},
		"no address":      {ingest.Config{Bus: w.bus, Addr: "nonsense"}, "host:port"},
	} {
		c.cfg.Addr = orAny(c.cfg.Addr)
		if _, err := ingest.New(c.cfg); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
	door, err := ingest.New(ingest.Config{Bus: w.bus, Addr: "0.0.0.0:0", Keys: ring(t, keys.Configured{ID: "a", SHA256: hashOf("secret"), Tenant: "t"})})
	if err != nil {
		t.Fatal(err)
	}
	_ = door.Close()
}

func orAny(addr string) string {
	if addr == "" {
		return "127.0.0.1:0"
	}
	return addr
}

func TestForeignPagesAreRefusedWhileOpen(t *testing.T) {
	t.Parallel()
	w := setup(t, tokens(1))
	for _, host := range []string{"evil.example", "evil.example:8080", "localhost.evil.example", "10.0.0.1", "127.0.0.1.nip.io", "[::2]:80"} {
		w.ask("GET", "/v1/models", "", "Host", host).wants(t, 400, "Host")
	}
	for _, host := range []string{"localhost", "localhost:8080", "127.0.0.1", "127.9.9.9:1", "[::1]", "[::1]:8080"} {
		w.ask("GET", "/v1/models", "", "Host", host).wants(t, 200)
	}
	w.chat(streaming, "Sec-Fetch-Site", "cross-site", "Content-Type", "text/plain").wants(t, 400, "origin")
	w.chat(streaming, "Origin", "https://evil.example").wants(t, 400, "origin")
	w.chat(streaming, "Origin", w.url).wants(t, 200)
}

func TestUnknownRoutes(t *testing.T) {
	t.Parallel()
	w := setup(t, nil)
	for _, path := range []string{"/", "/chat/completions", "/v1", "/v1/nothing", "/v1/models/", "/v1/streams/", "/v1/streams/a/b"} {
		w.ask("GET", path, "").wants(t, 404, `"code":"not_found"`, "POST /v1/chat/completions")
	}
	for _, c := range [][3]string{
		{"GET", "/v1/chat/completions", "POST"}, {"POST", "/v1/models", "GET"}, {"PUT", "/v1/streams/a", "GET, DELETE"},
		{"GET", "/v1/streams/a/cancel", "POST"}, {"DELETE", "/v1/streams/a/result", "GET"},
	} {
		got := w.ask(c[0], c[1], "").wants(t, 405, "use "+c[2])
		if got.header.Get("Allow") != c[2] {
			t.Errorf("%v: Allow %q", c, got.header.Get("Allow"))
		}
	}
	if got := w.ask("HEAD", "/v1/streams/a", ""); got.status != 405 {
		t.Errorf("HEAD: %d", got.status)
	}
}

func TestModels(t *testing.T) {
	t.Parallel()
	w := setup(t, nil, func(c *ingest.Config) { c.Models = func() []string { return []string{"gpt-4.1", "echo"} } })
	names := func() (names []string) {
		got := w.ask("GET", "/v1/models", "").wants(t, 200, `"object":"list"`)
		for _, m := range gjson.Get(got.body, "data").Array() {
			if m.Get("object").Str != "model" || m.Get("created").Int() == 0 || m.Get("owned_by").Str == "" {
				t.Errorf("model %s", m.Raw)
			}
			names = append(names, m.Get("id").Str)
		}
		return names
	}
	if diff := cmp.Diff([]string{"echo", "gpt-4.1"}, names()); diff != "" {
		t.Error(diff)
	}
	beat := &schemas.Heartbeat{V: 1, Worker: "w1", Models: []schemas.ModelBeat{{Model: "echo", Slots: 1}, {Model: "org=2Flive", Slots: 1}}}
	eventually(t, "the live model", func() bool {
		if err := w.bus.Beat(beat); err != nil {
			t.Fatal(err)
		}
		return cmp.Equal([]string{"echo", "gpt-4.1", "org/live"}, names())
	})
	eventually(t, "the worker forgotten", func() bool { return len(names()) == 2 })
}

// lockedBuffer is a log that handlers write at once.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func TestNothingConfidentialIsLogged(t *testing.T) {
	t.Parallel()
	var log lockedBuffer
	registry := prometheus.NewRegistry()
	w := setup(t, tokens(1), withKey(t), func(c *ingest.Config) {
		c.Logger = slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		c.Registerer = registry
	})
	body := strings.Replace(streaming, "hi", "canary-prompt", 1)
	id := w.chat(body, "Authorization", "Bearer secret", "X-Request-Id", "theirs").wants(t, 200).id()
	w.chat(body[:len(body)-1], "Authorization", "Bearer secret").wants(t, 400)
	w.chat(body, "Authorization", "Bearer canary-key").wants(t, 401)
	text := log.String()
	for _, secret := range []string{"canary", "secret", `"w0"`} {
		if strings.Contains(text, secret) {
			t.Errorf("the log has %q:\n%s", secret, text)
		}
	}
	for _, want := range []string{"request_id=" + id, "client_request_id=theirs", "tenant=acme"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q:\n%s", want, text)
		}
	}
	families, err := registry.Gather()
	if err != nil || len(families) < 3 {
		t.Errorf("%d metric families, %v", len(families), err)
	}
}

func TestOneTraceFromTheCaller(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewInMemoryExporter()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSyncer(spans))
	parents := make(chan string, 1)
	w := setup(t, func(j *job) {
		parents <- j.header[schemas.HeaderTraceParent][0]
		tokens(1)(j)
	}, func(c *ingest.Config) { c.TracerProvider = provider })
	w.chat(streaming, "traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01").wants(t, 200)
	eventually(t, "the span", func() bool { return len(spans.GetSpans()) == 1 })
	span := spans.GetSpans()[0]
	if span.Name != "POST /v1/chat/completions" || span.Parent.SpanID().String() != "b7ad6b7169203331" {
		t.Errorf("span %q below %s", span.Name, span.Parent.SpanID())
	}
	if parent := <-parents; !strings.Contains(parent, "0af7651916cd43dd8448eb211c80319c-"+span.SpanContext.SpanID().String()) {
		t.Errorf("the request carries %s", parent)
	}
}

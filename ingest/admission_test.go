package ingest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/schemas"
)

// admission is all that the door does before it stores a request: the bounds of the head, the key, the place, the body and
// its validation, and the headers that travel on. What it costs is to be below 50 µs for a body of 2 KB.
func admission(tb testing.TB) (admit func() int) {
	tb.Helper()
	meters, err := newMetrics(nil)
	if err != nil {
		tb.Fatal(err)
	}
	sum := sha256.Sum256([]byte("sk-weir-0123456789abcdef0123456789abcdef"))
	keys, err := newKeyring([]Key{{ID: "k", Hash: hex.EncodeToString(sum[:]), Tenant: "acme"}})
	if err != nil {
		tb.Fatal(err)
	}
	cfg := Config{MaxBodyBytes: defaultBodyBytes}
	s := &Ingest{cfg: cfg, meters: meters, log: telemetry.Discard(), keys: keys, places: newPlaces(10, 10, 10),
		tracer: noop.NewTracerProvider().Tracer("")}
	door := s.bodiesInTime(s.door("/v1/chat/completions", func(c *call) error {
		release, err := s.take(c)
		if err != nil {
			return err
		}
		defer release()
		body, err := s.readBody(c)
		if err != nil {
			return err
		}
		parsed, err := openai.ParseRequest(schemas.OpChat, body, openai.Policy{})
		if err != nil {
			return err
		}
		if _, err := c.newRequest(schemas.OpChat, parsed); err != nil {
			return err
		}
		c.status = http.StatusOK
		c.w.WriteHeader(http.StatusOK)
		return nil
	}))
	body := []byte(`{"model":"gpt-4.1","messages":[{"role":"system","content":"` + strings.Repeat("word ", 200) +
		`"},{"role":"user","content":"` + strings.Repeat("word ", 190) + `"}],"stream":true,"temperature":0}`)
	header := http.Header{
		"Authorization": {"Bearer sk-weir-0123456789abcdef0123456789abcdef"}, "Content-Type": {"application/json"}, "Accept": {"application/json"},
		"User-Agent": {"OpenAI/JS 5.0.0"}, "X-Stainless-Lang": {"js"}, "X-Stainless-Package-Version": {"5.0.0"}, "X-Stainless-Os": {"Linux"},
		"X-Stainless-Arch": {"x64"}, "X-Stainless-Runtime": {"node"}, "X-Stainless-Runtime-Version": {"v20.0.0"}, "X-Stainless-Retry-Count": {"0"},
		"Accept-Encoding": {"gzip, deflate"}, "Llm-Priority": {"interactive"},
	}
	return func() int {
		r := httptest.NewRequest(http.MethodPost, "/v1/chat/completions", bytes.NewReader(body))
		r.Header, r.RemoteAddr = header, "192.0.2.1:1234"
		w := httptest.NewRecorder()
		door.ServeHTTP(w, r)
		return w.Code
	}
}

func TestAdmission(t *testing.T) {
	t.Parallel()
	if status := admission(t)(); status != http.StatusOK {
		t.Fatalf("status %d", status)
	}
}

func BenchmarkAdmission(b *testing.B) {
	admit := admission(b)
	b.ReportAllocs()
	for b.Loop() {
		if status := admit(); status != http.StatusOK {
			b.Fatalf("status %d", status)
		}
	}
}

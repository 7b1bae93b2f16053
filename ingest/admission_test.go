package ingest

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"testing"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// BenchmarkAdmission is all that the door does before it stores a request: the bounds of the head, the key, the place, the
// body and its validation, and the headers that travel on, with what a call itself costs. For a body of 2 KB it is to be
// below 50 µs of CPU.
func BenchmarkAdmission(b *testing.B) {
	s, token := guarded(b, 1000)
	meters, err := newMetrics(nil)
	if err != nil {
		b.Fatal(err)
	}
	s.cfg, s.meters, s.places, s.tracer = Config{MaxBodyBytes: defaultBodyBytes}, meters, newPlaces(10, 10, 10), noop.NewTracerProvider().Tracer("")
	door := s.bodiesInTime(s.door("/v1/chat/completions", openAI, func(c *call) error {
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
		if _, err := newRequest(c.id, asked{op: schemas.OpChat, header: passed(c.r.Header, passedOn), allow: c.allowModel}, parsed); err != nil {
			return err
		}
		c.status = http.StatusOK
		c.w.WriteHeader(http.StatusOK)
		return nil
	}))
	body := bodyOf(2 << 10)
	header := http.Header{
		"Authorization": {"Bearer " + token}, "Content-Type": {"application/json"}, "Accept": {"application/json"},
		"User-Agent": {"OpenAI/JS 5.0.0"}, "X-Stainless-Lang": {"js"}, "X-Stainless-Package-Version": {"5.0.0"}, "X-Stainless-Os": {"Linux"},
		"X-Stainless-Arch": {"x64"}, "X-Stainless-Runtime": {"node"}, "X-Stainless-Runtime-Version": {"v20.0.0"}, "X-Stainless-Retry-Count": {"0"},
		"Accept-Encoding": {"gzip, deflate"}, "Llm-Priority": {"interactive"},
	}
	b.ReportAllocs()
	for b.Loop() {
		r := httptest.NewRequest(http.MethodPost, "/v1/chat/completions", bytes.NewReader(body))
		r.Header, r.RemoteAddr = header, "192.0.2.1:1234"
		w := httptest.NewRecorder()
		if door.ServeHTTP(w, r); w.Code != http.StatusOK {
			b.Fatalf("status %d", w.Code)
		}
	}
}

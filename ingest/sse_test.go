package ingest

import (
	"net/http"
	"testing"
	"time"

	"go.opentelemetry.io/otel/trace/noop"

	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/schemas"
)

// sink is a response that goes nowhere.
type sink struct {
	header http.Header
	writes int
}

func (s *sink) Header() http.Header              { return s.header }
func (s *sink) WriteHeader(int)                  {}
func (s *sink) Write(p []byte) (int, error)      { s.writes++; return len(p), nil }
func (s *sink) FlushError() error                { return nil }
func (s *sink) SetWriteDeadline(time.Time) error { return nil }

func newSink(tb testing.TB) (*sink, *eventStream) {
	tb.Helper()
	meters, err := newMetrics(nil)
	if err != nil {
		tb.Fatal(err)
	}
	s := &Ingest{cfg: Config{HoldStatus: time.Hour, Heartbeat: time.Hour, WriteTimeout: time.Hour}, meters: meters, log: telemetry.Discard(),
		tracer: noop.NewTracerProvider().Tracer("")}
	w := &sink{header: http.Header{}}
	r, err := http.NewRequestWithContext(tb.Context(), http.MethodPost, "/", http.NoBody)
	if err != nil {
		tb.Fatal(err)
	}
	e := newEventStream(s.newCall(w, r, "/", openAI), func() {})
	tb.Cleanup(e.close)
	return w, e
}

var frameOfThree = &schemas.Frame{Kind: schemas.KindDelta, Count: 3, Data: []byte(`{"choices":[1]}` + "\n" + `{"choices":[2]}` + "\n" + `{"choices":[3]}`)}

func TestFrameIsOneWriteWithoutAllocation(t *testing.T) {
	w, e := newSink(t)
	write := func() {
		if err := e.events(frameOfThree); err != nil {
			t.Fatal(err)
		}
	}
	write()
	if allocations := testing.AllocsPerRun(100, write); allocations != 0 {
		t.Errorf("%v allocations per frame", allocations)
	}
	if w.writes != 102 {
		t.Errorf("%d writes for 102 frames", w.writes)
	}
}

func BenchmarkEvents(b *testing.B) {
	_, e := newSink(b)
	b.ReportAllocs()
	for b.Loop() {
		if err := e.events(frameOfThree); err != nil {
			b.Fatal(err)
		}
	}
}

package ingest

import (
	"bytes"
	"errors"
	"fmt"
	"math"
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
	frames := 0
	write := func() {
		frames++
		if err := e.events(frameOfThree); err != nil {
			t.Fatal(err)
		}
	}
	write()
	if allocations := allocations(write, 0); allocations != 0 {
		t.Errorf("%v allocations per frame", allocations)
	}
	if w.writes != frames {
		t.Errorf("%d writes for %d frames", w.writes, frames)
	}
}

// allocations is how often f allocates, as far as it is more than enough: everything else that runs in the process counts too,
// such as what an earlier test has left to end by itself, so that more is measured again.
func allocations(f func(), enough float64) (least float64) {
	least = math.Inf(1)
	for range 20 {
		if least = min(least, testing.AllocsPerRun(100, f)); least <= enough {
			break
		}
	}
	return least
}

// deltas gives the path of a delta frame of so many events, from the message of the bus to the socket.
func deltas(tb testing.TB, events int) (pass func()) {
	tb.Helper()
	_, e := newSink(tb)
	line := []byte(`{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":" token"},"finish_reason":null}]}` + "\n")
	sent := &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Writer: "w1", Count: events, Data: bytes.TrimSuffix(bytes.Repeat(line, events), []byte("\n"))}
	header := sent.Encode()
	return func() {
		_, err := e.copy(func(yield func(*schemas.Frame, error) bool) { yield(schemas.DecodeFrame(header, sent.Data)) }, streaming{})
		if !errors.Is(err, errEnded) {
			tb.Fatal(err)
		}
	}
}

// A frame may cost what it does; what is in it costs nothing more.
func TestNoAllocationPerToken(t *testing.T) {
	one, many := deltas(t, 1), deltas(t, 64)
	few := allocations(one, 0)
	lots := allocations(many, few)
	if lots > few {
		t.Errorf("%v allocations for a frame of 64 tokens, %v for a frame of one", lots, few)
	}
}

func BenchmarkDelta(b *testing.B) {
	for _, events := range []int{1, 8, 64} {
		b.Run(fmt.Sprintf("tokens=%d", events), func(b *testing.B) {
			pass := deltas(b, events)
			b.ReportAllocs()
			for b.Loop() {
				pass()
			}
		})
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

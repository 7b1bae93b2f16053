package sink_test

import (
	"bytes"
	"context"
	"crypto/rand"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
	"github.com/weir-llm/weir/sink"
	"github.com/weir-llm/weir/sink/sqlite"
	"github.com/weir-llm/weir/sink/storetest"
)

func newStore(t *testing.T) *sqlite.Store {
	t.Helper()
	s, err := sqlite.Open(t.Context(), sqlite.Config{Path: filepath.Join(t.TempDir(), "results.db")})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// faulty is a store whose Put asks fault first.
type faulty struct {
	sink.Store
	fault func(ctx context.Context, results []*schemas.Result) error
}

func (f *faulty) Put(ctx context.Context, results []*schemas.Result) error {
	if err := f.fault(ctx, results); err != nil {
		return err
	}
	return f.Store.Put(ctx, results)
}

func newSink(t *testing.T, cfg sink.Config) *sink.Sink {
	t.Helper()
	if cfg.RetryWait == 0 {
		cfg.RetryWait, cfg.RetryMax = time.Millisecond, 10*time.Millisecond
	}
	s, err := sink.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// run runs the stage until stop is called, which waits for the drain; the end of the test stops it too.
func run(t *testing.T, s *sink.Sink) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := s.Run(ctx); err != nil {
			t.Errorf("run: %v", err)
		}
	})
	stop = func() { cancel(); wg.Wait() }
	t.Cleanup(stop)
	return stop
}

// drain runs the stage for what is on the bus now.
func drain(t *testing.T, cfg sink.Config) {
	t.Helper()
	run(t, newSink(t, cfg))()
}

func publish(t *testing.T, b *bus.Bus, results ...*schemas.Result) {
	t.Helper()
	for _, r := range results {
		if err := b.PutResult(t.Context(), r); err != nil {
			t.Fatal(err)
		}
	}
}

func records(n int) (results []*schemas.Result) {
	for i := range n {
		results = append(results, storetest.Record("acme", fmt.Sprintf("r%d", i), i))
	}
	return results
}

func stored(t *testing.T, s sink.Store) (results []*schemas.Result) {
	t.Helper()
	for r, err := range s.List(t.Context(), sink.Query{Payload: true}) {
		if err != nil {
			t.Fatal(err)
		}
		results = append(results, r)
	}
	return results
}

// eventually polls until ok or a minute has passed.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.After(time.Minute)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-deadline:
			t.Fatalf("not within a minute: %s", what)
		case <-tick.C:
		}
	}
}

func TestKeepsWhatLandsAndAcknowledgesIt(t *testing.T) {
	t.Parallel()
	b, store := bustest.New(t), newStore(t)
	stop := run(t, newSink(t, sink.Config{Bus: b, Store: store}))
	publish(t, b, records(20)...)
	eventually(t, "20 results are stored", func() bool { return len(stored(t, store)) == 20 })
	stop()

	other := newStore(t)
	drain(t, sink.Config{Bus: b, Store: other})
	if got := stored(t, other); len(got) != 0 {
		t.Errorf("%d results were delivered again after their commit", len(got))
	}
}

func TestDrainKeepsWhatIsOnTheBus(t *testing.T) {
	t.Parallel()
	b, store := bustest.New(t), newStore(t)
	publish(t, b, records(50)...)
	drain(t, sink.Config{Bus: b, Store: store, BatchSize: 7})
	if got := stored(t, store); len(got) != 50 {
		t.Errorf("after the drain %d of 50 results are stored", len(got))
	}
}

// A server that does not answer for a while, as one of a cluster that elects a leader, has results all the same.
func TestDrainOutwaitsASilentServer(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	publish(t, bustest.Connect(t, server, bus.Config{}), records(5)...)
	proxy := bustest.NewProxy(t, server.ClientURL())
	far, store := bustest.Connect(t, server, bus.Config{URL: proxy.URL()}), newStore(t)
	proxy.Set(bustest.ToClient, bustest.Hold)
	time.AfterFunc(6*time.Second, func() { proxy.Set(bustest.ToClient, bustest.Pass) })
	drain(t, sink.Config{Bus: far, Store: store, DrainTimeout: time.Minute})
	if got := stored(t, store); len(got) != 5 {
		t.Errorf("after the drain %d of 5 results are stored", len(got))
	}
}

func TestNothingIsAcknowledgedBeforeTheCommit(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	publish(t, b, records(10)...)
	full := &faulty{Store: newStore(t), fault: func(context.Context, []*schemas.Result) error { return errors.New("disk full") }}
	drain(t, sink.Config{Bus: b, Store: full})

	store := newStore(t)
	stop := run(t, newSink(t, sink.Config{Bus: b, Store: store}))
	eventually(t, "what the failing store refused is stored", func() bool { return len(stored(t, store)) == 10 })
	stop()
}

func TestRedeliveryAfterTheCommitChangesNothing(t *testing.T) {
	t.Parallel()
	b, store := bustest.New(t), newStore(t)
	publish(t, b, records(5)...)
	if err := store.Put(t.Context(), records(5)); err != nil { // as a sink did that died before its acknowledgement
		t.Fatal(err)
	}
	drain(t, sink.Config{Bus: b, Store: store})
	if got := stored(t, store); len(got) != 5 {
		t.Errorf("%d records of 5 requests", len(got))
	}
}

func TestFailingStoreIsReportedOnceAndRecovers(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	var failing atomic.Bool
	var tries atomic.Int32
	failing.Store(true)
	store := &faulty{Store: newStore(t), fault: func(context.Context, []*schemas.Result) error {
		if tries.Add(1); failing.Load() {
			return errors.New("disk full")
		}
		return nil
	}}
	var log logBuffer
	s := newSink(t, sink.Config{Bus: b, Store: store, Logger: slog.New(slog.NewTextHandler(&log, nil))})
	if err := s.Ready(t.Context()); err != nil {
		t.Errorf("ready before anything: %v", err)
	}
	stop := run(t, s)
	publish(t, b, records(3)...)
	eventually(t, "the store is tried many times", func() bool { return tries.Load() > 8 })
	if err := s.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "disk full") {
		t.Errorf("ready while the store fails: %v", err)
	}
	failing.Store(false)
	eventually(t, "the results are stored", func() bool { return len(stored(t, store)) == 3 })
	eventually(t, "it is ready again", func() bool { return s.Ready(t.Context()) == nil })
	stop()
	if got := log.String(); strings.Count(got, "level=ERROR") != 1 || strings.Count(got, "recovered") != 1 {
		t.Errorf("the log should tell one failure and one recovery:\n%s", got)
	}
}

func TestDrainEndsThoughTheStoreHangs(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	publish(t, b, records(1)...)
	began := make(chan struct{}, 16)
	hangs := &faulty{Store: newStore(t), fault: func(ctx context.Context, _ []*schemas.Result) error {
		began <- struct{}{}
		<-ctx.Done()
		return context.Cause(ctx)
	}}
	stop := run(t, newSink(t, sink.Config{Bus: b, Store: hangs, DrainTimeout: 50 * time.Millisecond}))
	<-began
	stop()
}

func TestPoisonGoesToTheDLQAndHoldsNothingUp(t *testing.T) {
	t.Parallel()
	b, store := bustest.New(t), newStore(t)
	registry := prometheus.NewRegistry()
	publish(t, b, &schemas.Result{Tenant: "acme", RequestID: "not=an=id", Status: schemas.StatusCompleted})
	publish(t, b, records(3)...)
	picky := &faulty{Store: store, fault: func(_ context.Context, results []*schemas.Result) error {
		for i, r := range results {
			if r.RequestID == "r1" {
				return &sink.RecordError{Index: i, Err: errors.New("too big")}
			}
		}
		return nil
	}}
	drain(t, sink.Config{Bus: b, Store: picky, Registerer: registry})
	if got := stored(t, store); len(got) != 2 {
		t.Errorf("%d records are stored, want r0 and r2", len(got))
	}
	if got := counter(t, registry, "weir_sink_dead_letters_total"); got != 2 {
		t.Errorf("%v dead letters, want the unreadable one and r1", got)
	}
	other := newStore(t)
	drain(t, sink.Config{Bus: b, Store: other})
	if got := stored(t, other); len(got) != 0 {
		t.Errorf("%d results come back after the DLQ", len(got))
	}
}

func TestStoreFalseKeepsMetadataOnly(t *testing.T) {
	t.Parallel()
	b, store := bustest.New(t), newStore(t)
	private := storetest.Record("acme", "private", 0)
	private.SetRequest([]byte(`{"model":"m","messages":[{"role":"user","content":"secret"}],"store": false}`))
	public := storetest.Record("acme", "public", 1)
	public.SetRequest([]byte(`{"model":"m","messages":[{"role":"user","content":"{\"store\": false}"}],"metadata":{"store":false}}`))
	publish(t, b, private, public)
	drain(t, sink.Config{Bus: b, Store: store})
	for _, r := range stored(t, store) {
		if want := r.RequestID == "public"; sink.HasPayload(r) != want || r.Usage == nil {
			t.Errorf("%s: has payload %v, want %v; usage %v", r.RequestID, !want, want, r.Usage)
		}
	}
}

func TestErasureReachesTheStore(t *testing.T) {
	t.Parallel()
	b, store := bustest.New(t), newStore(t)
	r := storetest.Record("acme", "gone", 0)
	publish(t, b, r)
	drain(t, sink.Config{Bus: b, Store: store})
	if err := b.Erase(t.Context(), r.Identity()); err != nil {
		t.Fatal(err)
	}
	drain(t, sink.Config{Bus: b, Store: store})
	got := stored(t, store)
	if len(got) != 1 || got[0].Status != schemas.StatusDeleted || sink.HasPayload(got[0]) {
		t.Errorf("after the erasure: %+v, want one tombstone", got)
	}
}

// A record larger than a message lies in LLM_OBJECTS, and commits are bounded in bytes.
func TestLargeResultsInSmallCommits(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	var commits []int
	store := &faulty{Store: newStore(t)}
	store.fault = func(_ context.Context, results []*schemas.Result) error {
		commits = append(commits, len(results))
		return nil
	}
	want := records(4)
	for _, r := range want {
		noise := make([]byte, 300<<10)
		_, _ = rand.Read(noise)
		r.Response = json.RawMessage(`"` + hex.EncodeToString(noise) + `"`)
	}
	publish(t, b, want...)
	drain(t, sink.Config{Bus: b, Store: store, BatchBytes: 1 << 20})
	got := stored(t, store)
	if len(got) != 4 {
		t.Fatalf("%d of 4 records are stored", len(got))
	}
	for i := range got {
		if !bytes.Equal(got[i].Response, want[i].Response) {
			t.Errorf("response %d differs", i)
		}
	}
	for _, n := range commits {
		if n > 2 {
			t.Errorf("a commit of %d records of 600 KB each, want at most 2", n)
		}
	}
}

func TestCommitBelongsToTheTraceOfTheRequest(t *testing.T) {
	t.Parallel()
	recorder := tracetest.NewSpanRecorder()
	provider := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(recorder))
	b := bustest.Connect(t, bustest.Server(t), bus.Config{TracerProvider: provider})
	ctx, span := provider.Tracer("test").Start(t.Context(), "request")
	if err := b.PutResult(ctx, storetest.Record("acme", "traced", 0)); err != nil {
		t.Fatal(err)
	}
	span.End()
	drain(t, sink.Config{Bus: b, Store: newStore(t)})
	for _, ended := range recorder.Ended() {
		if strings.HasPrefix(ended.Name(), "process ") && ended.SpanContext().TraceID() == span.SpanContext().TraceID() {
			return
		}
	}
	t.Error("no span of the sink is in the trace of the request")
}

func TestConfigIsChecked(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	for name, cfg := range map[string]sink.Config{
		"no bus":         {Store: newStore(t)},
		"no store":       {Bus: b},
		"negative batch": {Bus: b, Store: newStore(t), BatchSize: -1},
	} {
		if _, err := sink.New(cfg); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

func counter(t *testing.T, registry *prometheus.Registry, name string) float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	return 0
}

// logBuffer is written by the stage and read by the test.
type logBuffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.String()
}

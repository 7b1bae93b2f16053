package ingest_test

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"runtime/pprof"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/ingest"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/internal/record"
	"github.com/weir-llm/weir/schemas"
)

// TestMain fails the package when goroutines are left after all tests.
func TestMain(m *testing.M) {
	bustest.Parallel()
	before := bustest.Goroutines()
	code := m.Run()
	if code == 0 && !settled(before) {
		fmt.Fprintf(os.Stderr, "%d goroutines are left, %d were there before:\n", bustest.Goroutines(), before)
		_ = pprof.Lookup("goroutine").WriteTo(os.Stderr, 1)
		code = 1
	}
	os.Exit(code)
}

const (
	pollInterval = 5 * time.Millisecond
	// longEnough is how long a test waits for what must come, on a machine that is busy with something else too.
	longEnough = 30 * time.Second
)

func settled(want int) bool {
	deadline := time.Now().Add(longEnough)
	for bustest.Goroutines() > want {
		if time.Now().After(deadline) {
			return false
		}
		<-time.After(pollInterval)
	}
	return true
}

const (
	streaming = `{"model":"m-1.5","messages":[{"role":"user","content":"hi"}],"stream":true}`
	unary     = `{"model":"m-1.5","messages":[{"role":"user","content":"hi"}]}`
)

// event is a chunk of the fake's answers.
func event(i int) string {
	return fmt.Sprintf(`{"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"w%d"}}]}`, i)
}

// bench is a door over its own bus, and a fake of everything behind it.
type bench struct {
	t      *testing.T
	bus    *bus.Bus
	door   *ingest.Ingest
	url    string
	client *http.Client
	stop   func() error // ends Run and gives its error
	hinted sync.Map     // identities that somebody wants cancelled
}

// setup starts a door. The script plays router and worker for every request that is accepted; nil leaves them queued.
func setup(t *testing.T, script func(*job), configure ...func(*ingest.Config)) *bench {
	t.Helper()
	return setupOn(t, bustest.New(t), script, configure...)
}

func setupOn(t *testing.T, b *bus.Bus, script func(*job), configure ...func(*ingest.Config)) *bench {
	t.Helper()
	if script != nil {
		serveJobs(t, b, script)
	}
	cfg := ingest.Config{Bus: b, Addr: "127.0.0.1:0", DisconnectGrace: time.Minute}
	for _, c := range configure {
		c(&cfg)
	}
	door, err := ingest.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- door.Run(ctx) }()
	transport := &http.Transport{}
	w := &bench{t: t, bus: b, door: door, url: "http://" + door.Addr().String(), client: &http.Client{Transport: transport}}
	unheard, err := b.OnCancel(func(id schemas.Identity, _ schemas.CancelledBy) { w.hinted.Store(id, true) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(unheard)
	w.stop = sync.OnceValue(func() error { cancel(); return <-done })
	t.Cleanup(func() {
		transport.CloseIdleConnections()
		if err := w.stop(); err != nil {
			t.Errorf("Run: %v", err)
		}
		transport.CloseIdleConnections()
	})
	return w
}

// header is a list of names and values.
func (w *bench) do(ctx context.Context, method, path, body string, header ...string) *http.Response {
	w.t.Helper()
	r, err := http.NewRequestWithContext(ctx, method, w.url+path, strings.NewReader(body))
	if err != nil {
		w.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		if header[i] == "Host" {
			r.Host = header[i+1]
		}
		r.Header.Set(header[i], header[i+1])
	}
	response, err := w.client.Do(r)
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// answer is a response read to its end.
type answer struct {
	status int
	header http.Header
	body   string
	err    error // of reading the body
}

func (w *bench) ask(method, path, body string, header ...string) answer {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.t.Context(), longEnough)
	defer cancel()
	return read(w.do(ctx, method, path, body, header...))
}

func (w *bench) chat(body string, header ...string) answer {
	w.t.Helper()
	return w.ask("POST", "/v1/chat/completions", body, header...)
}

func read(response *http.Response) answer {
	body, err := io.ReadAll(response.Body)
	_ = response.Body.Close()
	return answer{status: response.StatusCode, header: response.Header, body: string(body), err: err}
}

// wants fails the test unless the answer has the status and its body all of the parts.
func (a answer) wants(t *testing.T, status int, parts ...string) answer {
	t.Helper()
	if a.status != status {
		t.Fatalf("status %d, want %d; body: %s", a.status, status, a.body)
	}
	for _, part := range parts {
		if !strings.Contains(a.body, part) {
			t.Fatalf("body lacks %q:\n%s", part, a.body)
		}
	}
	return a
}

// without fails the test when the body has the part.
func (a answer) without(t *testing.T, part string) answer {
	t.Helper()
	if strings.Contains(a.body, part) {
		t.Fatalf("body has %q:\n%s", part, a.body)
	}
	return a
}

// id is the request's.
func (a answer) id() string { return a.header.Get("X-Request-Id") }

// job is one accepted request in the hands of the fake. It writes the chain, frame by frame.
type job struct {
	t        *testing.T
	ctx      context.Context
	bus      *bus.Bus
	request  *schemas.Request
	header   schemas.Header
	sequence uint64
	index    uint64
	fenced   bool
	took     time.Time // when the request was accepted, if that matters
}

// serveJobs runs script for each request until the test ends.
func serveJobs(t *testing.T, b *bus.Bus, script func(*job)) {
	ctx, cancel := context.WithCancel(context.Background())
	var owned sync.WaitGroup
	t.Cleanup(func() { cancel(); owned.Wait() })
	for partition := range schemas.Partitions {
		owned.Go(func() {
			puller := b.Requests(partition)
			defer puller.Close()
			for {
				batch, err := puller.Fetch(ctx, 16)
				if errors.Is(err, bus.ErrUnpinned) {
					continue // the process was not heard of for a while
				}
				if err != nil {
					return
				}
				for _, d := range batch {
					d.Settle(bus.Ack)
					owned.Go(func() { script(newJob(ctx, t, b, d)) })
				}
			}
		})
	}
}

func newJob(ctx context.Context, t *testing.T, b *bus.Bus, d *bus.Delivery) *job {
	request, err := schemas.DecodeRequest(d.Subject, d.Sequence, d.Header, d.Data)
	if err != nil {
		t.Errorf("a request that cannot be read was accepted: %v", err)
	}
	return &job{t: t, ctx: ctx, bus: b, request: request, header: d.Header}
}

// write appends a frame and goes silent when the chain has been taken over.
func (j *job) write(f *schemas.Frame) {
	if j.fenced || j.ctx.Err() != nil {
		return
	}
	f.Attempt, f.Writer, f.Index = 1, "fake", j.index
	sequence, err := j.bus.Append(j.ctx, j.request.Identity, j.sequence, f)
	if errors.Is(err, bus.ErrFenced) && f.Kind == schemas.KindStart && j.sequence == 0 {
		chain, chainErr := j.bus.Chain(j.ctx, j.request.Identity)
		if chainErr == nil && chain.Terminal() == nil {
			j.sequence = chain.Sequence()
			j.write(f)
			return
		}
	}
	if err != nil {
		j.fenced = true
		return
	}
	j.sequence, j.index = sequence, f.Next()
}

func (j *job) start() {
	body, err := j.bus.Body(j.ctx, j.request)
	if err != nil {
		j.t.Errorf("body of an accepted request: %v", err)
	}
	j.write(&schemas.Frame{Kind: schemas.KindStart, Op: j.request.Op, BodyHash: schemas.BodyHash(body), Start: j.claim()})
}

// delta writes the next n events in one frame.
func (j *job) delta(n int) {
	var lines []string
	for i := range n {
		lines = append(lines, event(int(j.index)+i))
	}
	j.write(&schemas.Frame{Kind: schemas.KindDelta, Count: n, Data: []byte(strings.Join(lines, "\n"))})
}

func (j *job) end() {
	j.write(&schemas.Frame{Kind: schemas.KindEnd, Data: (&schemas.Summary{Status: schemas.StatusCompleted, Attempts: 1, FinishReasons: []string{"stop"}}).Encode()})
	j.finish()
}

func (j *job) respond(response string) {
	j.write(&schemas.Frame{Kind: schemas.KindEnd, Count: 1, Data: []byte(response), Summary: (&schemas.Summary{Status: schemas.StatusCompleted, Attempts: 1}).Encode()})
	j.finish()
}

func (j *job) fail(e *schemas.Error) {
	j.write(&schemas.Frame{Kind: schemas.KindError, Data: e.Encode(), Summary: (&schemas.Summary{Status: schemas.StatusOf(e), Attempts: 1}).Encode()})
	j.finish()
}

// finish stores the result, as the owner of a finished chain does.
func (j *job) finish() {
	if j.ctx.Err() != nil {
		return
	}
	chain, err := j.bus.Chain(j.ctx, j.request.Identity)
	if err != nil || chain.Terminal() == nil {
		return
	}
	work := &schemas.Work{Request: *j.request, Dispatch: 1, Accepted: time.Now()}
	if !j.took.IsZero() {
		work.Accepted = j.took
	}
	if err := record.Ensure(j.ctx, j.bus, work, j.request.Body, chain); err != nil && j.ctx.Err() == nil {
		j.t.Errorf("store the result: %v", err)
	}
}

// wait blocks until the channel closes or the test ends.
func (j *job) wait(gate <-chan struct{}) {
	select {
	case <-gate:
	case <-j.ctx.Done():
	}
}

// tokens is a script that answers a stream of frames with so many events each.
func tokens(counts ...int) func(*job) {
	return func(j *job) {
		j.start()
		for _, n := range counts {
			j.delta(n)
		}
		j.end()
	}
}

// eventually polls until the condition holds.
func eventually(t *testing.T, what string, condition func() bool) {
	t.Helper()
	deadline := time.Now().Add(longEnough)
	for !condition() {
		if time.Now().After(deadline) {
			t.Fatalf("not within %s: %s", longEnough, what)
		}
		<-time.After(pollInterval)
	}
}

// terminal polls for the frame that ended a request.
func (w *bench) terminal(id schemas.Identity) *schemas.Frame {
	w.t.Helper()
	var last *schemas.Frame
	eventually(w.t, "the end of "+id.String(), func() bool {
		chain, err := w.bus.Chain(w.t.Context(), id)
		if err != nil {
			w.t.Fatal(err)
		}
		last = chain.Terminal()
		return last != nil
	})
	return last
}

// stays fails the test when the request ends within d, or when somebody has begun to cancel it, which takes a second.
func (w *bench) stays(id schemas.Identity, d time.Duration) {
	w.t.Helper()
	for deadline := time.Now().Add(d); time.Now().Before(deadline); <-time.After(pollInterval) {
		chain, err := w.bus.Chain(w.t.Context(), id)
		if err != nil {
			w.t.Fatal(err)
		}
		if last := chain.Terminal(); last != nil {
			w.t.Fatalf("the request ended: %s", last.Data)
		}
		if _, hinted := w.hinted.Load(id); hinted {
			w.t.Fatal("the request is being cancelled")
		}
	}
}

func of(request string) schemas.Identity {
	return schemas.Identity{Tenant: ingest.DefaultTenant, Request: request}
}

// ring has configured keys and no others.
func ring(t *testing.T, configured ...keys.Configured) *keys.Ring {
	t.Helper()
	r, err := keys.New(keys.Config{Configured: configured})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func hashOf(secret string) string {
	sum := sha256.Sum256([]byte(secret))
	return hex.EncodeToString(sum[:])
}

// sse is the wire form of the events from first to last (exclusive) of a request.
func sse(request string, first, last int) string {
	var b strings.Builder
	for i := first; i < last; i++ {
		fmt.Fprintf(&b, "id: %s.%d\ndata: %s\n\n", request, i, event(i))
	}
	return b.String()
}

const done = "data: [DONE]\n\n"

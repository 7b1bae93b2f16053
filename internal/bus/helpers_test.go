package bus_test

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/schemas"
)

const (
	// patience is how long a test waits for what must happen.
	patience = time.Minute
	// atOnce is more than anything takes that waits for no lease and no lost connection, on a machine that is busy.
	atOnce = 20 * time.Second
	// longLease is one that no test waits for.
	longLease = time.Hour
)

var alice = schemas.Identity{Tenant: "acme", Request: "r-1"}

func start(writer string) *schemas.Frame {
	return &schemas.Frame{Kind: schemas.KindStart, Attempt: 1, Writer: writer, Start: &schemas.Start{Mode: schemas.ModeFresh, Work: 7, Dispatch: 1, Worker: "w"}, BodyHash: "h"}
}

func delta(writer string, index uint64, events ...string) *schemas.Frame {
	return &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Writer: writer, Index: index, Count: len(events), Data: []byte(strings.Join(events, "\n"))}
}

func end(writer string, index uint64) *schemas.Frame {
	return &schemas.Frame{Kind: schemas.KindEnd, Attempt: 1, Writer: writer, Index: index, Data: []byte(`{"status":"completed","attempts":1}`)}
}

func failure(writer string, index uint64, reason *schemas.Error) *schemas.Frame {
	return &schemas.Frame{Kind: schemas.KindError, Attempt: 1, Writer: writer, Index: index, Data: reason.Encode()}
}

// deadline is a context for what must happen.
func deadline(t testing.TB, within time.Duration) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	t.Cleanup(cancel)
	return ctx
}

// eventually polls until ok, which must become true within [patience].
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	ctx := deadline(t, patience)
	tick := time.NewTicker(5 * time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("it did not happen within %v: %s", patience, what)
		}
	}
}

// await waits for a channel to be closed.
func await(t testing.TB, what string, done <-chan struct{}) {
	t.Helper()
	select {
	case <-done:
	case <-time.After(patience):
		t.Fatalf("it did not happen within %v: %s", patience, what)
	}
}

// write appends frames one after the other and returns the last sequence.
func write(t testing.TB, b *bus.Bus, id schemas.Identity, expect uint64, frames ...*schemas.Frame) uint64 {
	t.Helper()
	for _, f := range frames {
		sequence, err := b.Append(t.Context(), id, expect, f)
		if err != nil {
			t.Fatal(err)
		}
		expect = sequence
	}
	return expect
}

// chain reads a chain and checks that its events have no gap and no duplicate.
func chain(t testing.TB, b *bus.Bus, id schemas.Identity) *bus.Chain {
	t.Helper()
	c, err := b.Chain(deadline(t, patience), id)
	if err != nil {
		t.Fatal(err)
	}
	for i, f := range c.Frames {
		if i > 0 && f.Index != c.Frames[i-1].Next() {
			t.Errorf("frame %d begins at %d, the one before ends at %d", i, f.Index, c.Frames[i-1].Next())
		}
	}
	return c
}

// collect reads the events of a request to its end and checks that their indexes follow one another.
func collect(t testing.TB, b *bus.Bus, id schemas.Identity, opt bus.ReadOptions) []string {
	t.Helper()
	events, err := drain(b.Read(deadline(t, patience), id, opt), opt.From)
	if err != nil {
		t.Fatal(err)
	}
	return events
}

type frames = func(yield func(*schemas.Frame, error) bool)

// drain takes the events of a reader that wants those from an index on.
func drain(frames frames, from uint64) (events []string, err error) {
	next, ended := from, false
	for f, err := range frames {
		if err != nil {
			return events, err
		}
		if ended {
			return events, fmt.Errorf("frame %s after the end", f.Header())
		}
		ended = f.Kind.Terminal()
		for i, event := range f.Events() {
			if i != next {
				return events, fmt.Errorf("event %d where %d should be", i, next)
			}
			next++
			events = append(events, string(event))
		}
	}
	return events, nil
}

// raw connects past the bus, as a stranger or an operator would.
func raw(t testing.TB, server *natsd.Server) (*nats.Conn, jetstream.JetStream) {
	t.Helper()
	conn, err := nats.Connect("", nats.InProcessServer(server), nats.UserInfo(server.Username(), server.Password()), nats.Timeout(patience))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(conn.Close)
	js, err := jetstream.New(conn)
	if err != nil {
		t.Fatal(err)
	}
	return conn, js
}

// connect connects without making streams, by TCP when cfg has a URL.
func connect(t testing.TB, server *natsd.Server, cfg bus.Config) *bus.Bus {
	t.Helper()
	if cfg.URL == "" {
		cfg.InProcess, cfg.Username, cfg.Password = server, server.Username(), server.Password()
	}
	b, err := bus.Connect(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() }) // a test may have taken the server away
	return b
}

// far is a bus that reaches the pipeline only through a proxy, and one that is beside the server.
func far(t testing.TB, cfg bus.Config) (b *bus.Bus, p *bustest.Proxy, near *bus.Bus) {
	t.Helper()
	server := bustest.Server(t)
	near = bustest.Connect(t, server, bus.Config{Lease: cfg.Lease})
	p = bustest.NewProxy(t, server.ClientURL())
	cfg.URL = p.URL()
	return connect(t, server, cfg), p, near
}

// counts reads the counters of a bus by name, or by the value of their only label.
func counts(t testing.TB, registry *prometheus.Registry) map[string]float64 {
	t.Helper()
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	values := map[string]float64{}
	for _, family := range families {
		for _, m := range family.GetMetric() {
			name := family.GetName()
			if labels := m.GetLabel(); len(labels) > 0 {
				name = labels[0].GetValue()
			}
			values[name] = m.GetCounter().GetValue()
		}
	}
	return values
}

// journal keeps what a bus logs.
type journal struct {
	mu   sync.Mutex
	text strings.Builder
}

var _ io.Writer = (*journal)(nil)

func (j *journal) Write(p []byte) (int, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.text.Write(p)
}

func (j *journal) logger() *slog.Logger { return slog.New(slog.NewTextHandler(j, nil)) }

// lines are the log records that contain all of the words.
func (j *journal) lines(words ...string) (found []string) {
	j.mu.Lock()
	defer j.mu.Unlock()
next:
	for line := range strings.Lines(j.text.String()) {
		for _, word := range words {
			if !strings.Contains(line, word) {
				continue next
			}
		}
		found = append(found, line)
	}
	return found
}

func request(id string) *schemas.Request {
	return &schemas.Request{Identity: schemas.Identity{Tenant: "acme", Request: id}, ModelToken: "echo", Body: []byte("{}")}
}

func work(id string, body []byte) *schemas.Work {
	w := &schemas.Work{Request: *request(id), Dispatch: 1, Accepted: time.Now()}
	w.Body = body
	return w
}

// restartable is a server that can be stopped and started over the same store, with a proxy that leads to whatever runs.
type restartable struct {
	t      testing.TB
	dir    string
	server *natsd.Server
	proxy  *bustest.Proxy
}

func newRestartable(t testing.TB) *restartable {
	t.Helper()
	r := &restartable{t: t, dir: t.TempDir()}
	r.start()
	r.proxy = bustest.NewProxy(t, r.server.ClientURL())
	return r
}

func (r *restartable) start() {
	r.t.Helper()
	server, err := natsd.New(natsd.Config{Dir: r.dir, Listen: "127.0.0.1:0", Open: true})
	if err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(server.Close)
	r.server = server
	if r.proxy != nil {
		r.proxy.Lead(server.ClientURL())
		r.proxy.Cut()
	}
}

package inference_test

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/natsd"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// patience is how long a test waits for what must come.
const patience = time.Minute

// lease of the work items, short enough to wait for, and long enough that a machine which does nothing for seconds, because it
// has something else to do, loses none.
const lease = 4 * time.Second

// Bodies of requests. Only the greedy ones may be run again in the middle of an answer.
const (
	greedy  = `{"model":"m","stream":true,"temperature":0,"messages":[{"role":"user","content":"hi"}]}`
	sampled = `{"model":"m","stream":true,"messages":[{"role":"user","content":"hi"}]}`
	whole   = `{"model":"m","messages":[{"role":"user","content":"hi"}]}`
)

// pipe is a test's own server, with the test in the place of router and reader.
type pipe struct {
	t      testing.TB
	server *natsd.Server
	bus    *bus.Bus
	tap    *tap

	mu    sync.Mutex
	items map[schemas.Identity][]uint64 // what was dispatched
}

func setup(t testing.TB) *pipe {
	t.Helper()
	server := bustest.Server(t)
	return &pipe{t: t, server: server, bus: bustest.Connect(t, server, bus.Config{StoreBytes: 1 << 30, Lease: lease}), tap: newTap(t, server), items: map[schemas.Identity][]uint64{}}
}

// worker is a worker process: its connection can be cut as if it had been killed.
type worker struct {
	bus      *bus.Bus
	stop     func() // as SIGTERM: returns when nothing runs
	registry *prometheus.Registry
}

// kill cuts the worker off from everything.
func (w *worker) kill() { _ = w.bus.Close() }

// counter reads a counter without labels.
func (w *worker) counter(t testing.TB, name string) float64 {
	t.Helper()
	families, err := w.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, family := range families {
		if family.GetName() == name {
			return family.GetMetric()[0].GetCounter().GetValue()
		}
	}
	t.Fatalf("no metric %s", name)
	return 0
}

// worker starts a worker with a connection of its own. It runs until the test ends or it is stopped.
func (p *pipe) worker(name string, backend inference.Backend, change ...func(*inference.Config)) *worker {
	p.t.Helper()
	b, err := bus.Connect(p.t.Context(), bus.Config{
		InProcess: p.server, Username: p.server.Username(), Password: p.server.Password(), Name: name, Lease: lease,
	})
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = b.Close() })
	return p.workerOn(b, name, backend, change...)
}

func (p *pipe) workerOn(b *bus.Bus, name string, backend inference.Backend, change ...func(*inference.Config)) *worker {
	p.t.Helper()
	w := &worker{bus: b, registry: prometheus.NewRegistry()}
	cfg := inference.Config{
		Bus: b, Name: name, DrainTimeout: 20 * time.Millisecond, Registerer: w.registry,
		Models: map[string]inference.Model{"m": {Backends: []inference.Slot{{Backend: backend, MaxInFlight: 4}}}},
	}
	if _, benchmark := p.t.(*testing.B); !benchmark {
		cfg.Logger = slog.New(slog.NewTextHandler(p.t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})).With("worker", name)
	}
	for _, c := range change {
		c(&cfg)
	}
	stage, err := inference.New(cfg)
	if err != nil {
		p.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(p.t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := stage.Run(ctx); err != nil && ctx.Err() == nil {
			p.t.Error(err)
		}
	})
	w.stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	p.t.Cleanup(w.stop)
	return w
}

// model replaces the worker's only model.
func model(change func(*inference.Model)) func(*inference.Config) {
	return func(c *inference.Config) {
		m := c.Models["m"]
		change(&m)
		c.Models["m"] = m
	}
}

func slots(n int) func(*inference.Config) {
	return model(func(m *inference.Model) { m.Backends[0].MaxInFlight = n })
}

func drain(d time.Duration) func(*inference.Config) {
	return func(c *inference.Config) { c.DrainTimeout = d }
}

func identity(id string) schemas.Identity { return schemas.Identity{Tenant: "acme", Request: id} }

// work is an item for dispatch.
func work(id string, number int, body string) *schemas.Work {
	return &schemas.Work{
		Request:  schemas.Request{Identity: identity(id), ModelToken: "m", Op: schemas.OpChat, Body: []byte(body)},
		Dispatch: number, Accepted: time.Now(),
	}
}

// dispatch makes a request available to the workers and returns the sequence of the item.
func (p *pipe) dispatch(w *schemas.Work) uint64 {
	p.t.Helper()
	sequence, err := p.bus.Dispatch(p.t.Context(), w)
	if err != nil {
		p.t.Fatal(err)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.items[w.Identity] = append(p.items[w.Identity], sequence)
	return sequence
}

// send dispatches a request for the first time.
func (p *pipe) send(id, body string) schemas.Identity {
	p.t.Helper()
	p.dispatch(work(id, 1, body))
	return identity(id)
}

// append writes a frame as another process would, behind what is there.
func (p *pipe) append(id schemas.Identity, f *schemas.Frame) {
	p.t.Helper()
	if _, err := p.bus.Append(p.t.Context(), id, p.chain(id).Sequence(), f); err != nil {
		p.t.Fatal(err)
	}
}

// reading is what a reader has seen.
type reading struct {
	text     string
	ids      []string // of the events
	terminal *schemas.Frame
	err      error
}

// code of the error that the reading ended in, or empty.
func (r *reading) code() schemas.Code {
	if r.terminal == nil || r.terminal.Kind != schemas.KindError {
		return ""
	}
	e, err := schemas.DecodeError(r.terminal.Data)
	if err != nil {
		return schemas.Code(err.Error())
	}
	return e.Code
}

// reader reads a request from the beginning, from now on. The returned function waits for the end.
func (p *pipe) reader(id schemas.Identity) func() *reading {
	p.t.Helper()
	ctx, cancel := context.WithTimeout(p.t.Context(), patience)
	seen := &reading{}
	var running sync.WaitGroup
	running.Go(func() {
		defer cancel()
		var c openai.Chunk
		for f, err := range p.bus.Read(ctx, id, bus.ReadOptions{}) {
			if err != nil {
				seen.err = err
				return
			}
			for _, event := range f.Events() {
				if seen.err = c.Peek(event); seen.err != nil {
					return
				}
				seen.ids = append(seen.ids, c.ID)
				for _, choice := range c.Choices {
					seen.text += choice.Content
				}
			}
			seen.terminal = f
		}
	})
	return func() *reading {
		p.t.Helper()
		running.Wait()
		if seen.err != nil {
			p.t.Fatalf("after %q: %v", seen.text, seen.err)
		}
		return seen
	}
}

// read reads a request to its end.
func (p *pipe) read(id schemas.Identity) *reading { p.t.Helper(); return p.reader(id)() }

func (p *pipe) chain(id schemas.Identity) *bus.Chain {
	p.t.Helper()
	chain, err := p.bus.Chain(p.t.Context(), id)
	if err != nil {
		p.t.Fatal(err)
	}
	return chain
}

// until polls for what must come true.
func (p *pipe) until(what string, is func() bool) {
	p.t.Helper()
	for deadline := time.Now().Add(patience); !is(); <-time.After(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			p.t.Fatalf("%s: waited in vain", what)
		}
	}
}

// visible waits until readers can see n events.
func (p *pipe) visible(id schemas.Identity, n uint64) {
	p.t.Helper()
	p.until("events", func() bool { return p.chain(id).Next() >= n })
}

// gone waits until an item is settled for good.
func (p *pipe) gone(sequence uint64) {
	p.t.Helper()
	p.until("the item is settled", func() bool {
		exists, err := p.bus.WorkExists(p.t.Context(), sequence)
		return err == nil && !exists
	})
}

// ended waits until a request has ended and holds it against what must be true of every ending: one terminal frame at the
// end of a chain without a gap, one writer an attempt, one result that says the same, and nothing left in LLM_WORK.
func (p *pipe) ended(id schemas.Identity) *schemas.Result {
	p.t.Helper()
	var result *schemas.Result
	p.until("the result", func() (ok bool) {
		var err error
		if result, err = p.bus.Result(p.t.Context(), id); err != nil && !errors.Is(err, bus.ErrNotFound) {
			p.t.Fatal(err)
		}
		return err == nil
	})
	chain := p.chain(id)
	p.checkChain(chain)
	want := schemas.StatusCompleted
	if terminal := chain.Terminal(); terminal.Kind == schemas.KindError {
		e, err := schemas.DecodeError(terminal.Data)
		if err != nil {
			p.t.Fatal(err)
		}
		want = schemas.StatusOf(e)
		if string(result.Error) != string(terminal.Data) {
			p.t.Errorf("the result says %s, the chain %s", result.Error, terminal.Data)
		}
	}
	if result.Status != want || result.Attempts != chain.Attempts() {
		p.t.Errorf("the result says %s after %d attempts, the chain %s after %d", result.Status, result.Attempts, want, chain.Attempts())
	}
	if result.Events != nil && uint64(result.Events.Count) != chain.Next() {
		p.t.Errorf("the result holds %d events, the chain %d", result.Events.Count, chain.Next())
	}
	p.mu.Lock()
	items := p.items[id]
	p.mu.Unlock()
	for _, sequence := range items {
		p.gone(sequence)
	}
	results := 0
	for r, err := range p.bus.TailResults(p.t.Context(), id.Tenant, time.Unix(1, 0), false) {
		if err != nil {
			p.t.Fatal(err)
		}
		if r.RequestID == id.Request {
			results++
		}
	}
	if results != 1 {
		p.t.Errorf("%s has %d results", id, results)
	}
	return result
}

// checkChain holds a finished chain against the invariants.
func (p *pipe) checkChain(chain *bus.Chain) {
	p.t.Helper()
	next, attempt, writer := uint64(0), 0, ""
	for i, f := range chain.Frames {
		if f.Start != nil {
			attempt++
			writer = f.Writer
		}
		switch {
		case f.Index != next:
			p.t.Errorf("frame %d begins with event %d instead of %d", i, f.Index, next)
		case f.Attempt != attempt:
			p.t.Errorf("frame %d is of attempt %d after %d starts", i, f.Attempt, attempt)
		case f.Kind == schemas.KindDelta && f.Writer != writer:
			p.t.Errorf("frame %d is of writer %s, but %s has claimed the chain", i, f.Writer, writer)
		case f.Kind.Terminal() != (i == len(chain.Frames)-1):
			p.t.Errorf("frame %d of %d is %s", i, len(chain.Frames), f.Kind)
		}
		next = f.Next()
	}
}

// modes lists how the attempts of a chain went on.
func modes(chain *bus.Chain) string {
	var all []string
	for _, f := range chain.Frames {
		if f.Start != nil {
			all = append(all, string(f.Start.Mode))
		}
	}
	return strings.Join(all, " ")
}

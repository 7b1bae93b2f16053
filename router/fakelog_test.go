package router

import (
	"context"
	"iter"
	"slices"
	"sync"
	"testing/synctest"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// fakeLog is LLM_REPLIES and LLM_RESULTS in memory, in the time of a bubble.
type fakeLog struct {
	mu       sync.Mutex
	sequence uint64
	chains   map[schemas.Identity][]*schemas.Frame
	results  map[schemas.Identity]*schemas.Result
	read     map[schemas.Identity]int // frames that readers took
	changed  chan struct{}            // closed at the next write
	gates    map[schemas.Identity]chan struct{}
	look     chan struct{} // a look at a last frame waits for it, when set
}

func newFakeLog() *fakeLog {
	return &fakeLog{
		chains: make(map[schemas.Identity][]*schemas.Frame), results: make(map[schemas.Identity]*schemas.Result),
		read: make(map[schemas.Identity]int), changed: make(chan struct{}), gates: make(map[schemas.Identity]chan struct{}),
	}
}

func (g *fakeLog) Append(_ context.Context, id schemas.Identity, expect uint64, f *schemas.Frame) (uint64, error) {
	g.mu.Lock()
	gate := g.gates[id]
	g.mu.Unlock()
	if gate != nil {
		<-gate
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	chain := g.chains[id]
	if last := (&bus.Chain{Frames: chain}).Sequence(); last != expect {
		return 0, bus.ErrFenced
	}
	g.sequence++
	stored := *f
	stored.Sequence, stored.Time = g.sequence, time.Now()
	g.chains[id] = append(chain, &stored)
	close(g.changed)
	g.changed = make(chan struct{})
	return g.sequence, nil
}

func (g *fakeLog) Chain(_ context.Context, id schemas.Identity) (*bus.Chain, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return &bus.Chain{Frames: slices.Clone(g.chains[id])}, nil
}

func (g *fakeLog) LastFrame(ctx context.Context, id schemas.Identity) (*schemas.Frame, error) {
	g.mu.Lock()
	look := g.look
	g.mu.Unlock()
	if look != nil {
		<-look
	}
	chain, _ := g.Chain(ctx, id)
	if last := chain.Last(); last != nil {
		return last, nil
	}
	return nil, bus.ErrNotFound
}

func (g *fakeLog) Read(ctx context.Context, id schemas.Identity, opt bus.ReadOptions) iter.Seq2[*schemas.Frame, error] {
	return func(yield func(*schemas.Frame, error) bool) {
		for next := 0; ; next++ {
			f, err := g.await(ctx, id, next)
			if err != nil {
				yield(nil, err)
				return
			}
			g.mu.Lock()
			g.read[id]++
			g.mu.Unlock()
			part := *f
			if part.From(opt.From); !yield(&part, nil) || f.Kind.Terminal() {
				return
			}
		}
	}
}

// await waits for the frame of a chain at a place.
func (g *fakeLog) await(ctx context.Context, id schemas.Identity, at int) (*schemas.Frame, error) {
	for {
		g.mu.Lock()
		chain, changed := g.chains[id], g.changed
		g.mu.Unlock()
		if at < len(chain) {
			return chain[at], nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

func (g *fakeLog) Result(_ context.Context, id schemas.Identity) (*schemas.Result, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if r := g.results[id]; r != nil {
		return r, nil
	}
	return nil, bus.ErrNotFound
}

func (g *fakeLog) PutResult(_ context.Context, r *schemas.Result) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	id := schemas.Identity{Tenant: r.Tenant, Request: r.RequestID}
	if g.results[id] == nil {
		g.results[id] = r
	}
	return nil
}

func (g *fakeLog) Body(_ context.Context, r *schemas.Request) ([]byte, error) { return r.Body, nil }

// block holds what is written to a chain until the gate is closed.
func (g *fakeLog) block(id schemas.Identity) (gate chan struct{}) {
	g.mu.Lock()
	defer g.mu.Unlock()
	gate = make(chan struct{})
	g.gates[id] = gate
	return gate
}

// write appends a frame as a worker does.
func (b *bench) write(id string, f *schemas.Frame) {
	b.t.Helper()
	who := named(id)
	chain, _ := b.log.Chain(b.t.Context(), who)
	f.Index, f.Writer = chain.Next(), "W"
	if f.Attempt = chain.Attempts(); f.Start != nil {
		f.Attempt++
	}
	if _, err := b.log.Append(b.t.Context(), who, chain.Sequence(), f); err != nil {
		b.t.Fatalf("write to %s: %v", id, err)
	}
	synctest.Wait()
}

func named(id string) schemas.Identity { return schemas.Identity{Tenant: "acme", Request: id} }

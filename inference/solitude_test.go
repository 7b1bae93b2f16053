package inference_test

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

// poisoned is the body of the request that kills workers.
const poisoned = `{"model":"m","stream":true,"messages":[{"role":"user","content":"poison"}]}`

// killer is a backend whose worker dies of one request, as soon as as many calls are there as it waits for. It is of one
// worker.
type killer struct {
	fake
	crowd int         // calls that are there when it dies
	die   chan func() // takes what kills the worker, which is there only when the backend is

	mu    sync.Mutex
	there int
	full  chan struct{}
	dead  chan struct{}
}

func newKiller(crowd int) *killer {
	return &killer{fake: fake{words: three}, crowd: crowd, die: make(chan func(), 1), full: make(chan struct{}), dead: make(chan struct{})}
}

func (k *killer) Generate(ctx context.Context, r *inference.GenerateRequest) iter.Seq2[inference.Event, error] {
	k.mu.Lock()
	if k.there++; k.there == k.crowd {
		close(k.full)
	}
	k.mu.Unlock()
	return func(yield func(inference.Event, error) bool) {
		switch {
		case strings.Contains(string(r.Body), "poison"):
			k.running.Add(1)
			k.most.Store(max(k.most.Load(), k.running.Load()))
			<-k.full
			(<-k.die)()
			close(k.dead)
			<-ctx.Done()
		case k.crowd > 1: // it dies with the worker, before it says anything
			<-ctx.Done()
			yield(inference.Event{}, inference.ContextError(ctx))
		default:
			k.fake.Generate(ctx, r)(yield)
		}
	}
}

// A request that kills workers takes neighbours with it twice, and alone the third time; none of them is blamed for it.
func TestThirdAttemptRunsAlone(t *testing.T) {
	t.Parallel()
	const neighbours = 8
	p := setup(t)
	poison := p.dispatch(work("poison", 1, poisoned))
	items := map[string]uint64{}
	for i := range neighbours {
		name := fmt.Sprintf("n%d", i)
		items[name] = p.dispatch(work(name, 1, sampled))
	}
	claimed := func(attempts int) bool {
		for name := range items {
			if p.chain(identity(name)).Attempts() < attempts {
				return false
			}
		}
		return p.chain(identity("poison")).Attempts() >= attempts
	}
	for n, crowd := range []int{neighbours + 1, neighbours + 1} {
		k := newKiller(crowd)
		w := p.worker(fmt.Sprintf("w%d", n+1), k, slots(16))
		k.die <- func() {
			p.until("the claims of all", func() bool { return claimed(n + 1) })
			w.kill()
		}
		wait(t, "the death of a worker", k.dead)
		t.Cleanup(w.stop)
	}
	third := newKiller(1)
	w3 := p.worker("w3", third, slots(16))
	third.die <- func() {
		p.until("the claim", func() bool { return p.chain(identity("poison")).Attempts() == 3 })
		w3.kill()
	}
	wait(t, "the death of the third worker", third.dead)
	t.Cleanup(w3.stop)
	fourth := newKiller(1)
	p.worker("w4", fourth, slots(16))
	if got := p.read(identity("poison")); got.code() != schemas.CodePoison {
		t.Errorf("the poison ended with %q", got.code())
	}
	for name := range items {
		if got := p.read(identity(name)); got.text != "one two three" || got.code() != "" {
			t.Errorf("%s got %q and %q", name, got.text, got.code())
		}
		p.ended(identity(name))
	}
	p.gone(poison)
	if letters := p.tap.letters(1); len(letters) != 1 || letters[0].body != poisoned {
		t.Errorf("%d dead letters: %+v", len(letters), letters)
	}
	if a, b := third.most.Load(), fourth.most.Load(); a > 1 || b > 1 {
		t.Errorf("%d and %d ran at once in the workers that ran suspects", a, b)
	}
}

// What runs when a suspect comes is left to its end, nothing new is taken meanwhile, and all goes on afterwards.
func TestSuspectWaitsForSolitude(t *testing.T) {
	t.Parallel()
	p := setup(t)
	beats := p.beats()
	held := stallAt(1, 1)
	backend := &fake{words: three, gate: held.gate}
	w := p.worker("w1", backend)
	first := p.send("first", sampled)
	wait(t, "the call", held.reached)
	p.twiceLost("suspect")
	suspect := p.dispatch(work("suspect", 2, sampled))
	p.until("the beat that says there is no room", func() bool {
		b := beats.last("w1")
		return b != nil && b.Models[0].Used == 2 && b.Models[0].Slots == 2
	})
	late := p.send("late", sampled)
	held.open()
	p.once(first)
	p.once(late)
	if got := p.read(identity("suspect")); got.text != "one two three" || got.code() != "" {
		t.Errorf("got %q and %q", got.text, got.code())
	}
	p.gone(suspect)
	if n := w.counter(t, "weir_inference_isolated_runs_total"); n != 1 {
		t.Errorf("%v ran alone", n)
	}
	if most := backend.most.Load(); most != 1 {
		t.Errorf("%d ran at once", most)
	}
}

// twiceLost makes the chain of a request that two workers were lost with.
func (p *pipe) twiceLost(id string) {
	p.t.Helper()
	for attempt := 1; attempt <= 2; attempt++ {
		f := started(99, 1)
		f.Attempt = attempt
		p.append(identity(id), f)
	}
}

// A suspect that waits is cancelled, expires, and is handed back, like any request.
func TestSuspectThatWaitsEnds(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		end  func(p *pipe, w *worker)
		code schemas.Code
	}{
		"cancelled": {func(p *pipe, _ *worker) {
			p.until("the end", func() bool { // the slot is taken a moment before anybody listens to a hint
				_ = p.bus.Cancel(identity("suspect"), schemas.CancelledByCaller)
				return p.chain(identity("suspect")).Terminal() != nil
			})
		}, schemas.CodeCancelled},
		"too late": {func(*pipe, *worker) {}, schemas.CodeDeadline},
		"drained": {func(p *pipe, w *worker) {
			w.stop()
			p.worker("w2", &fake{words: three})
		}, ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			beats := p.beats()
			held := stallAt(1, 1)
			w := p.worker("w1", &fake{words: three, gate: held.gate})
			p.send("first", sampled)
			wait(t, "the call", held.reached)
			p.twiceLost("suspect")
			item := work("suspect", 2, sampled)
			if c.code == schemas.CodeDeadline {
				item.Deadline = time.Now().Add(8 * time.Second)
			}
			sequence := p.dispatch(item)
			p.until("it waits", func() bool { b := beats.last("w1"); return b != nil && b.Models[0].Used == 2 })
			c.end(p, w)
			if got := p.read(identity("suspect")); got.code() != c.code {
				t.Errorf("ended with %q, want %q", got.code(), c.code)
			}
			p.gone(sequence)
			held.open()
		})
	}
}

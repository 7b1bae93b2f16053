package inference_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/weir-llm/weir/schemas"
)

func TestDrainLetsRunningRequestsFinish(t *testing.T) {
	t.Parallel()
	p := setup(t)
	beats := p.beats()
	held := stallAt(1, 1)
	backend := &fake{words: three, gate: held.gate}
	w := p.worker("w1", backend, drain(patience))
	item := p.dispatch(work("r1", 1, sampled))
	wait(t, "the call", held.reached)
	p.visible(identity("r1"), 1)
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		w.stop()
	}()
	p.until("the beat that says so", func() bool { b := beats.last("w1"); return b != nil && b.Draining })
	late := p.send("late", sampled)
	held.open()
	p.once(identity("r1"))
	wait(t, "the end of the worker", stopped)
	if n := backend.calls.Load(); n != 1 {
		t.Errorf("%d calls", n)
	}
	last := func() schemas.ModelBeat { return beats.last("w1").Models[0] }
	p.until("the last beat", func() bool { return last().Used == 0 })
	if n := beats.released(item); n != 1 {
		t.Errorf("the item was released %d times", n)
	}
	p.worker("w2", backend)
	p.once(late)
}

func TestDrainThatTakesTooLong(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body          string
		deterministic bool
		at            int
		text          string
		code          schemas.Code
		attempts      int
	}{
		"before the first token":  {body: sampled, text: "one two three", attempts: 2},
		"a unary request":         {body: whole, text: "one two three", attempts: 2},
		"continuable":             {body: greedy, deterministic: true, at: 2, text: "one two three", attempts: 2},
		"visible and not greedy":  {body: sampled, deterministic: true, at: 2, text: "one two ", code: schemas.CodeShutdown, attempts: 1},
		"visible and no telling":  {body: greedy, at: 2, text: "one two ", code: schemas.CodeShutdown, attempts: 1},
		"at the end, continuable": {body: greedy, deterministic: true, at: 3, text: "one two three", attempts: 2},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			id := identity("r1")
			live := p.reader(id)
			held := stallAt(1, c.at)
			w := p.worker("w1", &fake{words: three, deterministic: c.deterministic, gate: held.gate}, slots(1))
			item := p.dispatch(work("r1", 1, c.body))
			wait(t, "the call", held.reached)
			p.until("the claim", func() bool { return p.chain(id).Start() != nil })
			if c.body != whole {
				p.visible(id, uint64(c.at))
			}
			began := time.Now()
			w.stop()
			if took := time.Since(began); took > patience/2 {
				t.Errorf("stopping took %v", took)
			}
			wait(t, "the end of the call", held.ended)
			p.worker("w2", &fake{words: three, deterministic: c.deterministic})
			if seen := live(); seen.text != c.text || seen.code() != c.code {
				t.Errorf("the reader saw %q and %q, want %q and %q", seen.text, seen.code(), c.text, c.code)
			}
			if r := p.ended(id); r.Attempts != c.attempts {
				t.Errorf("%d attempts", r.Attempts)
			}
			p.until("the word of w1", func() bool { return len(p.tap.words(item, 1)) > 0 })
			want := map[int]string{1: "+ACK", 2: "-NAK"}[c.attempts]
			if says := p.tap.words(item, 1); len(says) != 1 || says[0] != want {
				t.Errorf("w1 said %v, want %s", says, want)
			}
		})
	}
}

// Workers that are restarted one after the other do not make a request look like one that kills workers.
func TestHandingBackIsNoKill(t *testing.T) {
	t.Parallel()
	p := setup(t)
	id := identity("r1")
	live := p.reader(id)
	for n := 1; n <= 5; n++ {
		held := stallAt(1, 2)
		w := p.worker(fmt.Sprintf("w%d", n), &fake{words: three, deterministic: true, gate: held.gate}, slots(1))
		if n == 1 {
			p.send("r1", greedy)
		}
		wait(t, "the call", held.reached)
		p.until("the claim", func() bool { return p.chain(id).Attempts() == n })
		p.visible(id, 2)
		w.stop()
	}
	p.worker("w6", &fake{words: three, deterministic: true})
	if seen := live(); seen.text != "one two three" || seen.code() != "" {
		t.Errorf("the reader saw %q and %q", seen.text, seen.code())
	}
	if r := p.ended(id); r.Attempts != 6 || r.Events.Count != 4 {
		t.Errorf("%d attempts, %d events", r.Attempts, r.Events.Count)
	}
}

// A worker that must stop while it watches another's chain leaves the item to the next.
func TestDrainWhileWatching(t *testing.T) {
	t.Parallel()
	p := setup(t)
	id := identity("r1")
	p.append(id, started(1, 1))
	p.append(id, &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Writer: "other", Count: 1, Data: event(1, "one ", "null").Data})
	backend := &fake{words: three}
	w := p.worker("w1", backend)
	item := p.dispatch(work("r1", 1, sampled))
	p.until("the lost claim", func() bool { return backend.calls.Load() == 1 && backend.running.Load() == 0 })
	w.stop()
	p.worker("w2", backend)
	if got := p.read(id); got.text != "one " || got.code() != schemas.CodeUpstreamInterrupted {
		t.Errorf("got %q and %q", got.text, got.code())
	}
	p.ended(id)
	p.until("the word of w1", func() bool { return len(p.tap.words(item, 1)) > 0 })
	if says := p.tap.words(item, 1); len(says) != 1 || says[0] != "-NAK" {
		t.Errorf("w1 said %v", says)
	}
}

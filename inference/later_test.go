package inference_test

import (
	"context"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/faulty"
	"github.com/weir-llm/weir/schemas"
)

// batch is an item that may wait.
func batch(id string, number int) *schemas.Work {
	w := work(id, number, sampled)
	w.Priority, w.Deadline = schemas.PriorityBatch, time.Now().Add(time.Hour)
	return w
}

// outage is a backend that answers only when it is told that it is well again.
type outage struct {
	fake
	well atomic.Bool
}

func newOutage(failure *schemas.Error) *outage {
	o := &outage{fake: fake{words: three}}
	o.gate = func(context.Context, int, int) error {
		if o.well.Load() {
			return nil
		}
		return failure
	}
	return o
}

func away() *schemas.Error {
	return schemas.Errorf(schemas.CodeRateLimit, "too many requests").WithRetryAfter(30 * time.Second)
}

// held waits until a request is held, and returns what is.
func (p *pipe) held(id schemas.Identity, dispatch int) *schemas.Work {
	p.t.Helper()
	var w *schemas.Work
	p.until("the request is held", func() bool {
		var err error
		w, err = p.bus.Held(p.t.Context(), id)
		return err == nil && w.Dispatch == dispatch
	})
	return w
}

func TestBatchRequestIsPutOff(t *testing.T) {
	t.Parallel()
	p := setup(t)
	events := make(chan *schemas.RetryEvent, 4)
	stop, err := p.bus.OnHeld(func(e *schemas.RetryEvent) { events <- e })
	if err != nil {
		t.Fatal(err)
	}
	defer stop()
	w := p.worker("w1", newOutage(away()))
	first := batch("r1", 1)
	p.gone(p.dispatch(first))
	held := p.held(identity("r1"), 2)
	if held.Priority != schemas.PriorityBatch || string(held.Body) != sampled || held.Deadline.UnixMilli() != first.Deadline.UnixMilli() || held.Accepted.UnixMilli() != first.Accepted.UnixMilli() {
		t.Errorf("held: %+v", held)
	}
	select {
	case e := <-events:
		if e.Request != "r1" || e.Dispatch != 2 || e.Code != schemas.CodeRateLimit || e.By != "w1" || time.Until(e.At) < 20*time.Second {
			t.Errorf("event %+v", e)
		}
	case <-time.After(patience):
		t.Fatal("no event")
	}
	if n := w.counter(t, "weir_inference_held_total"); n != 1 {
		t.Errorf("%v were held", n)
	}
	chain := p.chain(identity("r1"))
	if last := chain.Last(); !last.GivenUp() || chain.Attempts() != 1 || chain.Visible() {
		t.Errorf("the chain ends with %s", last.Header())
	}
	w.stop()
	p.worker("w2", &fake{words: three})
	p.dispatch(held)
	if got := p.read(identity("r1")); got.text != "one two three" || got.code() != "" {
		t.Errorf("got %q and %q", got.text, got.code())
	}
	if r := p.ended(identity("r1")); r.Attempts != 2 || r.Dispatch != 2 {
		t.Errorf("%d attempts, dispatch %d", r.Attempts, r.Dispatch)
	}
}

// Nobody but a batch request waits, and it only for what may pass.
func TestWhoIsNotPutOff(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		priority schemas.Priority
		failure  *schemas.Error
	}{
		"interactive":     {schemas.PriorityInteractive, away()},
		"normal":          {"", away()},
		"a wrong request": {schemas.PriorityBatch, schemas.Errorf(schemas.CodeUpstreamRejected, "no")},
		"no account":      {schemas.PriorityBatch, schemas.Errorf(schemas.CodeUpstreamAuth, "no")},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			p.worker("w1", newOutage(c.failure))
			w := batch("r1", 1)
			w.Priority = c.priority
			p.dispatch(w)
			if got := p.read(identity("r1")); got.code() != c.failure.Code {
				t.Errorf("got %q, want %q", got.code(), c.failure.Code)
			} else if e, err := schemas.DecodeError(got.terminal.Data); err != nil || e.RetryAfter != c.failure.RetryAfter {
				t.Errorf("retry after %v, want %v", e.RetryAfter, c.failure.RetryAfter)
			}
			p.ended(identity("r1"))
			if any, err := p.bus.AnyHeld(t.Context()); err != nil || any {
				t.Errorf("something is held, or: %v", err)
			}
		})
	}
}

// A worker that dies between holding a request and acknowledging its item leaves both. Whatever the item comes to then,
// there is one result, and what is held anew has a number of its own.
func TestDeathAroundTheHold(t *testing.T) {
	t.Parallel()
	for name, well := range map[string]bool{"the model is back": true, "the model is still away": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			id := identity("r1")
			p.append(id, started(1, 1))
			p.append(id, &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Writer: "other"})
			next := batch("r1", 2)
			if err := p.bus.Hold(t.Context(), next, time.Now().Add(time.Hour)); err != nil {
				t.Fatal(err)
			}
			backend := newOutage(away())
			backend.well.Store(well)
			w := p.worker("w1", backend)
			p.gone(p.dispatch(batch("r1", 1)))
			if !well {
				next = p.held(id, 3)
				w.stop()
				p.worker("w2", &fake{words: three})
			}
			p.dispatch(next)
			if got := p.read(id); got.text != "one two three" || got.code() != "" {
				t.Errorf("got %q and %q", got.text, got.code())
			}
			p.ended(id)
		})
	}
}

// A worker that is paused while it puts a request off loses it to another, which puts it off as well. What the first then stores
// takes the place of what is held, and it must be as good.
func TestHoldOfAZombie(t *testing.T) {
	t.Parallel()
	p := setup(t)
	id := identity("r1")
	between := newProxy(t, p.server)
	a := p.workerOn(between.connect(t, lease), "a", newOutage(away()), slots(1))
	paused := between.pauseAt("HPUB llm.retry.hold", false)
	item := p.dispatch(batch("r1", 1))
	wait(t, "the hold", paused.sprung)
	p.tap.nak(item, 1)
	b := p.worker("b", newOutage(away()))
	next := p.held(id, 3)
	b.stop() // it would take nothing for as long as its model asks for
	c := p.worker("c", newOutage(away()))
	p.dispatch(next)
	p.held(id, 4)
	between.resume()
	late := p.held(id, 2)
	p.until("the zombie to notice", func() bool { return a.counter(t, "weir_inference_lost_runs_total") == 1 })
	if says := p.tap.words(item, 1); len(says) != 1 { // the test's own
		t.Errorf("the zombie said %v", says)
	}
	a.stop()
	c.stop()
	p.worker("d", &fake{words: three})
	p.dispatch(late)
	if got := p.read(id); got.text != "one two three" || got.code() != "" {
		t.Errorf("got %q and %q", got.text, got.code())
	}
	p.ended(id)
}

// What is held is due before the worker that put it off has acknowledged its item.
func TestDueBeforeTheAcknowledgement(t *testing.T) {
	t.Parallel()
	p := setup(t)
	id := identity("r1")
	beats := p.beats()
	between := newProxy(t, p.server)
	p.workerOn(between.connect(t, lease), "a", newOutage(away()), slots(1))
	paused := between.pauseAt("HPUB llm.retry.hold", true)
	first := p.dispatch(batch("r1", 1))
	wait(t, "the hold", paused.sprung)
	due := p.held(id, 2)
	p.worker("b", &fake{words: three})
	second := p.dispatch(due)
	p.until("it is let go", func() bool { return beats.released(second) > 0 })
	between.resume()
	p.gone(first)
	if got := p.read(id); got.text != "one two three" || got.code() != "" {
		t.Errorf("got %q and %q", got.text, got.code())
	}
	p.ended(id)
}

// A draining worker hands back what another can continue from its text.
func TestDrainHandsBackWhatGoesOn(t *testing.T) {
	t.Parallel()
	p := setup(t)
	held := stallAt(1, 2)
	first := &continuing{fake: fake{words: three, gate: held.gate}}
	w := p.worker("w1", first, slots(1))
	live := p.reader(identity("r1"))
	item := p.dispatch(work("r1", 1, sampled))
	wait(t, "the call", held.reached)
	p.visible(identity("r1"), 2)
	w.stop()
	p.until("the word of w1", func() bool { return len(p.tap.words(item, 1)) > 0 })
	if says := p.tap.words(item, 1); len(says) != 1 || says[0] != "-NAK" {
		t.Errorf("w1 said %v", says)
	}
	p.worker("w2", &continuing{fake: fake{words: []string{" three"}}}, slots(1)) // the space at the end was not given to it
	if seen := live(); seen.text != "one two three" || seen.code() != "" {
		t.Errorf("the reader saw %q and %q", seen.text, seen.code())
	}
	p.ended(identity("r1"))
	if got := modes(p.chain(identity("r1"))); got != "fresh continue" {
		t.Errorf("modes %s", got)
	}
}

// continuing is a backend that goes on from text.
type continuing struct{ fake }

func (c *continuing) Capabilities() inference.Capabilities {
	return inference.Capabilities{Continue: inference.ContinueText}
}

// What names the request is waited out a few times; an outage is waited out until the deadline.
func TestWhatIsWaitedFor(t *testing.T) {
	t.Parallel()
	const most = 5
	for name, c := range map[string]struct {
		reply  faulty.Reply
		before int // failures of its own so far
		after  int // -1 = it is not waited for any more
	}{
		"500 for the first time": {faulty.Fails(500), 0, 1},
		"500 once more":          {faulty.Fails(500), most - 1, most},
		"500 too often":          {faulty.Fails(500), most, -1},
		"a reset too often":      {faulty.Resets(), most, -1},
		"a cut too often":        {faulty.Cuts(0), most, -1},
		"503":                    {faulty.Fails(503), most, most},
		"429":                    {faulty.Limits(30), most, most},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			server := faulty.New(t, faulty.OpenAI(), c.reply)
			p.models(map[string]inference.Model{"m": {Backends: p.behind(4, server), Retry: inference.Retry{MaxTries: 1}}})
			w := batch("r1", 9)
			w.Failures = c.before
			item := p.dispatch(w)
			if c.after >= 0 {
				p.gone(item)
				if held := p.held(identity("r1"), 10); held.Failures != c.after {
					t.Errorf("held after %d failures of its own, want %d", held.Failures, c.after)
				}
				return
			}
			got := p.read(identity("r1"))
			e, err := schemas.DecodeError(got.terminal.Data)
			if err != nil || !strings.Contains(e.Message, "tried again 5 times") {
				t.Errorf("it ended in %s, %v", got.terminal.Data, err)
			}
			if r := p.ended(identity("r1")); !strings.Contains(string(r.Error), "tried again 5 times") {
				t.Errorf("the result says %s", r.Error)
			}
			if any, err := p.bus.AnyHeld(t.Context()); err != nil || any {
				t.Errorf("something is held, or: %v", err)
			}
		})
	}
}

package inference_test

import (
	"context"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

// cancelled waits for the ending that a cancel must have.
func (p *pipe) cancelled(id schemas.Identity, text string) *schemas.Result {
	p.t.Helper()
	if got := p.read(id); got.text != text || got.code() != schemas.CodeCancelled {
		p.t.Errorf("got %q and %q", got.text, got.code())
	}
	r := p.ended(id)
	if r.Status != schemas.StatusCancelled {
		p.t.Errorf("status %s", r.Status)
	}
	return r
}

func TestCancel(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body string
		at   int
		text string
	}{
		"before the first token": {body: sampled},
		"in the middle":          {body: greedy, at: 2, text: "one two "},
		"a unary request":        {body: whole, at: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			held := stallAt(1, c.at)
			p.worker("w1", &fake{words: three, deterministic: true, gate: held.gate})
			id := p.send("r1", c.body)
			wait(t, "the call", held.reached)
			began := time.Now()
			if err := p.bus.Cancel(id, schemas.CancelledByCaller); err != nil {
				t.Fatal(err)
			}
			wait(t, "the end of the call", held.ended)
			if took := time.Since(began); took > patience/2 { // on a loaded machine
				t.Errorf("the call ended after %v", took)
			}
			r := p.cancelled(id, c.text)
			if len(r.Tries) != 1 || r.Tries[0].Outcome != schemas.CodeCancelled {
				t.Errorf("tries %+v", r.Tries)
			}
		})
	}
}

func TestCancelWhileRetrying(t *testing.T) {
	t.Parallel()
	p := setup(t)
	backend := &fake{words: three, gate: func(context.Context, int, int) error {
		return schemas.Errorf(schemas.CodeUpstreamError, "not now")
	}}
	p.worker("w1", backend, model(func(m *inference.Model) { m.Retry = inference.Retry{Initial: time.Minute, Max: time.Minute} }))
	id := p.send("r1", sampled)
	p.until("a failed call", func() bool { return backend.calls.Load() == 1 && backend.running.Load() == 0 })
	p.until("the claim", func() bool { return p.chain(id).Start() != nil })
	if err := p.bus.Cancel(id, schemas.CancelledByCaller); err != nil {
		t.Fatal(err)
	}
	r := p.cancelled(id, "")
	if n := backend.calls.Load(); n != 1 || len(r.Tries) != 1 || r.Tries[0].Outcome != schemas.CodeUpstreamError {
		t.Errorf("%d calls, tries %+v", n, r.Tries)
	}
}

// Whoever cancels ends the chain himself when no worker does; the worker that gets the item makes the result.
func TestCancelBeforeAWorkerIsThere(t *testing.T) {
	t.Parallel()
	p := setup(t)
	id := p.send("r1", sampled)
	if err := p.bus.CancelRequest(t.Context(), id, schemas.Errorf(schemas.CodeCancelled, "the request was cancelled")); err != nil {
		t.Fatal(err)
	}
	p.worker("w1", &fake{words: three})
	if r := p.cancelled(id, ""); r.Attempts != 0 {
		t.Errorf("%d attempts", r.Attempts)
	}
}

// A worker that did not hear the hint finds the chain ended with its next frame.
func TestCancelThatTheWorkerDidNotHear(t *testing.T) {
	t.Parallel()
	p := setup(t)
	held := stallAt(1, 1)
	w := p.worker("w1", &fake{words: three, gate: held.gate})
	id := p.send("r1", sampled)
	wait(t, "the call", held.reached)
	p.visible(id, 1)
	p.append(id, &schemas.Frame{
		Kind: schemas.KindError, Attempt: 1, Writer: "caller", Index: 1, Data: schemas.Errorf(schemas.CodeCancelled, "stop").Encode(),
	})
	held.open()
	p.cancelled(id, "one ")
	if n := w.counter(t, "weir_inference_lost_runs_total"); n != 1 {
		t.Errorf("%v lost runs", n)
	}
}

package inference_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/echo"
	"github.com/weir-llm/weir/schemas"
)

// failing gates the first n calls with an error before word i.
func failing(n, at int, code schemas.Code) func(context.Context, int, int) error {
	return func(_ context.Context, call, i int) error {
		if call <= n && i == at {
			return schemas.Errorf(code, "the model failed")
		}
		return nil
	}
}

func TestFailingBackend(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		body  string
		gate  func(context.Context, int, int) error
		text  string
		code  schemas.Code
		calls int32
	}{
		"passing, before the first token":   {body: sampled, gate: failing(2, 0, schemas.CodeOverloaded), text: "one two three", calls: 3},
		"lasting, before the first token":   {body: sampled, gate: failing(9, 0, schemas.CodeOverloaded), code: schemas.CodeOverloaded, calls: 3},
		"the request is wrong":              {body: sampled, gate: failing(9, 0, schemas.CodeUpstreamRejected), code: schemas.CodeUpstreamRejected, calls: 1},
		"the key is wrong":                  {body: sampled, gate: failing(9, 0, schemas.CodeUpstreamAuth), code: schemas.CodeUpstreamAuth, calls: 1},
		"after the first token":             {body: sampled, gate: failing(1, 1, schemas.CodeUpstreamInterrupted), text: "one ", code: schemas.CodeUpstreamInterrupted, calls: 1},
		"at the end":                        {body: greedy, gate: failing(1, 3, schemas.CodeUpstreamInterrupted), text: "one two three", code: schemas.CodeUpstreamInterrupted, calls: 1},
		"passing, of a unary request":       {body: whole, gate: failing(1, 2, schemas.CodeUpstreamError), text: "one two three", calls: 2},
		"lasting, of a unary request":       {body: whole, gate: failing(9, 2, schemas.CodeUpstreamError), code: schemas.CodeUpstreamError, calls: 3},
		"with an error that has no code":    {body: sampled, gate: func(context.Context, int, int) error { return context.Canceled }, code: schemas.CodeInternal, calls: 1},
		"that says the caller cancelled it": {body: sampled, gate: failing(9, 0, schemas.CodeCancelled), code: schemas.CodeCancelled, calls: 1},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			backend := &fake{words: three, gate: c.gate}
			p.worker("w1", backend, model(func(m *inference.Model) { m.Retry = inference.Retry{Initial: time.Millisecond, Max: time.Millisecond} }))
			id := p.send("r1", c.body)
			if got := p.read(id); got.text != c.text || got.code() != c.code {
				t.Errorf("got %q and %q", got.text, got.code())
			}
			r := p.ended(id)
			if n := backend.calls.Load(); n != c.calls || len(r.Tries) != int(n) || r.Attempts != 1 {
				t.Errorf("%d calls, tries %+v, %d attempts", n, r.Tries, r.Attempts)
			}
			if last := r.Tries[len(r.Tries)-1]; last.Outcome != c.code || last.Backend != "fake" {
				t.Errorf("last try %+v", last)
			}
		})
	}
}

// An upstream that just stops has not answered.
func TestStreamThatEndsTooEarly(t *testing.T) {
	t.Parallel()
	p := setup(t)
	backend, err := echo.New(echo.Config{Name: "echo"})
	if err != nil {
		t.Fatal(err)
	}
	p.worker("w1", backend, model(func(m *inference.Model) { m.Retry = inference.Retry{Initial: time.Millisecond, Max: time.Millisecond} }))
	for name, c := range map[string]struct{ dial, text string }{
		"empty":                    {`"cut":0`, ""},
		"without a finish_reason":  {`"cut":2`, "echo: hi "},
		"garbage after two tokens": {`"garbage":2`, "echo: hi "},
	} {
		t.Run(name, func(t *testing.T) {
			id := p.send(strings.ReplaceAll(name, " ", "_"), `{"model":"m","stream":true,"x_echo":{`+c.dial+`},"messages":[{"role":"user","content":"hi there"}]}`)
			got := p.read(id)
			if got.text != c.text || got.code() == "" {
				t.Errorf("got %q and %q", got.text, got.code())
			}
			if r := p.ended(id); r.Status != schemas.StatusFailed {
				t.Errorf("status %s", r.Status)
			}
		})
	}
}

func TestPanicOfABackend(t *testing.T) {
	t.Parallel()
	p := setup(t)
	held := stallAt(1, 1)
	backend := &fake{words: three, deterministic: true, gate: func(ctx context.Context, call, i int) error {
		if call == 2 && i == 1 {
			panic("the backend has a bug")
		}
		return held.gate(ctx, call, i)
	}}
	p.worker("w1", backend)
	neighbour := p.send("neighbour", sampled)
	wait(t, "the neighbour's call", held.reached)
	id := p.send("r1", greedy)
	p.visible(id, 1)
	held.open()
	p.once(neighbour)
	if got := p.read(id); got.text != "one two three" || got.code() != "" {
		t.Errorf("got %q and %q", got.text, got.code())
	}
	if r := p.ended(id); r.Attempts != 2 {
		t.Errorf("%d attempts", r.Attempts)
	}
}

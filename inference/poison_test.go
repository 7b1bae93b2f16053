package inference_test

import (
	"context"
	"strings"
	"testing"

	"github.com/weir-llm/weir/schemas"
)

func TestRequestThatKillsWorkers(t *testing.T) {
	t.Parallel()
	p := setup(t)
	calm := stallAt(1, 1)
	backend := &fake{words: three, gate: func(ctx context.Context, call, i int) error {
		if call > 1 {
			panic("the backend has a bug")
		}
		return calm.gate(ctx, call, i)
	}}
	p.worker("w1", backend)
	neighbour := p.send("neighbour", sampled)
	wait(t, "the neighbour's call", calm.reached)
	p.visible(neighbour, 1)
	item := p.dispatch(work("r1", 1, sampled))
	id := identity("r1")
	for n := 1; n <= 2; n++ {
		p.until("a lost attempt", func() bool { return p.chain(id).Attempts() == n && backend.running.Load() == 1 })
		p.tap.nak(item, n+1) // the neighbour's was the first delivery
	}
	if p.chain(neighbour).Terminal() != nil {
		t.Error("the neighbour has ended")
	}
	calm.open() // a third time it runs alone
	p.once(neighbour)
	p.until("the last attempt", func() bool { return p.chain(id).Attempts() == 3 && backend.running.Load() == 0 })
	p.tap.nak(item, 4)
	if got := p.read(id); got.text != "" || got.code() != schemas.CodePoison {
		t.Errorf("got %q and %q", got.text, got.code())
	}
	if r := p.ended(id); r.Attempts != 3 || r.Status != schemas.StatusFailed {
		t.Errorf("%s after %d attempts", r.Status, r.Attempts)
	}
	letter := p.tap.letters(1)[0]
	if letter.subject != "llm.dlq.acme.m" || letter.body != sampled || !strings.Contains(letter.header, "3 workers were lost") {
		t.Errorf("letter %+v", letter)
	}
}

func TestThreeLostWorkersInTheMiddle(t *testing.T) {
	t.Parallel()
	p := setup(t)
	id := identity("r1")
	for attempt := 1; attempt <= 3; attempt++ {
		f := started(1, 1)
		f.Attempt, f.Index = attempt, uint64(attempt-1)
		p.append(id, f)
		p.append(id, &schemas.Frame{Kind: schemas.KindDelta, Attempt: attempt, Writer: "other", Index: f.Index, Count: 1, Data: event(1, three[attempt-1], "null").Data})
	}
	p.worker("w1", &fake{words: three, deterministic: true})
	p.send("r1", greedy)
	if got := p.read(id); got.text != "one two three" || got.code() != schemas.CodePoison {
		t.Errorf("got %q and %q", got.text, got.code())
	}
	if r := p.ended(id); r.Attempts != 3 {
		t.Errorf("%d attempts", r.Attempts)
	}
	p.tap.letters(1)
}

// Whoever finds a dead request's result stored makes sure of its dead letter.
func TestDeadLetterThatWasNotWritten(t *testing.T) {
	t.Parallel()
	p := setup(t)
	id := identity("r1")
	p.append(id, started(1, 1))
	p.append(id, &schemas.Frame{
		Kind: schemas.KindError, Attempt: 1, Writer: "other", Data: schemas.Errorf(schemas.CodePoison, "3 workers were lost").Encode(),
	})
	kept := &schemas.Result{V: schemas.Version, Tenant: id.Tenant, RequestID: id.Request, Model: "m", Status: schemas.StatusFailed}
	if err := p.bus.PutResult(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	p.worker("w1", &fake{words: three})
	item := p.dispatch(work("r1", 1, sampled))
	if letter := p.tap.letters(1)[0]; letter.body != sampled || !strings.Contains(letter.header, "3 workers were lost") {
		t.Errorf("letter %+v", letter)
	}
	p.gone(item)
}

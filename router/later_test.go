package router_test

import (
	"errors"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/schemas"
)

// held puts a request off, as a worker does that no model server answers.
func (p *pipeline) held(id string, deadline, until time.Time) *schemas.Work {
	p.t.Helper()
	w := &schemas.Work{
		Request: schemas.Request{
			Identity: acme(id), ModelToken: "m", Op: schemas.OpChat, Priority: schemas.PriorityBatch, Deadline: deadline, Body: []byte(body),
		},
		Dispatch: 2, Failures: 3, Accepted: time.Now().Add(-time.Minute).Truncate(time.Millisecond),
	}
	start := &schemas.Frame{Kind: schemas.KindStart, Attempt: 1, Writer: "w", Start: &schemas.Start{Mode: schemas.ModeFresh, Work: 99, Dispatch: 1, Worker: "w1"}}
	sequence, err := p.bus.Append(p.ctx, w.Identity, 0, start)
	if err == nil {
		_, err = p.bus.Append(p.ctx, w.Identity, sequence, &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Writer: "w"})
	}
	if err == nil {
		err = p.bus.Hold(p.ctx, w, until)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.bus.Event(schemas.EventRetry, (&schemas.RetryEvent{V: 1, Tenant: "acme", Request: id, Model: "m", Dispatch: 2, At: until}).Encode())
	return w
}

func (p *pipeline) wantNothingHeld() {
	p.t.Helper()
	p.poll("nothing to be held", func() bool { return p.messages(schemas.StreamRetry) == 0 })
}

func TestHeldRequestIsDispatchedWhenItIsDue(t *testing.T) {
	p := setup(t)
	p.route()
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 4})
	until := time.Now().Add(2 * time.Second)
	want := p.held("later-1", time.Now().Add(time.Hour).Truncate(time.Millisecond), until)
	got := p.work(1)
	if time.Now().Before(until) {
		t.Errorf("dispatched %v too early", time.Until(until))
	}
	if got.Identity != want.Identity || got.Dispatch != 2 || got.Failures != 3 || !got.Accepted.Equal(want.Accepted) || !got.Deadline.Equal(want.Deadline) ||
		got.Priority != want.Priority || string(got.Body) != body {
		t.Errorf("dispatched %+v, held %+v", got, want)
	}
	p.wantNothingHeld()
}

// What becomes due while no router lives is dispatched by the next, as is what one had that was stopped.
func TestHeldRequestOutlivesRouters(t *testing.T) {
	p := setup(t)
	stop := p.route()
	p.held("later-1", time.Now().Add(time.Hour), time.Now())
	p.poll("the first router to have it", func() bool { return p.queued() == 1 })
	stop()
	p.held("later-2", time.Now().Add(time.Hour), time.Now())
	p.routeOn(router.Config{Bus: p.bus, Name: "r2"})
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 4})
	p.work(1)
	p.work(2)
	p.wantNothingHeld()
}

// The deadline of a request that is held passes while nobody is there: it has one result all the same.
func TestHeldRequestExpires(t *testing.T) {
	p := setup(t)
	deadline := time.Now().Add(time.Second)
	p.held("later-1", deadline, deadline)
	p.poll("the deadline", func() bool { return time.Now().After(deadline) })
	p.route()
	r := p.wantAnswer("later-1", schemas.CodeDeadline, schemas.StatusExpired)
	if r.Attempts != 1 {
		t.Errorf("%d attempts", r.Attempts)
	}
	p.wantNothingHeld()
	if n := p.messages(schemas.StreamWork); n != 0 {
		t.Errorf("%d work items", n)
	}
}

func TestHeldRequestIsCancelled(t *testing.T) {
	p := setup(t)
	p.route()
	p.held("later-1", time.Now().Add(2*time.Hour), time.Now().Add(time.Hour))
	p.poll("the router to know of it", func() bool {
		if err := p.bus.Cancel(acme("later-1"), schemas.CancelledByCaller); err != nil {
			t.Fatal(err)
		}
		_, err := p.bus.Result(p.ctx, acme("later-1"))
		return err == nil
	})
	if r := p.wantAnswer("later-1", schemas.CodeCancelled, schemas.StatusCancelled); r.CancelledBy != schemas.CancelledByCaller {
		t.Errorf("cancelled by %q", r.CancelledBy)
	}
	p.wantNothingHeld()
}

// Whoever cancels while no router lives ends the chain; the result follows when the request is due, and nothing runs.
func TestHeldRequestThatHasEnded(t *testing.T) {
	p := setup(t)
	p.held("later-1", time.Now().Add(time.Hour), time.Now())
	if err := p.bus.CancelRequest(p.ctx, acme("later-1"), schemas.Cancelled(schemas.CancelledByOperator)); err != nil {
		t.Fatal(err)
	}
	if _, err := p.bus.Result(p.ctx, acme("later-1")); !errors.Is(err, bus.ErrNotFound) {
		t.Fatalf("there is a result already, or: %v", err)
	}
	p.route()
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 4})
	if r := p.wantAnswer("later-1", schemas.CodeCancelled, schemas.StatusCancelled); r.CancelledBy != schemas.CancelledByOperator {
		t.Errorf("cancelled by %q", r.CancelledBy)
	}
	p.wantNothingHeld()
	if n := p.messages(schemas.StreamWork); n != 0 {
		t.Errorf("%d work items", n)
	}
}

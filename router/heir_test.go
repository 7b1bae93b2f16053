package router_test

import (
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/schemas"
)

// heir asks who inherits the run of a request, as its worker does, until a router answers; nil is nobody.
func (p *pipeline) heir(id string) (heir *schemas.Work) {
	p.t.Helper()
	p.poll("an answer who inherits "+id, func() bool {
		var err error
		heir, err = p.bus.Heir(p.ctx, "m", acme(id))
		if err != nil && !errors.Is(err, bus.ErrUnanswered) {
			p.t.Fatal(err)
		}
		return err == nil
	})
	return heir
}

// wantHeir asks as heir does.
func (p *pipeline) wantHeir(id, want string) *schemas.Work {
	p.t.Helper()
	heir := p.heir(id)
	if heir == nil || heir.Identity != acme(want) || !heir.Shared || string(heir.Body) != streamed {
		p.t.Fatalf("the heir of %s is %+v, want %s", id, heir, want)
	}
	return heir
}

// pass ends a leader whose run its worker hands on, as the worker does.
func (p *pipeline) pass(id string, attempt int, heir string) {
	p.t.Helper()
	p.append(id, &schemas.Frame{
		Kind: schemas.KindError, Attempt: attempt, Writer: fmt.Sprint("W", attempt), Data: schemas.Cancelled(schemas.CancelledByCaller).Encode(), Heir: heir,
		Summary: (&schemas.Summary{Status: schemas.StatusCancelled, CancelledBy: schemas.CancelledByCaller}).Encode(),
	})
}

// inherit claims the chain of an heir for the run of an item.
func (p *pipeline) inherit(id string, attempt int, work uint64) {
	p.t.Helper()
	p.append(id, &schemas.Frame{
		Kind: schemas.KindStart, Attempt: attempt, Writer: fmt.Sprint("W", attempt),
		Start: &schemas.Start{Mode: schemas.ModeInherit, Work: work, Dispatch: 1, Worker: "w1"},
	})
}

// copied waits until a follower has been given that many events.
func (p *pipeline) copied(id string, events uint64) {
	p.t.Helper()
	p.poll(fmt.Sprint(events, " events of ", id), func() bool {
		chain, err := p.bus.Chain(p.ctx, acme(id))
		return err == nil && chain.Next() == events
	})
}

// acked removes an item of LLM_WORK as its worker does when it is done.
func (p *pipeline) acked(sequence uint64) {
	p.t.Helper()
	s, err := p.js.Stream(p.ctx, schemas.StreamWork)
	if err != nil {
		p.t.Fatal(err)
	}
	if err := s.DeleteMsg(p.ctx, sequence); err != nil {
		p.t.Fatal(err)
	}
}

// wantOwn checks the answer of an heir, which its worker has written and the router has let go.
func (p *pipeline) wantOwn(id string, events int) {
	p.t.Helper()
	texts, terminal := p.told(id)
	if len(texts) != events || terminal.Kind != schemas.KindEnd {
		p.t.Errorf("%s has %d events and ended with %s, want %d and an end", id, len(texts), terminal.Kind, events)
	}
	if r := p.result(id); r.Status != schemas.StatusCompleted || r.Cache != "" {
		p.t.Errorf("the result of %s: %s, cache %q", id, r.Status, r.Cache)
	}
}

// The worker of a leader that is cancelled asks who comes next, and goes on in that one's chain. The others follow it there.
func TestAFollowerInheritsTheRun(t *testing.T) {
	for _, followers := range []int{1, 3} {
		t.Run(fmt.Sprint(followers), func(t *testing.T) {
			p := shared(t)
			p.publish("m", streamed, withID("req_lead"))
			p.work(1)
			for n := range followers {
				p.publish("m", streamed, withID(fmt.Sprint("req_", n)))
				p.follows(fmt.Sprint("req_", n), "req_lead")
			}
			p.start("req_lead", 1, 1)
			p.say("req_lead", 1, "a", "b")
			for n := range followers {
				p.copied(fmt.Sprint("req_", n), 2)
			}
			p.wantHeir("req_lead", "req_0")
			p.wantHeir("req_lead", "req_0") // should the answer be lost
			p.pass("req_lead", 1, "req_0")
			p.inherit("req_0", 2, 1)
			for n := 1; n < followers; n++ {
				p.follows(fmt.Sprint("req_", n), "req_0")
			}
			p.say("req_0", 2, "c")
			for n := 1; n < followers; n++ {
				p.copied(fmt.Sprint("req_", n), 3)
			}
			p.end("req_0", 2)
			p.acked(1)
			p.wantOwn("req_0", 3)
			for n := 1; n < followers; n++ {
				p.wantCopy(fmt.Sprint("req_", n), "a", "b", "c")
			}
			p.wantAllSettled()
			p.wantDispatches(1)
		})
	}
}

func TestWhoInheritsNothing(t *testing.T) {
	p := shared(t)
	p.publish("m", streamed, withID("req_lead"))
	p.work(1)
	p.publish("m", streamed, withID("req_0"))
	p.follows("req_0", "req_lead")
	if heir := p.heir("req_0"); heir != nil {
		t.Errorf("%s inherits the run of a follower", heir.Identity)
	}
	p.start("req_lead", 1, 1)
	p.say("req_lead", 1, "a")
	p.wantHeir("req_lead", "req_0")
	p.pass("req_lead", 1, "req_0")
	p.inherit("req_0", 2, 1)
	if heir := p.heir("req_0"); heir != nil { // the last one leaves
		t.Errorf("%s inherits a run that nobody shares", heir.Identity)
	}
	p.publish("m", streamed, withID("req_new"))
	if w := p.work(2); w.Identity.Request != "req_new" {
		t.Errorf("%s runs, want the request that came when the run was over", w.Identity)
	}
	p.pass("req_0", 2, "")
	p.acked(1)
	p.wantError("req_0", schemas.CodeCancelled)
	p.poll("the heir to be settled", func() bool { return p.messages(schemas.StreamRequests) == 0 })
	if r := p.result("req_0"); r.Status != schemas.StatusCancelled {
		t.Errorf("the result says %s", r.Status)
	}
}

// The worker is lost with the run, before or after it has claimed the heir's chain. The item that it held names the leader, so
// that the router has the heir run.
func TestTheWorkerOfAnInheritedRunIsLost(t *testing.T) {
	for name, claimed := range map[string]bool{"before the claim": false, "after the claim": true} {
		t.Run(name, func(t *testing.T) {
			p := shared(t)
			p.publish("m", streamed, withID("req_lead"))
			p.work(1)
			for _, id := range []string{"req_0", "req_1"} {
				p.publish("m", streamed, withID(id))
				p.follows(id, "req_lead")
			}
			p.start("req_lead", 1, 1)
			p.say("req_lead", 1, "a")
			p.copied("req_0", 1)
			p.wantHeir("req_lead", "req_0")
			p.pass("req_lead", 1, "req_0")
			if claimed {
				p.inherit("req_0", 2, 1)
				p.say("req_0", 2, "b")
			}
			p.acked(1) // whoever got it found that the leader had ended
			if w := p.work(2); w.Identity != acme("req_0") || w.Dispatch != 2 {
				t.Fatalf("%s is dispatched as %d, want the heir as 2", w.Identity, w.Dispatch)
			}
			p.follows("req_1", "req_0")
			chain, err := p.bus.Chain(p.ctx, acme("req_0"))
			if err != nil {
				t.Fatal(err)
			}
			attempt, next := chain.Attempts()+1, []string{"a", "b", "c"}
			p.start("req_0", attempt, 2)
			p.say("req_0", attempt, next[chain.Next():]...)
			p.end("req_0", attempt)
			p.wantCopy("req_1", next...)
			p.poll("the requests to be settled", func() bool { return p.messages(schemas.StreamRequests) == 0 })
			p.wantDispatches(2)
		})
	}
}

// An heir whose worker is lost, and which was cancelled, has an end all the same.
func TestACancelledHeirWhoseWorkerIsLost(t *testing.T) {
	p := shared(t)
	p.publish("m", streamed, withID("req_lead"))
	p.work(1)
	p.publish("m", streamed, withID("req_0"))
	p.follows("req_0", "req_lead")
	p.start("req_lead", 1, 1)
	p.wantHeir("req_lead", "req_0")
	p.pass("req_lead", 1, "req_0")
	p.inherit("req_0", 2, 1)
	if err := p.bus.Cancel(acme("req_0"), schemas.CancelledByCaller); err != nil {
		t.Fatal(err)
	}
	p.acked(1)
	p.wantError("req_0", schemas.CodeCancelled)
	p.wantAllSettled()
	p.wantDispatches(1)
}

// The router dies right after the leader was cancelled: before the worker has asked, before it has claimed the chain of the
// heir that it was told, or afterwards. The next router knows no less.
func TestTheRouterDiesWhenTheLeaderIsCancelled(t *testing.T) {
	for _, when := range []string{"before the question", "before the claim", "after the claim"} {
		t.Run(when, func(t *testing.T) {
			t.Parallel()
			server := bustest.Server(t)
			p := setupOn(t, server, bus.Config{Lease: time.Minute})
			proxy := bustest.NewProxy(t, server.ClientURL())
			far := bustest.Connect(t, server, bus.Config{Lease: time.Minute, URL: proxy.URL()})
			p.routeOn(sharing(far, "victim"))
			p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 100})
			p.publish("m", streamed, withID("req_lead"))
			p.work(1)
			const many = 3
			for n := range many {
				p.publish("m", streamed, withID(fmt.Sprint("req_", n)))
				p.follows(fmt.Sprint("req_", n), "req_lead")
			}
			p.start("req_lead", 1, 1)
			p.say("req_lead", 1, "a", "b")
			p.copied("req_0", 2)
			heir := "req_0"
			if when != "before the question" {
				p.wantHeir("req_lead", heir)
				p.pass("req_lead", 1, heir)
			}
			if when == "after the claim" {
				p.inherit(heir, 2, 1)
			}
			p.routeOn(sharing(p.bus, "standby"))
			proxy.Lead(nowhere)
			proxy.Cut()
			if when == "before the question" {
				p.pass("req_lead", 1, "")
				heir = p.heir("req_lead").Request.Request // it is asked again until it is there
			}
			if when != "after the claim" {
				p.claimHeir(heir)
			}
			p.say(heir, p.attempts(heir), "c")
			p.end(heir, p.attempts(heir))
			p.store(heir)
			p.acked(1)
			for n := range many {
				if id := fmt.Sprint("req_", n); id != heir {
					p.wantCopy(id, "a", "b", "c")
				}
			}
			p.wantOwn(heir, 3)
			p.wantAllSettled()
			p.wantDispatches(1)
			proxy.Lead(server.ClientURL())
		})
	}
}

func (p *pipeline) attempts(id string) int {
	p.t.Helper()
	chain, err := p.bus.Chain(p.ctx, acme(id))
	if err != nil {
		p.t.Fatal(err)
	}
	return chain.Attempts()
}

// claimHeir claims the chain of an heir and gives it what it lacks of "a" and "b", as a worker does against a router that may
// still be writing.
func (p *pipeline) claimHeir(id string) {
	p.t.Helper()
	p.poll("the chain of the heir", func() bool {
		chain, err := p.bus.Chain(p.ctx, acme(id))
		if err != nil {
			p.t.Fatal(err)
		}
		attempt := chain.Attempts() + 1
		_, err = p.bus.Append(p.ctx, acme(id), chain.Sequence(), &schemas.Frame{
			Kind: schemas.KindStart, Attempt: attempt, Writer: fmt.Sprint("W", attempt), Index: chain.Next(),
			Start: &schemas.Start{Mode: schemas.ModeInherit, Work: 1, Dispatch: 1, Worker: "w1"},
		})
		if err != nil && !errors.Is(err, bus.ErrFenced) {
			p.t.Fatal(err)
		}
		if rest := []string{"a", "b"}[chain.Next():]; err == nil && len(rest) > 0 {
			p.say(id, attempt, rest...)
		}
		return err == nil
	})
}

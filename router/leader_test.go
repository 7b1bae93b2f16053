package router_test

import (
	"fmt"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/schemas"
)

func TestAFailedLeaderIsReplacedOnce(t *testing.T) {
	p := shared(t)
	p.publish("m", streamed, withID("req_lead"))
	p.work(1)
	for n := range 3 {
		p.publish("m", streamed, withID(fmt.Sprint("req_", n)))
		p.follows(fmt.Sprint("req_", n), "req_lead")
	}
	failed := schemas.Errorf(schemas.CodeUpstreamError, "the model server failed; send the request again")
	p.start("req_lead", 1, 1)
	p.fail("req_lead", 1, failed)
	if w := p.work(2); w.Identity.Request != "req_0" {
		t.Fatalf("%s leads, want the one that came first", w.Identity)
	}
	p.follows("req_1", "req_0")
	p.follows("req_2", "req_0")
	p.start("req_0", 2, 2)
	p.fail("req_0", 2, failed)
	for _, id := range []string{"req_1", "req_2"} {
		p.wantError(id, schemas.CodeUpstreamError)
		if r := p.result(id); r.Status != schemas.StatusFailed || r.Cache != schemas.CacheCoalesced {
			t.Errorf("the result of %s: %s, %s", id, r.Status, r.Cache)
		}
	}
	p.wantAllSettled()
	p.wantDispatches(2)
}

func TestAFailureInTheMiddleEndsAll(t *testing.T) {
	p := shared(t)
	p.publish("m", streamed, withID("req_lead"))
	p.work(1)
	p.publish("m", streamed, withID("req_0"))
	p.follows("req_0", "req_lead")
	p.start("req_lead", 1, 1)
	p.say("req_lead", 1, "a")
	p.fail("req_lead", 1, schemas.Errorf(schemas.CodeUpstreamInterrupted, "the answer was cut"))
	if texts, _ := p.told("req_0"); len(texts) != 1 {
		t.Errorf("events %v, want what was said before the failure", texts)
	}
	p.wantError("req_0", schemas.CodeUpstreamInterrupted)
	p.wantAllSettled()
	p.wantDispatches(1)
}

// A leader that is cancelled in the middle is replaced by a follower, which a worker takes up where the leader stopped.
func TestACancelledLeaderIsReplaced(t *testing.T) {
	p := shared(t)
	p.publish("m", streamed, withID("req_lead"))
	p.work(1)
	for _, id := range []string{"req_0", "req_1"} {
		p.publish("m", streamed, withID(id))
		p.follows(id, "req_lead")
	}
	p.start("req_lead", 1, 1)
	p.say("req_lead", 1, "a", "b")
	if err := p.bus.CancelRequest(p.ctx, acme("req_lead"), schemas.Cancelled(schemas.CancelledByCaller)); err != nil {
		t.Fatal(err)
	}
	if w := p.work(2); w.Identity.Request != "req_0" {
		t.Fatalf("%s leads", w.Identity)
	}
	p.follows("req_1", "req_0")
	p.start("req_0", 3, 2)
	p.say("req_0", 3, "c")
	p.end("req_0", 3)
	p.wantCopy("req_1", "a", "b", "c")
	if texts, _ := p.told("req_0"); len(texts) != 3 {
		t.Errorf("the new leader has %d events, want 3", len(texts))
	}
	p.wantAllSettled()
}

func TestAQueuedLeaderIsReplaced(t *testing.T) {
	p := setup(t)
	p.registry = prometheus.NewRegistry()
	cfg := sharing(p.bus, "r1")
	cfg.Registerer = p.registry
	p.routeOn(cfg)
	p.publish("m", streamed, withID("req_lead"))
	p.poll("the leader to be queued", func() bool { return p.queued() == 1 })
	for _, id := range []string{"req_0", "req_1"} {
		p.publish("m", streamed, withID(id))
		p.follows(id, "req_lead")
	}
	if err := p.bus.CancelRequest(p.ctx, acme("req_lead"), schemas.Cancelled(schemas.CancelledByCaller)); err != nil {
		t.Fatal(err)
	}
	p.follows("req_1", "req_0")
	if err := p.bus.CancelRequest(p.ctx, acme("req_0"), schemas.Cancelled(schemas.CancelledByCaller)); err != nil {
		t.Fatal(err)
	}
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 10})
	if w := p.work(1); w.Identity.Request != "req_1" {
		t.Errorf("%s runs, want the one that is left", w.Identity)
	}
	p.wantError("req_lead", schemas.CodeCancelled)
	p.wantError("req_0", schemas.CodeCancelled)
	p.wantAllSettled()
}

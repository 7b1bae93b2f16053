package router_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/record"
	"github.com/weir-llm/weir/router"
	"github.com/weir-llm/weir/schemas"
)

// A router dies in the middle of copying. Another goes on, from where each chain stands.
func TestAnotherRouterGoesOnCopying(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	p := setupOn(t, server, bus.Config{Lease: time.Minute})
	proxy := bustest.NewProxy(t, server.ClientURL())
	far := bustest.Connect(t, server, bus.Config{Lease: time.Minute, URL: proxy.URL()})
	p.routeOn(sharing(far, "victim"))
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 100})
	p.publish("m", streamed, withID("req_lead"))
	p.work(1)
	const many = 20
	for n := range many {
		p.publish("m", streamed, withID(fmt.Sprint("req_", n)))
	}
	for n := range many {
		p.follows(fmt.Sprint("req_", n), "req_lead")
	}
	p.start("req_lead", 1, 1)
	p.say("req_lead", 1, "a", "b")
	p.poll("a copy to be under way", func() bool {
		chain, err := p.bus.Chain(p.ctx, acme("req_0"))
		return err == nil && chain.Next() == 2
	})
	p.routeOn(sharing(p.bus, "standby"))
	proxy.Lead(nowhere)
	proxy.Cut()
	p.say("req_lead", 1, "c")
	p.end("req_lead", 1)
	for n := range many {
		p.wantCopy(fmt.Sprint("req_", n), "a", "b", "c")
	}
	p.wantAllSettled()
	p.wantDispatches(1)
	proxy.Lead(server.ClientURL())
}

// A router dies in the middle of copying, and the whole answer is in the cache before the next one goes on. That says it
// another way, so that it would not fit behind what was copied.
func TestACopyGoesOnAlthoughItsAnswerIsKept(t *testing.T) {
	t.Parallel()
	server := bustest.Server(t)
	p := &cachedPipeline{pipeline: setupOn(t, server, bus.Config{Lease: time.Minute})}
	proxy := bustest.NewProxy(t, server.ClientURL())
	far := bustest.Connect(t, server, bus.Config{Lease: time.Minute, URL: proxy.URL()})
	keeping := func(b *bus.Bus, name string) router.Config {
		cfg := router.Config{Bus: b, Name: name}
		cfg.Cache.Policy = func(string) router.CachePolicy { return router.CachePolicy{On: true, Coalesce: router.CoalesceOn} }
		return cfg
	}
	p.routeOn(keeping(far, "victim"))
	p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 100})
	p.publish("m", streamed, withID("req_lead"))
	p.work(1)
	for n := range 5 {
		p.publish("m", streamed, withID(fmt.Sprint("req_", n)))
		p.follows(fmt.Sprint("req_", n), "req_lead")
	}
	p.start("req_lead", 1, 1)
	p.say("req_lead", 1, "a", "b")
	for n := range 5 {
		p.poll("a copy to be under way", func() bool {
			chain, err := p.bus.Chain(p.ctx, acme(fmt.Sprint("req_", n)))
			return err == nil && chain.Next() == 2
		})
	}
	p.routeOn(keeping(p.bus, "standby"))
	proxy.Lead(nowhere)
	proxy.Cut()
	p.keep(kept(keyOf(t, "acme", streamed), "abc")) // well before the standby misses the other
	p.say("req_lead", 1, "c")
	p.end("req_lead", 1)
	for n := range 5 {
		p.wantCopy(fmt.Sprint("req_", n), "a", "b", "c")
	}
	p.publish("m", streamed, withID("req_5"))
	p.wantHit("req_5", "abc") // the key is right
	p.wantDispatches(1)
	proxy.Lead(server.ClientURL())
}

// A router that stops gives its followers to the next, which finds the leader's answer whole, or only its result.
func TestADrainedRouterLeavesItsFollowers(t *testing.T) {
	for name, erased := range map[string]bool{"the chain": false, "the result": true} {
		t.Run(name, func(t *testing.T) {
			p := setup(t)
			stop := p.routeOn(sharing(p.bus, "r1"))
			p.worker("w1", schemas.ModelBeat{Model: "m", Slots: 100})
			p.publish("m", streamed, withID("req_lead"))
			p.work(1)
			p.publish("m", streamed, withID("req_0"))
			p.follows("req_0", "req_lead")
			p.start("req_lead", 1, 1)
			p.say("req_lead", 1, "a", "b")
			p.poll("the events to be copied", func() bool {
				chain, err := p.bus.Chain(p.ctx, acme("req_0"))
				return err == nil && chain.Next() == 2
			})
			stop()
			p.say("req_lead", 1, "c")
			p.end("req_lead", 1)
			p.store("req_lead")
			if erased {
				s, err := p.js.Stream(p.ctx, schemas.StreamReplies)
				if err != nil {
					t.Fatal(err)
				}
				if err := s.Purge(p.ctx, purged(acme("req_lead").Replies())); err != nil {
					t.Fatal(err)
				}
			}
			p.routeOn(sharing(p.bus, "r2"))
			p.wantCopy("req_0", "a", "b", "c")
			p.wantAllSettled()
			p.wantDispatches(1)
		})
	}
}

// store keeps the result of a finished chain, as a worker does.
func (p *pipeline) store(id string) {
	p.t.Helper()
	chain, err := p.bus.Chain(p.ctx, acme(id))
	if err != nil {
		p.t.Fatal(err)
	}
	work := &schemas.Work{
		Request:  schemas.Request{Identity: acme(id), ModelToken: "m", Op: schemas.OpChat, Body: []byte(streamed)},
		Dispatch: 1, Accepted: chain.Frames[0].Time,
	}
	if err := record.Ensure(p.ctx, p.bus, work, []byte(streamed), chain); err != nil {
		p.t.Fatal(err)
	}
}

func purged(subject string) jetstream.StreamPurgeOpt { return jetstream.WithPurgeSubject(subject) }

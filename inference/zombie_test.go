package inference_test

import (
	"cmp"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/schemas"
)

// A worker that was paused past its lease wakes up and goes on as if nothing had happened.
func TestZombie(t *testing.T) {
	t.Parallel()
	words := []string{"one ", "two ", "three"}
	for name, c := range map[string]struct {
		body string
		at   int    // the zombie was paused before this word
		runs bool   // it wakes up while its successor runs, not after
		text string // what readers see
		code schemas.Code
		says int // words of the zombie about its delivery
	}{
		"before its first token":          {body: sampled, runs: true, text: "one two three"},
		"in the middle, its heir runs":    {body: greedy, at: 1, runs: true, text: "one two three"},
		"in the middle, its heir is done": {body: greedy, at: 1, text: "one two three", says: 1},
		"in the middle, and nobody could go on": {
			body: sampled, at: 1, text: "one ", code: schemas.CodeUpstreamInterrupted, says: 1,
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			id := identity("r1")
			live := p.reader(id)
			between := newProxy(t, p.server)
			asleep, successor := stallAt(1, c.at), stallAt(1, 2)
			a := p.workerOn(between.connect(t, lease), "a", &fake{words: words, deterministic: true, gate: asleep.gate}, slots(1))
			item := p.dispatch(work("r1", 1, c.body))
			wait(t, "the call", asleep.reached)
			p.until("the claim", func() bool { return p.chain(id).Start() != nil })
			p.visible(id, uint64(c.at))
			between.pause()
			if !c.runs {
				successor.open()
			}
			p.worker("b", &fake{words: words, deterministic: true, gate: successor.gate})
			if c.runs {
				wait(t, "the successor's call", successor.reached)
				p.until("the successor's claim", func() bool { return p.chain(id).Attempts() == 2 })
			} else {
				p.until("the end", func() bool { return p.chain(id).Terminal() != nil })
			}
			between.resume()
			asleep.open()
			p.until("the zombie to notice", func() bool { return a.counter(t, "weir_inference_lost_runs_total") == 1 })
			a.stop() // it has judged the chain as it is now
			successor.open()
			if seen := live(); seen.text != c.text || seen.code() != c.code {
				t.Errorf("the reader saw %q and %q, want %q and %q", seen.text, seen.code(), c.text, c.code)
			}
			p.ended(id)
			p.until("the zombie's word", func() bool { return len(p.tap.words(item, 1)) >= c.says })
			if says := p.tap.words(item, 1); len(says) != c.says || c.says > 0 && says[0] != "+ACK" {
				t.Errorf("the zombie said %v", says)
			}
			p.until("the successor's word", func() bool { return len(p.tap.words(item, p.tap.deliveries(item))) > 0 })
			if says := p.tap.words(item, p.tap.deliveries(item)); len(says) != 1 || says[0] != "+ACK" {
				t.Errorf("its successor said %v", says)
			}
		})
	}
}

// A worker that was paused around its claim, on its first delivery, leaves the request to who has claimed it since.
func TestZombieAroundItsClaim(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		trap     string // what the worker is stopped at, if not its claim
		passes   bool   // it gets to the server, and its answer does not come back
		early    bool   // the item is given back before its lease is over, and what was under way is lost
		dispatch int    // of the work item: the second is looked up before it is claimed
		modes    string
	}{
		"the claim was made":                          {passes: true, modes: "fresh fresh"},
		"the claim was made, the item was given back": {passes: true, early: true, modes: "fresh fresh"},
		"the claim was not made":                      {modes: "fresh"},
		"it was not, the item was given back":         {early: true, modes: "fresh"},
		"the delivery was not read":                   {trap: "$JS.API.CONSUMER.MSG.NEXT." + schemas.StreamWork, passes: true, modes: "fresh"},
		"it was not, of a second dispatch":            {trap: "$JS.API.CONSUMER.MSG.NEXT." + schemas.StreamWork, passes: true, dispatch: 2, modes: "fresh"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			id := identity("r1")
			live := p.reader(id)
			between := newProxy(t, p.server)
			backend := &fake{words: three}
			item := p.dispatch(work("r1", max(c.dispatch, 1), sampled))
			paused := between.pauseAt(cmp.Or(c.trap, "HPUB "+id.Chunks()), c.passes)
			connected := between.connect(t, map[bool]time.Duration{true: time.Minute, false: lease}[c.early])
			a := p.workerOn(connected, "a", backend, slots(1))
			wait(t, "the trap", paused.sprung)
			if c.trap == "" && c.passes {
				p.until("the claim", func() bool { return p.chain(id).Start() != nil })
			}
			p.until("the delivery", func() bool { return p.outstanding("m") == 1 })
			if c.early {
				p.tap.nak(item, 1)
			}
			successor := stallAt(1, 2)
			p.worker("b", &fake{words: three, gate: successor.gate})
			wait(t, "the successor's call", successor.reached)
			p.visible(id, 2)
			if c.early {
				between.hangUp()
			}
			between.resume()
			p.until("the zombie to notice", func() bool { return a.counter(t, "weir_inference_lost_runs_total") == 1 })
			successor.open()
			if seen := live(); seen.text != "one two three" || seen.code() != "" {
				t.Errorf("the reader saw %q and %q", seen.text, seen.code())
			}
			p.ended(id)
			p.gone(item)
			if got := modes(p.chain(id)); got != c.modes {
				t.Errorf("attempts: %s, want %s", got, c.modes)
			}
			if n := backend.calls.Load(); n > 1 {
				t.Errorf("the zombie called the model %d times", n)
			}
		})
	}
}

// outstanding is how many items of a model were delivered and not settled.
func (p *pipe) outstanding(model string) int {
	p.t.Helper()
	conn, err := nats.Connect("", nats.InProcessServer(p.server), nats.UserInfo(p.server.Username(), p.server.Password()), nats.Timeout(patience))
	if err != nil {
		p.t.Fatal(err)
	}
	defer conn.Close()
	js, err := jetstream.New(conn)
	if err != nil {
		p.t.Fatal(err)
	}
	consumer, err := js.Consumer(p.t.Context(), schemas.StreamWork, schemas.WorkConsumer(model))
	if err != nil {
		p.t.Fatal(err)
	}
	return consumer.CachedInfo().NumAckPending
}

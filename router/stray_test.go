package router

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/ledger"
	"github.com/weir-llm/weir/schemas"
)

// texts is what a request has been given.
func (b *bench) texts(id string) (all []string) {
	b.t.Helper()
	chain, _ := b.log.Chain(b.t.Context(), named(id))
	for _, event := range chain.Events() {
		_, text, _ := bytes.Cut(event, []byte(`"content":"`))
		text, _, _ = bytes.Cut(text, []byte(`"`))
		all = append(all, string(text))
	}
	return all
}

// foreign writes to a follower's chain as another router does that lets it follow another leader.
func (b *bench) foreign(id, leader string, texts ...string) {
	b.t.Helper()
	b.led(id, leader)
	b.say(id, texts...)
}

// Two routers have the same request for a moment and let it follow different leaders. It is given the answer of one of them.
func TestAnotherRouterCopiesAnotherAnswer(t *testing.T) {
	for name, late := range map[string]bool{"after this one has begun": false, "before this one begins": true} {
		t.Run(name, func(t *testing.T) {
			inBubble(t, func(t *testing.T) {
				b := flightBench(t, func(c *Config) {
					limits := &Limits{Limits: ledger.Limits{RequestsPerMinute: 100}}
					c.Limits = func(string) *Limits { return limits }
				})
				b.share("lead", nil)
				var one *fakeDelivery
				if late {
					look := make(chan struct{})
					b.log.mu.Lock()
					b.log.look = look
					b.log.mu.Unlock()
					b.led("one", "other")
					one = b.share("one", again)
					b.say("one", "x")
					close(look)
				} else {
					one = b.share("one", nil)
					b.wantEvents("one", 0, schemas.KindStart)
					b.foreign("one", "other", "x")
				}
				b.begin("lead")
				b.say("lead", "a", "b")
				b.begin("other")
				b.say("other", "x", "y")
				b.finish("other")
				b.finish("lead")
				b.wantEvents("one", 2, schemas.KindEnd)
				if got := b.texts("one"); !slices.Equal(got, []string{"x", "y"}) {
					t.Errorf("it is given %q, want all that its leader says and nothing else", got)
				}
				b.wantSettled(one, "ack")
				b.wantRuns("lead")
				if r := b.log.results[named("one")]; r == nil || r.Charge == nil || r.Charge.Requests != 1 {
					t.Errorf("the result is %+v, want one that is charged as a hit", r)
				}
			})
		})
	}
}

// A router that finds a follower written to by another again and again leaves it to that one, whomever it lets it follow.
func TestAFollowerThatAnotherRouterHolds(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		b := flightBench(t, nil)
		b.share("lead", nil)
		one := b.share("one", nil)
		leader := "lead"
		for n := range maxPassed + 1 {
			b.wantSettled(one, "held")
			other := fmt.Sprint("other", n)
			b.foreign("one", other, "x")
			b.begin(leader)
			b.say(leader, strings.Split(strings.Repeat("a", n+2), "")...)
			leader = other
		}
		b.wantSettled(one, "silent")
	})
}

// A flight forgets what its followers have, because its window is full, between the look at it and the following.
func TestAFlightThatForgetsWhileItIsJoined(t *testing.T) {
	inBubble(t, func(t *testing.T) {
		var joins *item
		meanwhile := func() {}
		b := flightBench(t, func(c *Config) {
			limits := &Limits{Limits: ledger.Limits{RequestsPerMinute: 100}}
			c.Limits = func(string) *Limits {
				if joins != nil && joins.placed && joins.follower == nil {
					meanwhile()
				}
				return limits
			}
		})
		b.share("lead", nil)
		fast := b.share("fast", nil)
		b.begin("lead")
		event := append(append([]byte(`{"choices":[{"index":0,"delta":{"content":"`), bytes.Repeat([]byte("x"), 64<<10)...), `"}}]}`...)
		frame := func() *schemas.Frame { return &schemas.Frame{Kind: schemas.KindDelta, Count: 1, Data: event} }
		full := flightWindow / len(event)
		for range full {
			b.write("lead", frame())
		}
		meanwhile = func() {
			meanwhile = func() {}
			chain, _ := b.log.Chain(t.Context(), named("lead"))
			last := frame()
			last.Index, last.Attempt = chain.Next(), 1
			if _, err := b.log.Append(t.Context(), named("lead"), chain.Sequence(), last); err != nil {
				t.Error(err)
			}
			time.Sleep(time.Millisecond) // in the bubble: everybody else does what there is to do
		}
		late := b.share("late", func(it *item) { joins = it })
		time.Sleep(tick)
		b.wantSettled(late, "ack")
		b.led("back", "lead")
		back := b.share("back", again) // follows it too, and needs all of it
		b.wantRuns("lead", "late")
		b.finish("lead")
		for id, d := range map[string]*fakeDelivery{"fast": fast, "back": back} {
			b.wantEvents(id, uint64(full)+1, schemas.KindEnd)
			b.wantSettled(d, "ack")
		}
	})
}

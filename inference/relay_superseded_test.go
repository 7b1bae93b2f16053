package inference_test

import (
	"testing"

	"github.com/weir-llm/weir/schemas"
)

// superseded is a worker that was paused with its call for a request, which another has run since, and was cancelled with.
type superseded struct {
	*pipe
	beats   *beats
	between *proxy
	asleep  *stall // its call
	item    uint64

	other *proxy
	awake *stall // the other's call
}

// supersede has worker a paused before its first token, with its claim made or still under way, and then b run the request.
func (p *pipe) supersede(lead schemas.Identity, claimed bool) *superseded {
	p.t.Helper()
	s := &superseded{pipe: p, beats: p.beats(), between: newProxy(p.t, p.server), asleep: stallAt(1, 0), other: newProxy(p.t, p.server), awake: stallAt(1, 2)}
	a := p.workerOn(s.between.connect(p.t, lease), "a", &fake{words: []string{"never ", "never ", "never"}, gate: s.asleep.gate}, slots(1))
	claiming := &trap{}
	if !claimed {
		claiming = s.between.pauseAt("HPUB "+lead.Chunks(), true)
	}
	s.item = p.dispatch(shared(lead.Request, sampled))
	wait(p.t, "the call", s.asleep.reached)
	if claimed {
		p.until("the claim", func() bool { return a.counter(p.t, "weir_inference_frames_total") == 1 })
		s.between.pause()
	} else {
		wait(p.t, "the claim", claiming.sprung)
	}
	p.until("the claim", func() bool { return p.chain(lead).Start() != nil })
	p.tap.nak(s.item, 1)
	p.workerOn(s.other.connect(p.t, lease), "b", &fake{words: three, gate: s.awake.gate}, slots(1))
	p.visible(lead, 2)
	return s
}

// wake has the paused worker go on, until it has let go of everything.
func (s *superseded) wake(hears bool) {
	s.t.Helper()
	if !hears {
		s.between.hangUp() // and with it what it was told meanwhile
	}
	s.between.resume()
	s.asleep.open()
	s.until("the end of its run", func() bool { return s.beats.released(s.item) > 0 })
}

// wantSilent checks that the item was left to the other.
func (s *superseded) wantSilent() {
	s.t.Helper()
	s.until("the word of the other", func() bool { return len(s.tap.words(s.item, 2)) > 0 })
	if says := s.tap.words(s.item, 1); len(says) != 1 { // the first word is the test's own
		s.t.Errorf("it said %v about an item that another holds", says)
	}
}

// A worker that another has run the request after, and passed it on, leaves the heir to that one, the heir's followers too,
// and the item.
func TestASupersededWorkerInheritsNothing(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ claimed, hears, early, follows bool }{
		"it hears of the cancel":                  {claimed: true, hears: true, follows: true},
		"it finds out by its next frame":          {claimed: true, follows: true},
		"it finds out by its claim":               {follows: true},
		"before the heir is claimed":              {claimed: true, early: true, follows: true},
		"it hears of the cancel, nobody follows":  {claimed: true, hears: true},
		"it finds out by a frame, nobody follows": {claimed: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			lead, second, third := identity("lead"), identity("second"), identity("third")
			line := []*schemas.Work{shared("second", sampled)}
			s := p.supersede(lead, c.claimed)
			p.follow(second, lead, 2)
			if c.follows {
				line = append(line, shared("third", sampled))
				p.follow(third, lead, 2)
			}
			p.heirs(line...)
			inherited := func() bool { return modes(p.chain(second)) == "follow inherit" }
			if c.early {
				ending := s.other.pauseAt("HPUB "+lead.Chunks(), true)
				p.cancel(lead)
				wait(t, "the end of the leader to be written", ending.sprung)
			} else {
				p.cancel(lead)
				p.until("the run to be inherited", inherited)
			}
			s.wake(c.hears)
			s.other.resume()
			p.until("the run to be inherited", inherited)
			s.awake.open()
			p.wantInherited(second, "one two three")
			p.wantPassed(lead, "one two ", "second", schemas.CodeCancelled)
			s.wantSilent()
			if got := modes(p.chain(third)); c.follows && got != "follow" {
				t.Errorf("what follows the heir was claimed: %s", got)
			}
		})
	}
}

// A delivery that was read late, of a run that a later one has passed on since, leaves the item to that one.
func TestAnOldDeliveryOfARunThatWasPassedOn(t *testing.T) {
	t.Parallel()
	p := setup(t)
	beats := p.beats()
	lead := identity("lead")
	again := shared("lead", sampled)
	again.Dispatch = 2 // so that it is looked up before the model is asked
	item := p.dispatch(again)
	claimed := started(item, 2)
	claimed.Start.Redelivered = 1
	p.append(lead, claimed)
	p.append(lead, &schemas.Frame{Kind: schemas.KindError, Attempt: 1, Writer: "other", Data: schemas.Cancelled(schemas.CancelledByCaller).Encode(), Heir: "second"})
	p.worker("w1", &fake{words: three})
	p.until("the item to be let go", func() bool { return beats.released(item) > 0 })
	if says := p.tap.words(item, 1); len(says) > 0 {
		t.Errorf("it said %v about an item that another holds", says)
	}
}

// A worker that was paused before it claimed the chain of the heir, which another runs by itself since, takes no follower of
// it instead.
func TestAnHeirThatAnotherWorkerRuns(t *testing.T) {
	t.Parallel()
	p := setup(t)
	lead, second, third := identity("lead"), identity("second"), identity("third")
	p.heirs(shared("second", sampled), shared("third", sampled))
	between, held, awake := newProxy(t, p.server), stallAt(1, 1), stallAt(1, 1)
	a := p.workerOn(between.connect(t, lease), "a", &fake{words: []string{"never ", "never ", "never"}, gate: held.gate}, slots(1))
	item := p.dispatch(shared("lead", sampled))
	wait(t, "the call", held.reached)
	p.visible(lead, 1)
	p.follow(second, lead, 0)
	p.follow(third, lead, 0)
	ending := between.pauseAt("HPUB "+lead.Chunks(), true)
	p.cancel(lead)
	wait(t, "the end of the leader to be written", ending.sprung)
	p.wantEnd(lead)
	p.worker("b", &fake{words: three, gate: awake.gate})
	p.tap.nak(item, 1)
	p.gone(item)
	p.dispatch(work("second", 2, sampled)) // as the router does
	wait(t, "the call for the heir", awake.reached)
	p.visible(second, 1)
	between.resume()
	held.open()
	p.until("it to notice", func() bool { return a.counter(t, "weir_inference_lost_runs_total") == 1 })
	a.stop()
	awake.open()
	if got := p.read(second); got.text != "one two three" || got.code() != "" {
		t.Errorf("the heir has %q and ended with %q", got.text, got.code())
	}
	p.ended(second)
	p.wantPassed(lead, "never ", "second", schemas.CodeCancelled)
	if got := modes(p.chain(third)); got != "follow" {
		t.Errorf("what follows the heir was claimed: %s", got)
	}
}

// A frame that was committed, and whose answer was lost before somebody else ended the leader, is told to the heir once.
func TestAFrameBeforeTheCancelIsToldOnce(t *testing.T) {
	t.Parallel()
	p := setup(t)
	heir, lead := identity("heir"), identity("lead")
	p.heirs(shared("heir", sampled))
	between, held := newProxy(t, p.server), stallAt(1, 1)
	p.workerOn(between.connect(t, lease), "w1", &fake{words: three, gate: held.gate})
	item := p.dispatch(shared("lead", sampled))
	wait(t, "the call", held.reached)
	p.visible(lead, 1)
	p.follow(heir, lead, 0)
	writing := between.pauseAt("HPUB "+lead.Chunks(), true)
	held.open()
	wait(t, "the next frame", writing.sprung)
	p.visible(lead, 2)
	p.cancel(lead) // unheard
	between.hangUp()
	between.resume()
	p.wantInherited(heir, "one two three")
	p.wantPassed(lead, "one two ", "", schemas.CodeCancelled)
	p.gone(item)
}

// Who watches the chain of a worker that seems lost, and sees the run passed on, leaves the item to that worker, which lives.
func TestARunIsPassedOnWhileItIsWatched(t *testing.T) {
	t.Parallel()
	p := setup(t)
	lead, heir := identity("lead"), identity("heir")
	p.heirs(shared("heir", sampled))
	held := stallAt(1, 1)
	p.worker("a", &fake{words: three, gate: held.gate}, slots(1))
	item := p.dispatch(shared("lead", sampled))
	wait(t, "the call", held.reached)
	p.visible(lead, 1)
	p.follow(heir, lead, 0)
	beats := p.beats()
	between := newProxy(t, p.server)
	p.workerOn(between.connect(t, lease), "b", &fake{words: []string{"never"}}, slots(1))
	looks := between.pauseAt(lead.Replies(), true)
	p.tap.nak(item, 1)
	wait(t, "the question how far the chain goes", looks.sprung)
	looks = between.pauseAt(lead.Replies(), true)
	between.resume()
	wait(t, "the question for what it holds so far", looks.sprung)
	between.resume()
	p.cancel(lead)
	p.until("the end of the watch", func() bool { return beats.released(item) > 0 })
	held.open()
	p.wantInherited(heir, "one two three")
	p.wantPassed(lead, "one ", "heir", schemas.CodeCancelled)
	p.until("the word of the other", func() bool { return len(p.tap.words(item, 1)) > 1 }) // the first is the test's own
	if says := p.tap.words(item, 2); len(says) != 0 {
		t.Errorf("it said %v about an item that another holds", says)
	}
}

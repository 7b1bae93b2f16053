package inference_test

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// heirs answers workers as a router does: who comes next, in order.
type heirs struct {
	p     *pipe
	mu    sync.Mutex
	line  []*schemas.Work
	given map[schemas.Identity]*schemas.Work
	asked int
	deaf  bool // says nothing
}

func (p *pipe) heirs(line ...*schemas.Work) *heirs {
	p.t.Helper()
	h := &heirs{p: p, line: line, given: make(map[schemas.Identity]*schemas.Work)}
	stop, err := p.bus.OnHeir(h.answer)
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(stop)
	return h
}

func (h *heirs) answer(id schemas.Identity, answer func(*schemas.Work)) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.asked++
	switch heir := h.given[id]; {
	case h.deaf:
	case heir != nil:
		answer(heir)
	case len(h.line) == 0:
		answer(nil)
	default:
		h.given[id] = h.line[0]
		h.line = h.line[1:]
		answer(h.given[id])
	}
}

func (h *heirs) set(deaf bool) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.deaf = deaf
}

func (h *heirs) questions() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.asked
}

func shared(id, body string) *schemas.Work {
	w := work(id, 1, body)
	w.Shared = true
	return w
}

// follow gives an heir what a router has copied so far: that many events of the leader.
func (p *pipe) follow(id, leader schemas.Identity, events int) {
	p.t.Helper()
	p.append(id, &schemas.Frame{
		Kind: schemas.KindStart, Attempt: 1, Writer: "R", Cache: &schemas.CacheNote{Status: schemas.CacheCoalesced},
		Start: &schemas.Start{Mode: schemas.ModeFollow, Dispatch: 1, Worker: "r1", Leader: leader.Request},
	})
	for i, event := range p.chain(leader).Events() {
		if int(i) < events {
			data := strings.Replace(string(event), "call-1", "chatcmpl-"+id.Request, 1)
			p.append(id, &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Writer: "R", Index: i, Count: 1, Data: []byte(data)})
		}
	}
}

func (p *pipe) cancel(id schemas.Identity) {
	p.t.Helper()
	if err := p.bus.CancelRequest(p.t.Context(), id, schemas.Cancelled(schemas.CancelledByCaller)); err != nil {
		p.t.Fatal(err)
	}
}

// wantPassed checks the end of a request whose run went on, which may be still under way.
func (p *pipe) wantPassed(id schemas.Identity, text, heir string, code schemas.Code) (r *schemas.Result) {
	p.t.Helper()
	got := p.read(id)
	if got.text != text || got.code() != code || got.terminal.Heir != heir {
		p.t.Errorf("%s has %q and ended with %q, its heir %q; want %q, %q, %q", id.Request, got.text, got.code(), got.terminal.Heir, text, code, heir)
	}
	p.until("the result of "+id.Request, func() bool {
		var err error
		r, err = p.bus.Result(p.t.Context(), id)
		return err == nil
	})
	return r
}

// wantInherited checks the answer of an heir, which is all its own.
func (p *pipe) wantInherited(id schemas.Identity, text string) *schemas.Result {
	p.t.Helper()
	got := p.read(id)
	if got.text != text || got.code() != "" {
		p.t.Errorf("%s has %q and ended with %q, want %q", id.Request, got.text, got.code(), text)
	}
	for _, answer := range got.ids {
		if answer != "chatcmpl-"+id.Request {
			p.t.Errorf("an event of %s calls its answer %s", id.Request, answer)
		}
	}
	r := p.ended(id)
	if r.Status != schemas.StatusCompleted || r.Cache != "" || len(r.Tries) != 1 {
		p.t.Errorf("the result of %s: %s, cache %q, %d tries", id.Request, r.Status, r.Cache, len(r.Tries))
	}
	return r
}

func TestARunGoesOnForItsHeir(t *testing.T) {
	t.Parallel()
	for told := range 3 {
		t.Run(fmt.Sprint(told, " events told"), func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			heir := identity("heir")
			p.heirs(shared("heir", sampled))
			held := stallAt(1, 2)
			backend := &fake{words: three, gate: held.gate}
			w := p.worker("w1", backend)
			item := p.dispatch(shared("lead", sampled))
			lead := identity("lead")
			wait(t, "the call", held.reached)
			p.visible(lead, 2)
			p.follow(heir, lead, told)
			p.cancel(lead)
			first := p.wantFirst(lead, heir)
			p.visible(heir, 2) // while the model is silent
			held.open()
			last := p.wantInherited(heir, "one two three")
			p.gone(item)
			if n := backend.calls.Load(); n != 1 {
				t.Errorf("the model was called %d times", n)
			}
			if got := modes(p.chain(heir)); got != "follow inherit" {
				t.Errorf("modes %s", got)
			}
			if first.CompletionTokens != 2 || last.Usage != nil {
				t.Errorf("usage %+v and %+v", first, last.Usage)
			}
			if n := w.counter(t, "weir_inference_inherited_runs_total"); n != 1 {
				t.Errorf("%v inherited runs", n)
			}
		})
	}
}

// wantFirst checks the end of a leader that was cancelled behind two words, and returns what it is charged for.
func (p *pipe) wantFirst(lead, heir schemas.Identity) *schemas.Usage {
	p.t.Helper()
	r := p.wantPassed(lead, "one two ", heir.Request, schemas.CodeCancelled)
	if r.Status != schemas.StatusCancelled || r.CancelledBy != schemas.CancelledByCaller || r.Usage == nil {
		p.t.Fatalf("the result of the leader: %s by %q, usage %v", r.Status, r.CancelledBy, r.Usage)
	}
	return r.Usage
}

// Before the first token, and for an answer in one piece, there is nothing yet that the leader is charged for.
func TestARunGoesOnBeforeItsFirstToken(t *testing.T) {
	t.Parallel()
	for name, body := range map[string]string{"streamed": sampled, "whole": whole} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			heir, lead := identity("heir"), identity("lead")
			p.heirs(shared("heir", body))
			held := stallAt(1, 0)
			backend := &fake{words: three, gate: held.gate}
			p.worker("w1", backend)
			p.dispatch(shared("lead", body))
			wait(t, "the call", held.reached)
			p.until("the claim", func() bool { return p.chain(lead).Start() != nil })
			p.follow(heir, lead, 0)
			p.cancel(lead)
			if r := p.wantPassed(lead, "", "heir", schemas.CodeCancelled); r.Usage != nil {
				t.Errorf("the leader is charged for %+v", r.Usage)
			}
			p.until("the run to be inherited", func() bool { return modes(p.chain(heir)) == "follow inherit" })
			held.open()
			if body == sampled {
				p.wantInherited(heir, "one two three")
			} else if r := p.ended(heir); !strings.Contains(string(r.Response), `"chatcmpl-heir"`) || !strings.Contains(string(r.Response), "one two three") {
				t.Errorf("the response is %s", r.Response)
			}
			if n := backend.calls.Load(); n != 1 {
				t.Errorf("the model was called %d times", n)
			}
		})
	}
}

func TestARunGoesFromHeirToHeir(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.heirs(shared("second", sampled), shared("third", sampled))
	held := stallAt(1, 1)
	backend := &fake{words: three, gate: held.gate}
	p.worker("w1", backend)
	p.dispatch(shared("first", sampled))
	first, second, third := identity("first"), identity("second"), identity("third")
	wait(t, "the call", held.reached)
	p.visible(first, 1)
	p.follow(second, first, 1)
	p.follow(third, first, 0)
	p.cancel(first)
	p.cancel(second) // at once: the worker hears of it before it has claimed the chain
	p.visible(third, 1)
	held.open()
	paid := p.wantPassed(first, "one ", "second", schemas.CodeCancelled).Usage
	if r := p.wantPassed(second, "one ", "third", schemas.CodeCancelled); paid == nil || paid.CompletionTokens != 1 || r.Usage == nil || r.Usage.TotalTokens != 0 {
		t.Errorf("the first is charged for %+v, the second for %+v: want what was said once", paid, r.Usage)
	}
	p.wantInherited(third, "one two three")
	if n := backend.calls.Load(); n != 1 {
		t.Errorf("the model was called %d times", n)
	}
}

// An heir to which another router has copied another answer is passed over: the rest of this one does not fit behind that.
func TestAnHeirWithAPartOfAnotherAnswer(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.heirs(shared("second", sampled), shared("third", sampled))
	held := stallAt(1, 2)
	backend := &fake{words: three, gate: held.gate}
	p.worker("w1", backend)
	p.dispatch(shared("first", sampled))
	first, second, third := identity("first"), identity("second"), identity("third")
	wait(t, "the call", held.reached)
	p.visible(first, 2)
	p.follow(second, identity("other"), 0)
	p.append(second, &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Writer: "R", Count: 1, Data: p.chain(first).Frames[1].Data})
	p.follow(third, first, 1)
	p.cancel(first)
	p.visible(third, 2)
	held.open()
	p.wantPassed(first, "one two ", "second", schemas.CodeCancelled)
	p.wantInherited(third, "one two three")
	if got := modes(p.chain(second)); got != "follow" {
		t.Errorf("modes %s", got)
	}
}

// A run that went on behind what another leader had said goes on for an heir whose chain still names that one.
func TestAnHeirOfTheLeaderBefore(t *testing.T) {
	t.Parallel()
	p := setup(t)
	first, second, third := identity("first"), identity("second"), identity("third")
	p.append(first, &schemas.Frame{
		Kind: schemas.KindStart, Attempt: 1, Writer: "W", Start: &schemas.Start{Mode: schemas.ModeFresh, Dispatch: 1, Worker: "w0", Work: 1},
	})
	one := `{"id":"call-1","object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":"one "}}]}`
	p.append(first, &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Writer: "W", Count: 1, Data: []byte(one)})
	p.follow(second, first, 1)
	p.follow(third, first, 1)
	p.heirs(shared("third", greedy))
	held := stallAt(1, 2)
	p.worker("w1", &fake{words: three, deterministic: true, gate: held.gate})
	next := shared("second", greedy)
	next.Dispatch = 2
	p.dispatch(next)
	wait(t, "the call", held.reached)
	p.visible(second, 2)
	p.cancel(second)
	p.visible(third, 2)
	held.open()
	p.wantPassed(second, "one two ", "third", schemas.CodeCancelled)
	if got := p.read(third); got.text != "one two three" || got.code() != "" {
		t.Errorf("the heir has %q and ended with %q", got.text, got.code())
	}
}

// An heir that has ended before the worker comes to it is passed over.
func TestAnHeirThatHasEnded(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.heirs(shared("second", sampled), shared("third", sampled))
	held := stallAt(1, 1)
	backend := &fake{words: three, gate: held.gate}
	p.worker("w1", backend)
	p.dispatch(shared("first", sampled))
	first, second, third := identity("first"), identity("second"), identity("third")
	wait(t, "the call", held.reached)
	p.visible(first, 1)
	p.follow(third, first, 0)
	p.append(second, &schemas.Frame{Kind: schemas.KindError, Writer: "caller", Data: schemas.Cancelled(schemas.CancelledByCaller).Encode()})
	p.cancel(first)
	p.visible(third, 1)
	held.open()
	p.wantPassed(first, "one ", "second", schemas.CodeCancelled)
	p.wantInherited(third, "one two three")
}

func TestNobodyInherits(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.heirs()
	held := stallAt(1, 1)
	backend := &fake{words: three, gate: held.gate}
	p.worker("w1", backend)
	p.dispatch(shared("r1", sampled))
	id := identity("r1")
	wait(t, "the call", held.reached)
	p.visible(id, 1)
	p.cancel(id)
	wait(t, "the end of the call", held.ended)
	p.wantPassed(id, "one ", "", schemas.CodeCancelled)
}

// While no router answers the request has ended, and the model waits.
func TestTheModelWaitsForARouter(t *testing.T) {
	t.Parallel()
	for name, inherits := range map[string]bool{"that knows an heir": true, "that knows none": false} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			heir, id := identity("heir"), identity("r1")
			var line []*schemas.Work
			if inherits {
				line = append(line, shared("heir", sampled))
			}
			router := p.heirs(line...)
			router.set(true)
			held := stallAt(1, 1)
			backend := &fake{words: three, gate: held.gate}
			p.worker("w1", backend)
			item := p.dispatch(shared("r1", sampled))
			wait(t, "the call", held.reached)
			p.visible(id, 1)
			p.follow(heir, id, 1)
			p.cancel(id)
			p.wantEnd(id)
			p.until("it to be asked again", func() bool { return router.questions() > 1 })
			router.set(false)
			if !inherits {
				wait(t, "the end of the call", held.ended)
				p.gone(item)
				p.wantPassed(id, "one ", "", schemas.CodeCancelled)
				return
			}
			p.until("the run to be inherited", func() bool { return modes(p.chain(heir)) == "follow inherit" })
			held.open()
			p.wantInherited(heir, "one two three")
			p.wantPassed(id, "one ", "", schemas.CodeCancelled)
		})
	}
}

func (p *pipe) wantEnd(id schemas.Identity) {
	p.t.Helper()
	p.until("the end of "+id.Request, func() bool { return p.chain(id).Terminal() != nil })
}

// A worker that did not hear that the leader was cancelled finds out by its next frame, which is the heir's.
func TestTheCancelOfALeaderThatTheWorkerDidNotHear(t *testing.T) {
	t.Parallel()
	p := setup(t)
	heir, lead := identity("heir"), identity("lead")
	p.heirs(shared("heir", sampled))
	held := stallAt(1, 1)
	backend := &fake{words: three, gate: held.gate}
	p.worker("w1", backend)
	p.dispatch(shared("lead", sampled))
	wait(t, "the call", held.reached)
	p.visible(lead, 1)
	p.follow(heir, lead, 0)
	p.append(lead, &schemas.Frame{
		Kind: schemas.KindError, Attempt: 1, Writer: "caller", Index: 1, Data: schemas.Cancelled(schemas.CancelledByCaller).Encode(),
		Summary: (&schemas.Summary{Status: schemas.StatusCancelled, CancelledBy: schemas.CancelledByCaller}).Encode(),
	})
	held.open()
	p.wantInherited(heir, "one two three")
	p.wantPassed(lead, "one ", "", schemas.CodeCancelled)
	if n := backend.calls.Load(); n != 1 {
		t.Errorf("the model was called %d times", n)
	}
}

// The deadline of the leader is not that of its run.
func TestTheRunOutlivesTheDeadlineOfTheLeader(t *testing.T) {
	t.Parallel()
	p := setup(t)
	heir, lead := identity("heir"), identity("lead")
	p.heirs(shared("heir", sampled))
	held := stallAt(1, 1)
	backend := &fake{words: three, gate: held.gate}
	p.worker("w1", backend)
	short := shared("lead", sampled)
	short.Deadline = time.Now().Add(2 * time.Second)
	p.follow(heir, lead, 0)
	p.dispatch(short)
	wait(t, "the call", held.reached)
	if r := p.wantPassed(lead, "one ", "heir", schemas.CodeDeadline); r.CancelledBy != schemas.CancelledByDeadline || r.Usage == nil {
		t.Errorf("the leader ended %s by %q", r.Status, r.CancelledBy)
	}
	held.open()
	p.wantInherited(heir, "one two three")
	if n := backend.calls.Load(); n != 1 {
		t.Errorf("the model was called %d times", n)
	}
}

// A worker that is lost with an inherited run leaves its item, which says nothing of the heir: whoever gets that item settles
// it, and the router finds out.
func TestAnItemWhoseRunWasInheritedIsOnlySettled(t *testing.T) {
	t.Parallel()
	p := setup(t)
	heir, lead := identity("heir"), identity("lead")
	p.heirs(shared("heir", greedy))
	held := stallAt(1, 1)
	w := p.worker("w1", &fake{words: three, gate: held.gate})
	item := p.dispatch(shared("lead", greedy))
	wait(t, "the call", held.reached)
	p.visible(lead, 1)
	p.follow(heir, lead, 1)
	p.cancel(lead)
	p.until("the run to be inherited", func() bool { return modes(p.chain(heir)) == "follow inherit" })
	w.kill()
	second := &fake{words: three, deterministic: true}
	p.worker("w2", second)
	p.gone(item)
	if n := second.calls.Load(); n != 0 {
		t.Errorf("the item was run again: %d calls", n)
	}
	again := work("heir", 2, greedy)
	p.dispatch(again) // as the router does
	if got := p.read(heir); got.text != "one two three" {
		t.Errorf("the heir has %q", got.text)
	}
}

// The answer of a run that was inherited is that of one call, and is kept as such.
func TestAnInheritedAnswerIsKept(t *testing.T) {
	t.Parallel()
	p := setup(t)
	order := &schemas.CacheNote{Status: schemas.CacheMiss, Key: "_.k", TTL: 60}
	next, first := shared("heir", whole), shared("lead", whole)
	next.Cache, first.Cache = order, order
	p.heirs(next)
	held := stallAt(1, 0)
	good := strings.TrimSuffix(string(unary("hi")), "}") + `,"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}`
	p.worker("w1", &fake{words: three[:1], whole: []byte(good), gate: held.gate})
	p.dispatch(first)
	wait(t, "the call", held.reached)
	p.until("the claim", func() bool { return p.chain(identity("lead")).Start() != nil })
	p.follow(identity("heir"), identity("lead"), 0)
	p.cancel(identity("lead"))
	p.until("the run to be inherited", func() bool { return modes(p.chain(identity("heir"))) == "follow inherit" })
	held.open()
	if r := p.ended(identity("heir")); r.Usage == nil || r.Usage.TotalTokens != 2 {
		t.Errorf("the heir is charged for %+v, want all of it", r.Usage)
	}
	if _, _, err := p.bus.CachedAnswer(t.Context(), "acme", order.Key); err != nil {
		t.Errorf("the answer was not kept: %v", err)
	}
}

package inference_test

import (
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// lose runs a request on a worker whose call stands before word i, then cuts the worker off. The item is free again
// afterwards, as when the router has given it back.
func (p *pipe) lose(name string, w *schemas.Work, backend *fake, i int) (seq uint64) {
	p.t.Helper()
	held := stallAt(1, i)
	backend.gate = held.gate
	lost := p.worker(name, backend)
	seq = p.dispatch(w)
	wait(p.t, "the call", held.reached)
	p.until("the claim", func() bool { return p.chain(w.Identity).Start() != nil })
	p.visible(w.Identity, uint64(i))
	lost.kill()
	p.t.Cleanup(lost.stop)
	return seq
}

func TestTakeOver(t *testing.T) {
	t.Parallel()
	words := []string{"one ", "two ", "three ", "four"}
	for name, c := range map[string]struct {
		op            schemas.Op // default chat
		body          string
		deterministic bool
		lostAt        int      // the first worker dies before this word
		second        []string // what the second worker's model says
		unfinished    bool     // and it does not say that it has ended
		text          string
		code          schemas.Code
		modes         string
	}{
		"before the first token": {
			body: sampled, second: []string{"other ", "words"}, text: "other words", modes: "fresh fresh",
		},
		"in the middle, the same again": {
			body: greedy, deterministic: true, lostAt: 2, second: words, text: "one two three four", modes: "fresh splice",
		},
		"in the middle, cut in other places": {
			body: greedy, deterministic: true, lostAt: 2, second: []string{"o", "ne two thr", "ee four"}, text: "one two three four", modes: "fresh splice",
		},
		"a completion, in the middle": {
			op: schemas.OpCompletion, body: `{"model":"m","stream":true,"temperature":0,"prompt":"hi"}`,
			deterministic: true, lostAt: 2, second: []string{"o", "ne two thr", "ee four"}, text: "one two three four", modes: "fresh splice",
		},
		"a completion of two prompts, in the middle": {
			op: schemas.OpCompletion, body: `{"model":"m","stream":true,"temperature":0,"prompt":["hi","ho"]}`,
			deterministic: true, lostAt: 2, second: words, text: "one two ", code: schemas.CodeUpstreamInterrupted, modes: "fresh",
		},
		"before the end": {
			body: greedy, deterministic: true, lostAt: 4, second: words, text: "one two three four", modes: "fresh splice",
		},
		"in the middle, something else": {
			body: greedy, deterministic: true, lostAt: 2, second: []string{"one ", "too ", "three"},
			text: "one two ", code: schemas.CodeStreamDiverged, modes: "fresh splice",
		},
		"in the middle, something shorter": {
			body: greedy, deterministic: true, lostAt: 2, second: []string{"one "},
			text: "one two ", code: schemas.CodeStreamDiverged, modes: "fresh splice",
		},
		"in the middle, something shorter without an end": {
			body: greedy, deterministic: true, lostAt: 2, second: []string{"one "}, unfinished: true,
			text: "one two ", code: schemas.CodeStreamDiverged, modes: "fresh splice",
		},
		"in the middle, sampled": {
			body: sampled, deterministic: true, lostAt: 2, second: words,
			text: "one two ", code: schemas.CodeUpstreamInterrupted, modes: "fresh",
		},
		"in the middle, of a model that varies": {
			body: greedy, lostAt: 2, second: words,
			text: "one two ", code: schemas.CodeUpstreamInterrupted, modes: "fresh",
		},
		"in the middle, with tools": {
			body: strings.Replace(greedy, `"stream"`, `"tools":[{"type":"function","function":{"name":"f"}}],"stream"`, 1), deterministic: true, lostAt: 2, second: words,
			text: "one two ", code: schemas.CodeUpstreamInterrupted, modes: "fresh",
		},
		"a unary request": {
			body: whole, modes: "fresh fresh",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			id := identity("r1")
			live := p.reader(id)
			request := work("r1", 1, c.body)
			if c.op != "" {
				request.Op = c.op
			}
			item := p.lose("w1", request, &fake{words: words, deterministic: c.deterministic}, c.lostAt)
			p.worker("w2", &fake{words: c.second, deterministic: c.deterministic, unfinished: c.unfinished})
			p.tap.nak(item, 1)
			seen := live()
			if seen.text != c.text || seen.code() != c.code {
				t.Errorf("the live reader saw %q and %q, want %q and %q", seen.text, seen.code(), c.text, c.code)
			}
			for _, id := range seen.ids {
				if id != seen.ids[0] {
					t.Errorf("the id of the answer changed from %s to %s", seen.ids[0], id)
				}
			}
			if late := p.read(id); late.text != seen.text || late.code() != seen.code() {
				t.Errorf("a late reader saw %q and %q", late.text, late.code())
			}
			p.ended(id)
			if got := modes(p.chain(id)); got != c.modes {
				t.Errorf("modes %s, want %s", got, c.modes)
			}
		})
	}
}

func TestTakeOverWhenTheLeaseEnds(t *testing.T) {
	t.Parallel()
	p := setup(t)
	item := p.lose("w1", work("r1", 1, greedy), &fake{words: []string{"one ", "two"}, deterministic: true}, 1)
	p.worker("w2", &fake{words: []string{"one ", "two"}, deterministic: true})
	if got := p.read(identity("r1")); got.text != "one two" || got.code() != "" {
		t.Errorf("got %q and %q", got.text, got.code())
	}
	p.ended(identity("r1"))
	p.tap.delivered(item, 2)
}

// A successor that could only end the answer watches the chain first: its worker may just be slow.
func TestAnswerThatGrowsIsNotCutOff(t *testing.T) {
	t.Parallel()
	p := setup(t)
	slow := stallAt(1, 2)
	p.worker("w1", &fake{words: []string{"one ", "two ", "three ", "four"}, gate: slow.gate}, slots(1))
	item := p.dispatch(work("r1", 1, sampled))
	id := identity("r1")
	wait(t, "the call", slow.reached)
	p.visible(id, 2)
	p.worker("w2", &fake{words: []string{"never"}}, slots(1))
	p.tap.nak(item, 1)
	p.tap.delivered(item, 2)
	slow.open()
	if got := p.read(id); got.text != "one two three four" || got.code() != "" {
		t.Errorf("got %q and %q", got.text, got.code())
	}
	if r := p.ended(id); r.Worker != "w1" || r.Attempts != 1 {
		t.Errorf("ended by %s after %d attempts", r.Worker, r.Attempts)
	}
}

func TestLongRunKeepsItsLease(t *testing.T) {
	t.Parallel()
	p := setup(t)
	held := stallAt(1, 1)
	backend := &fake{words: three, deterministic: true, gate: held.gate}
	p.worker("w1", backend, slots(1))
	item := p.dispatch(work("r1", 1, greedy))
	wait(t, "the call", held.reached)
	p.worker("w2", backend)
	began := time.Now()
	p.until("the lease has been renewed past its end", func() bool {
		return p.tap.renewals(item) >= 4 && time.Since(began) > lease
	})
	held.open()
	p.once(identity("r1"))
	if n := p.tap.deliveries(item); n != 1 {
		t.Errorf("%d deliveries", n)
	}
}

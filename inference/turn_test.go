package inference_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

var three = []string{"one ", "two ", "three"}

// once holds a request that was dispatched twice against what must be true: one attempt, the whole answer.
func (p *pipe) once(id schemas.Identity) {
	p.t.Helper()
	if got := p.read(id); got.text != "one two three" || got.code() != "" {
		p.t.Errorf("got %q and %q", got.text, got.code())
	}
	if r := p.ended(id); r.Attempts != 1 {
		p.t.Errorf("%d attempts", r.Attempts)
	}
}

func TestSecondItemOfARunningRequest(t *testing.T) {
	t.Parallel()
	for name, numbers := range map[string][2]int{"in order": {1, 2}, "the older last": {2, 1}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			held := stallAt(1, 1)
			backend := &fake{words: three, gate: held.gate}
			p.worker("w1", backend, slots(1))
			p.dispatch(work("r1", numbers[0], sampled))
			wait(t, "the call", held.reached)
			p.visible(identity("r1"), 1)
			p.worker("w2", backend)
			p.gone(p.dispatch(work("r1", numbers[1], sampled)))
			held.open()
			p.once(identity("r1"))
		})
	}
}

func TestSecondItemOfAFinishedRequest(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.worker("w1", &fake{words: three})
	for _, numbers := range [][2]int{{1, 2}, {2, 1}} {
		id := fmt.Sprintf("r%d", numbers[0])
		p.dispatch(work(id, numbers[0], sampled))
		p.once(identity(id))
		p.gone(p.dispatch(work(id, numbers[1], sampled)))
		p.once(identity(id))
	}
}

// The stream may have forgotten the id of an item of a request that is older than its memory of ids: no call is made in vain.
func TestItemOfAnOldRequestThatIsFinished(t *testing.T) {
	t.Parallel()
	p := setup(t)
	backend := &fake{words: three}
	p.worker("w1", backend)
	p.dispatch(work("r1", 2, sampled))
	p.once(identity("r1"))
	again := work("r1", 1, sampled)
	again.Accepted, again.Deadline = time.Now().Add(-bus.DedupeWindow-time.Second), time.Now().Add(time.Minute)
	p.gone(p.dispatch(again))
	p.once(identity("r1"))
	if n := backend.calls.Load(); n != 1 {
		t.Errorf("%d calls", n)
	}
}

// A second request under a used id neither runs nor vanishes, whatever has become of the first.
func TestSecondBodyUnderAnId(t *testing.T) {
	t.Parallel()
	other := strings.Replace(sampled, `"m"`, `"m","seed":7`, 1)
	for name, prepare := range map[string]func(p *pipe, id schemas.Identity){
		"accepted": func(p *pipe, id schemas.Identity) {
			p.append(id, &schemas.Frame{Kind: schemas.KindAccepted, Writer: "door", BodyHash: schemas.BodyHash([]byte(sampled))})
		},
		"finished": func(p *pipe, id schemas.Identity) {
			p.dispatch(work(id.Request, 1, sampled))
			p.once(id)
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			p.worker("w1", &fake{words: three})
			id := identity("r1")
			prepare(p, id)
			p.gone(p.dispatch(work("r1", 2, other)))
			letter := p.tap.letters(1)[0]
			if letter.body != other || !strings.Contains(letter.header, "used for another body") {
				t.Errorf("letter %+v", letter)
			}
			if name == "accepted" {
				p.dispatch(work("r1", 1, sampled))
			}
			p.once(id)
		})
	}
}

func TestTwoItemsAtOnce(t *testing.T) {
	t.Parallel()
	p := setup(t)
	const requests = 20
	for i := range requests {
		id := fmt.Sprintf("r%d", i)
		p.dispatch(work(id, 1+i%2, sampled))
		p.dispatch(work(id, 2-i%2, sampled))
	}
	p.worker("w1", &fake{words: three}, slots(requests))
	p.worker("w2", &fake{words: three}, slots(requests))
	for i := range requests {
		p.once(identity(fmt.Sprintf("r%d", i)))
	}
}

// A cancel hint finds the run, also when a second item of the request has been here meanwhile.
func TestSecondItemLeavesTheFirstToBeCancelled(t *testing.T) {
	t.Parallel()
	p := setup(t)
	held := stallAt(1, 1)
	p.worker("w1", &fake{words: three, gate: held.gate})
	p.dispatch(work("r1", 2, sampled))
	wait(t, "the call", held.reached)
	p.visible(identity("r1"), 1)
	p.gone(p.dispatch(work("r1", 1, sampled)))
	if err := p.bus.Cancel(identity("r1"), schemas.CancelledByCaller); err != nil {
		t.Fatal(err)
	}
	wait(t, "the end of the call", held.ended)
	if r := p.ended(identity("r1")); r.Status != schemas.StatusCancelled {
		t.Errorf("status %s", r.Status)
	}
}

func TestItemThatRunsHereAlready(t *testing.T) {
	t.Parallel()
	p := setup(t)
	beats := p.beats()
	held := stallAt(1, 1)
	backend := &fake{words: three, deterministic: true, gate: held.gate}
	p.worker("w1", backend)
	item := p.dispatch(work("r1", 1, greedy))
	wait(t, "the call", held.reached)
	p.tap.nak(item, 1)
	p.tap.delivered(item, 2)
	held.open()
	p.once(identity("r1"))
	if n := backend.calls.Load(); n != 1 {
		t.Errorf("%d calls", n)
	}
	if says := p.tap.words(item, 2); len(says) != 0 {
		t.Errorf("the copy said %v", says)
	}
	p.until("the release", func() bool { return beats.released(item) > 0 && beats.last("w1").Models[0].Used == 0 })
	if n := beats.released(item); n != 1 {
		t.Errorf("the item was released %d times", n)
	}
}

// That a request was accepted is no claim, and costs no second call of the model.
func TestAcceptedRequest(t *testing.T) {
	t.Parallel()
	p := setup(t)
	id := identity("r1")
	p.append(id, &schemas.Frame{Kind: schemas.KindAccepted, Writer: "ingest", BodyHash: schemas.BodyHash([]byte(sampled))})
	backend := &fake{words: three}
	p.worker("w1", backend)
	p.send("r1", sampled)
	p.once(id)
	if r := p.ended(id); backend.calls.Load() != 1 || len(r.Tries) != 1 {
		t.Errorf("%d calls, tries %+v", backend.calls.Load(), r.Tries)
	}
}

// started is the first frame of an attempt by another worker.
func started(work uint64, dispatch int) *schemas.Frame {
	return &schemas.Frame{Kind: schemas.KindStart, Attempt: 1, Writer: "other", Start: &schemas.Start{Mode: schemas.ModeFresh, Work: work, Dispatch: dispatch, Worker: "other"}}
}

func TestItemBehindAnotherItem(t *testing.T) {
	t.Parallel()
	p := setup(t)
	backend := &fake{words: three}
	p.worker("w1", backend)
	waiting := work("wait", 1, sampled)
	waiting.ModelToken = "served-elsewhere"
	other := p.dispatch(waiting)
	for name, c := range map[string]struct {
		start *schemas.Frame
		runs  bool
	}{
		"that is newer":                 {start: started(1<<40, 7)},
		"that is still there":           {start: started(other, 1)},
		"that is gone":                  {start: started(1<<40, 1), runs: true},
		"that is gone, of an older one": {start: started(1<<40, 0), runs: true},
	} {
		t.Run(name, func(t *testing.T) {
			id := fmt.Sprintf("r-%d-%t-%d", c.start.Start.Dispatch, c.runs, c.start.Start.Work)
			p.append(identity(id), c.start)
			p.gone(p.dispatch(work(id, 2, sampled)))
			if got := modes(p.chain(identity(id))); got != map[bool]string{false: "fresh", true: "fresh fresh"}[c.runs] {
				t.Errorf("attempts: %s", got)
			}
			if c.runs {
				p.ended(identity(id))
			}
		})
	}
}

func TestFinishedChainWithoutAResult(t *testing.T) {
	t.Parallel()
	p := setup(t)
	p.worker("w1", &fake{words: []string{"never"}})
	terminal := map[string]*schemas.Frame{
		"end": {Kind: schemas.KindEnd, Attempt: 1, Writer: "other", Index: 1, Data: (&schemas.Summary{Status: schemas.StatusCompleted, Attempts: 1, FinishReasons: []string{"stop"}}).Encode()},
		"cancelled": {
			Kind: schemas.KindError, Attempt: 1, Writer: "caller", Index: 1, Data: schemas.Errorf(schemas.CodeCancelled, "stop").Encode(),
		},
	}
	for name, end := range terminal {
		for _, number := range []int{1, 2} { // which the worker runs without a look, or looks first
			t.Run(fmt.Sprintf("%s, dispatch %d", name, number), func(t *testing.T) {
				id := identity(fmt.Sprintf("%s-%d", name, number))
				p.append(id, started(1<<40, 1))
				p.append(id, &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Writer: "other", Count: 1, Data: event(1, "one", "null").Data})
				p.append(id, end)
				p.dispatch(work(id.Request, number, sampled))
				if r := p.ended(id); r.Worker != "other" || r.Events.Count != 1 || string(r.Request) != sampled {
					t.Errorf("%+v", r)
				}
			})
		}
	}
}

func TestResultWithoutAChain(t *testing.T) {
	t.Parallel()
	p := setup(t)
	backend := &fake{words: []string{"never"}}
	p.worker("w1", backend)
	id := identity("r1")
	kept := &schemas.Result{V: schemas.Version, Tenant: id.Tenant, RequestID: id.Request, Model: "m", Status: schemas.StatusCompleted}
	if err := p.bus.PutResult(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	p.gone(p.dispatch(work("r1", 2, sampled)))
	if n := len(p.chain(id).Frames); n != 0 || backend.calls.Load() != 0 {
		t.Errorf("%d frames, %d calls", n, backend.calls.Load())
	}
	if r, err := p.bus.Result(t.Context(), id); err != nil || r.Attempts != 0 {
		t.Errorf("%+v, %v", r, err)
	}
}

// A router that is wrong about two workers in a row costs two attempts and nothing else: each of them goes silent.
func TestFalseAlarms(t *testing.T) {
	t.Parallel()
	p := setup(t)
	id := identity("r1")
	backend := &fake{words: three, deterministic: true, gate: func(ctx context.Context, call, i int) error {
		if i != 1 || call == 3 {
			return nil
		}
		attempts := func(n int) error {
			for {
				chain, err := p.bus.Chain(ctx, id)
				if err != nil || chain.Attempts() >= n {
					return err
				}
			}
		}
		if err := attempts(call); err != nil {
			return err
		}
		p.tap.nak(1, call)
		return attempts(call + 1)
	}}
	for i := range 3 {
		p.worker(fmt.Sprintf("w%d", i), backend, slots(1))
	}
	live := p.reader(id)
	p.send("r1", greedy)
	if seen := live(); seen.text != "one two three" || seen.code() != "" {
		t.Errorf("got %q and %q", seen.text, seen.code())
	}
	if r := p.ended(id); r.Attempts != 3 {
		t.Errorf("%d attempts", r.Attempts)
	}
	for n := 1; n <= 2; n++ {
		// The first word is the test's own. A loser may still have found the chain ended, and then acknowledges.
		p.until("the word of a loser", func() bool { return len(p.tap.words(1, n)) > 0 })
		if says := strings.Join(p.tap.words(1, n), " "); says != "-NAK" && says != "-NAK +ACK" {
			t.Errorf("of delivery %d was said %s", n, says)
		}
	}
}

package inference_test

import (
	"testing"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// A request whose run may be shared, and that waits to run alone, ends as any other does: there is nothing to pass on yet.
func TestASharedSuspectThatWaitsEnds(t *testing.T) {
	t.Parallel()
	for name, code := range map[string]schemas.Code{"cancelled": schemas.CodeCancelled, "too late": schemas.CodeDeadline} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			beats := p.beats()
			held := stallAt(1, 1)
			backend := &fake{words: three, gate: held.gate}
			p.worker("w1", backend)
			first := p.send("first", sampled)
			wait(t, "the call", held.reached)
			p.twiceLost("suspect")
			id, item := identity("suspect"), shared("suspect", sampled)
			item.Dispatch = 2
			if code == schemas.CodeDeadline {
				item.Deadline = time.Now().Add(2 * time.Second)
			}
			sequence := p.dispatch(item)
			p.until("it waits", func() bool {
				b := beats.last("w1")
				return b != nil && b.Models[0].Used == 2 || p.chain(id).Terminal() != nil
			})
			if code == schemas.CodeCancelled {
				p.until("the end", func() bool { // the slot is taken a moment before anybody listens to a hint
					_ = p.bus.Cancel(id, schemas.CancelledByCaller)
					return p.chain(id).Terminal() != nil
				})
			}
			p.wantPassed(id, "", "", code)
			p.ended(id)
			p.gone(sequence)
			if n := backend.calls.Load(); n != 1 {
				t.Errorf("%d calls", n)
			}
			held.open()
			p.once(first)
		})
	}
}

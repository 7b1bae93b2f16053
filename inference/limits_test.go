package inference_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

func TestTimeLimits(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		deadline time.Duration // from now
		accepted time.Duration // from now
		total    time.Duration
		at       int // the model stands before this word
		text     string
		code     schemas.Code
		status   schemas.Status
	}{
		"deadline in the past":    {deadline: -time.Second, code: schemas.CodeDeadline, status: schemas.StatusExpired},
		"no deadline, but old":    {accepted: -time.Hour, code: schemas.CodeDeadline, status: schemas.StatusExpired},
		"deadline before a token": {deadline: 200 * time.Millisecond, code: schemas.CodeDeadline, status: schemas.StatusExpired},
		"deadline in the middle":  {deadline: 3 * time.Second, at: 1, text: "one ", code: schemas.CodeDeadline, status: schemas.StatusExpired},
		"total time of the model": {total: 3 * time.Second, at: 1, text: "one ", code: schemas.CodeUpstreamTimeout, status: schemas.StatusFailed},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			held := stallAt(1, c.at)
			p.worker("w1", &fake{words: three, gate: held.gate}, model(func(m *inference.Model) { m.Total = c.total }))
			w := work("r1", 1, sampled)
			w.Accepted = w.Accepted.Add(c.accepted)
			if c.deadline != 0 {
				w.Deadline = time.Now().Add(c.deadline)
			}
			p.dispatch(w)
			if got := p.read(w.Identity); got.text != c.text || got.code() != c.code {
				t.Errorf("got %q and %q", got.text, got.code())
			}
			wait(t, "the end of the call", held.ended)
			if r := p.ended(w.Identity); r.Status != c.status {
				t.Errorf("status %s", r.Status)
			}
		})
	}
}

func TestNeverMoreCallsThanSlots(t *testing.T) {
	t.Parallel()
	p := setup(t)
	const requests = 24
	small, large := &fake{name: "small", words: three}, &fake{name: "large", words: three}
	for _, backend := range []*fake{small, large} {
		backend.gate = func(ctx context.Context, call, i int) error {
			select { // long enough for others to come in between
			case <-ctx.Done():
				return inference.ContextError(ctx)
			case <-time.After(3 * time.Millisecond):
				return nil
			}
		}
	}
	p.worker("w1", nil, func(c *inference.Config) {
		c.Models["m"] = inference.Model{Backends: []inference.Slot{{Backend: small, MaxInFlight: 1}, {Backend: large, MaxInFlight: 3}}}
	})
	beats := p.beats()
	for i := range requests {
		p.send(fmt.Sprintf("r%d", i), sampled)
	}
	for i := range requests {
		p.once(identity(fmt.Sprintf("r%d", i)))
	}
	if small.most.Load() > 1 || large.most.Load() > 3 {
		t.Errorf("%d and %d calls at once", small.most.Load(), large.most.Load())
	}
	if small.calls.Load() == 0 || large.most.Load() < 2 {
		t.Errorf("slots were not used: %d calls of the small one, %d at once of the large one", small.calls.Load(), large.most.Load())
	}
	if used := beats.mostUsed(); used > 4 {
		t.Errorf("a beat told of %d used slots", used)
	}
}

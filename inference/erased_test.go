package inference_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// A worker that was paused before its first claim wakes up when the request has been answered by another and erased. It finds
// that out, and asks and says nothing anew.
func TestZombieOfAnErasedRequest(t *testing.T) {
	t.Parallel()
	answer := strings.TrimSuffix(string(unary("hi")), "}") + `,"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}` // as the cache keeps it
	for name, body := range map[string]string{"a stream": sampled, "an answer in one piece": whole} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			id := identity("r1")
			between := newProxy(t, p.server)
			p.workerOn(between.connect(t, lease), "a", &fake{words: three, whole: []byte(answer)}, slots(1))
			paused := between.pauseAt("HPUB "+id.Chunks(), false)
			w := work("r1", 1, body)
			w.Cache = &schemas.CacheNote{Status: schemas.CacheMiss, Key: "_.k", TTL: 60}
			item := p.dispatch(w)
			wait(t, "the claim", paused.sprung)
			p.tap.nak(item, 1)
			p.worker("b", &fake{words: three, whole: []byte(answer)})
			p.ended(id)
			if err := p.bus.Erase(t.Context(), id); err != nil {
				t.Fatal(err)
			}
			between.resume()
			p.until("the zombie's word", func() bool { return len(p.tap.words(item, 1)) == 2 }) // the first is the test's
			if says := p.tap.words(item, 1); says[1] != "+ACK" {
				t.Errorf("the zombie said %v", says)
			}
			if chain := p.chain(id); len(chain.Frames) != 1 || chain.Terminal() == nil || chain.Last().Count != 0 {
				t.Errorf("%d frames, the last of them %s", len(chain.Frames), chain.Last().Header())
			}
			for f, err := range p.bus.Read(t.Context(), id, bus.ReadOptions{}) {
				if err == nil || schemas.AsError(err).Code != schemas.CodeStreamExpired {
					t.Errorf("a reader sees %+v, %v", f, err)
				}
			}
			if _, _, err := p.bus.CachedAnswer(t.Context(), "acme", "_.k"); !errors.Is(err, bus.ErrNotFound) {
				t.Errorf("in the cache: %v, want nothing", err)
			}
			if r, err := p.bus.Result(t.Context(), id); err != nil || r.Status != schemas.StatusDeleted {
				t.Errorf("%+v, %v", r, err)
			}
		})
	}
}

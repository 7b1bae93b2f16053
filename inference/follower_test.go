package inference_test

import (
	"testing"

	"github.com/weir-llm/weir/schemas"
)

// A request that was given another's answer and now runs itself goes on behind what it was given, under the id that it was
// given. Whom it followed before are no workers that were lost.
func TestAFollowerRuns(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ told, modes string }{
		"before the first token": {"", "follow follow follow fresh"},
		"in the middle":          {`{"id":"chatcmpl-r1","object":"chat.completion.chunk","created":5,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":"one "},"finish_reason":null}]}`, "follow follow follow splice"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			id := identity("r1")
			index := uint64(0)
			for n, leader := range []string{"req_a", "req_b", "req_c"} {
				p.append(id, &schemas.Frame{
					Kind: schemas.KindStart, Attempt: n + 1, Writer: "R", Index: index, Cache: &schemas.CacheNote{Status: schemas.CacheCoalesced},
					Start: &schemas.Start{Mode: schemas.ModeFollow, Dispatch: 1, Worker: "r1", Leader: leader},
				})
				if n == 0 && c.told != "" {
					p.append(id, &schemas.Frame{Kind: schemas.KindDelta, Attempt: 1, Writer: "R", Count: 1, Data: []byte(c.told)})
					index = 1
				}
			}
			p.worker("w1", &fake{words: []string{"one ", "two"}, deterministic: true})
			p.dispatch(work("r1", 2, greedy))
			got := p.read(id)
			if got.text != "one two" || got.code() != "" {
				t.Errorf("got %q and %q", got.text, got.code())
			}
			for _, answer := range got.ids {
				if answer != got.ids[0] {
					t.Errorf("the id of the answer changed from %s to %s", got.ids[0], answer)
				}
			}
			if r := p.ended(id); r.Cache != "" || len(r.Tries) != 1 {
				t.Errorf("the result says %q of the cache and has %d tries, of a request that ran", r.Cache, len(r.Tries))
			}
			if got := modes(p.chain(id)); got != c.modes {
				t.Errorf("modes %s, want %s", got, c.modes)
			}
		})
	}
}

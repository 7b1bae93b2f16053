package router

import (
	"testing"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// TestPromptsAreCountedWhereThatIsWanted, when they are read and not in the loop, and for no other model.
func TestPromptsAreCountedWhereThatIsWanted(t *testing.T) {
	t.Parallel()
	counted := 0
	count := func(model string) func([]byte) int64 {
		if model != "exact" {
			return nil
		}
		return func([]byte) int64 { counted++; return 1000 }
	}
	for model, want := range map[string]int64{"exact": 1000, "other": 16} {
		body := []byte(`{"model":"` + model + `","max_tokens":7,"messages":[{"role":"user","content":"x"}]}`)
		if model == "other" {
			want = int64(float64(len(body)) / bytesPerToken)
		}
		d := &bus.Delivery{Subject: "llm.queue.0.acme." + model, Sequence: 9, Header: schemas.Header{}, Data: body}
		it := read(d, nil, count)
		if it.fault != nil || it.input != want || it.estimate != want+7 {
			t.Errorf("%s: %d tokens of the prompt and %d in all, want %d and %d: %v", model, it.input, it.estimate, want, want+7, it.fault)
		}
	}
	if counted != 1 {
		t.Errorf("%d prompts were counted", counted)
	}
}

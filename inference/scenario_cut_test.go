package inference_test

import (
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/openai"
	"github.com/weir-llm/weir/internal/faulty"
	"github.com/weir-llm/weir/schemas"
)

// TestCutAnswersGoOn has answers that break after readers have seen some of them, of a backend that can go on: the caller
// gets the whole answer, once, and the server sees as many calls as it takes.
func TestCutAnswersGoOn(t *testing.T) {
	t.Parallel()
	answers := faulty.Answers()
	rest := faulty.Says(func(d faulty.Dialect) []string { return d.Answer(d.Stop, " five ", "six") }) // it is given no space at the end
	fourWords := faulty.Cuts(0.5)
	for name, test := range map[string]struct {
		script        []faulty.Reply
		deterministic bool
		continues     inference.Continuation
		idle          time.Duration
		modes         string
	}{
		"cut, spliced":          {script: []faulty.Reply{faulty.Cuts(2. / 3), answers}, deterministic: true, modes: "fresh splice"},
		"cut twice, spliced":    {script: []faulty.Reply{faulty.Cuts(1. / 3), faulty.Cuts(2. / 3), answers}, deterministic: true, modes: "fresh splice splice"},
		"stalled, spliced":      {script: []faulty.Reply{faulty.Stalls(2. / 3), answers}, deterministic: true, idle: 300 * time.Millisecond, modes: "fresh splice"},
		"malformed, spliced":    {script: []faulty.Reply{func(c *faulty.Call) { fourWords(c); c.Send(c.Dialect.Garbage) }, answers}, deterministic: true, modes: "fresh splice"},
		"broken, spliced":       {script: []faulty.Reply{func(c *faulty.Call) { fourWords(c); c.Reset() }, answers}, deterministic: true, modes: "fresh splice"},
		"ill after it, spliced": {script: []faulty.Reply{fourWords, faulty.Fails(503), answers}, deterministic: true, modes: "fresh splice"},
		"cut, continued":        {script: []faulty.Reply{fourWords, rest}, continues: inference.ContinueText, modes: "fresh continue"},
		"prefill rejected, spliced": {
			script: []faulty.Reply{fourWords, faulty.NoPrefill(), answers}, deterministic: true, continues: inference.ContinueText, modes: "fresh continue splice",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := setup(t)
			server := faulty.New(t, faulty.OpenAI(), test.script...)
			idle := generous
			if test.idle > 0 {
				idle = test.idle
			}
			b, err := openai.New(openai.Config{
				Name: "b1", URL: server.URL + "/v1", Deterministic: test.deterministic, Continue: test.continues,
				Timeouts: inference.Timeouts{FirstToken: generous, Idle: idle, Total: time.Minute},
			})
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = b.Close() })
			p.models(map[string]inference.Model{"m": {Backends: []inference.Slot{{Backend: b, MaxInFlight: 4}}}})
			id := p.send("r1", greedy)
			got := p.read(id)
			if got.text != whole6() || got.code() != "" {
				t.Errorf("got %q and %q", got.text, got.code())
			}
			r := p.ended(id)
			if m := modes(p.chain(id)); m != test.modes || len(server.Calls()) != len(test.script) || len(r.Tries) != len(test.script) {
				t.Errorf("modes %q, %d calls, tries %+v", m, len(server.Calls()), r.Tries)
			}
			for i, try := range r.Tries {
				if (try.Outcome == "") != (i == len(r.Tries)-1) || try.Outcome == schemas.CodeCancelled {
					t.Errorf("try %+v", try)
				}
			}
		})
	}
}

package inference_test

import (
	"io"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/anthropic"
	"github.com/weir-llm/weir/inference/ollama"
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
	fourWords := faulty.Says(func(d faulty.Dialect) []string {                                        // which is all that stands before the next two
		whole := d.Whole()
		return whole[:len(whole)-d.Ending-2]
	})
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
		for spoken, d := range map[string]faulty.Dialect{
			"openai": faulty.OpenAI(), "anthropic": faulty.Anthropic(), "anthropic, relayed": faulty.Anthropic(), "ollama": faulty.Ollama(),
		} {
			t.Run(name+"/"+spoken, func(t *testing.T) {
				t.Parallel()
				p := setup(t)
				server := faulty.New(t, d, test.script...)
				timeouts := inference.Timeouts{FirstToken: generous, Idle: generous, Total: time.Minute}
				if test.idle > 0 {
					timeouts.Idle = test.idle
				}
				b := goingOn(t, server, timeouts, test.deterministic, test.continues)
				p.models(map[string]inference.Model{"m": {Backends: []inference.Slot{{Backend: b, MaxInFlight: 4}}}})
				request := work("r1", 1, greedy)
				if spoken == "anthropic, relayed" {
					request = message("r1", `,"temperature":0`)
				}
				p.dispatch(request)
				id := request.Identity
				r := p.ended(id)
				text := ""
				if request.Op == schemas.OpMessages {
					text = p.relayed(id).text
				} else {
					text = p.read(id).text
				}
				if text != whole6() || r.Status != schemas.StatusCompleted {
					t.Errorf("the caller got %q and %s", text, r.Error)
				}
				if u := r.Usage; u == nil || u.CompletionTokens < faulty.CompletionTokens {
					t.Errorf("usage %+v", u)
				}
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
}

// goingOn is a backend that calls a server in its dialect and can go on with what was cut.
func goingOn(t *testing.T, server *faulty.Server, timeouts inference.Timeouts, deterministic bool, how inference.Continuation) inference.Backend {
	t.Helper()
	var b interface {
		inference.Backend
		io.Closer
	}
	var err error
	switch server.Dialect.Name {
	case "anthropic":
		b, err = anthropic.New(anthropic.Config{Name: "b1", URL: server.URL + "/v1", Timeouts: timeouts, Deterministic: deterministic, Continue: how})
	case "ollama":
		b, err = ollama.New(ollama.Config{Name: "b1", URL: server.URL, Timeouts: timeouts, Deterministic: deterministic, Continue: how})
	default:
		b, err = openai.New(openai.Config{Name: "b1", URL: server.URL + "/v1", Timeouts: timeouts, Deterministic: deterministic, Continue: how})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = b.Close() })
	return b
}

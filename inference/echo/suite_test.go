package echo_test

import (
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/backendtest"
	"github.com/weir-llm/weir/inference/echo"
	"github.com/weir-llm/weir/schemas"
)

func TestSuite(t *testing.T) {
	t.Parallel()
	for _, op := range []schemas.Op{schemas.OpChat, schemas.OpCompletion} {
		t.Run(string(op), func(t *testing.T) {
			t.Parallel()
			backendtest.Run(t, backendtest.Subject{
				Start: play, Op: op, Embeds: true, Models: []string{"echo"},
				Usage: &schemas.Usage{PromptTokens: 2, CompletionTokens: 3, TotalTokens: 5},
			})
		})
	}
}

// nobody is the server that echo does not have.
type nobody struct{}

func (nobody) Asked() []string       { return nil }
func (nobody) Gone() <-chan struct{} { return nil }

// play turns the dials as the script says. What the script answers is what echo answers to the suite's question.
func play(t testing.TB, s backendtest.Script, _ inference.Timeouts) (inference.Backend, backendtest.Server) {
	dials := echo.Dials{IntervalMS: int(s.Pace / time.Millisecond), RetryAfterMS: int(s.RetryAfter / time.Millisecond)}
	at := max(s.At, 0)
	switch s.Fault {
	case backendtest.Hold:
		dials.Stall = &at
	case backendtest.Cut:
		dials.Cut = &at
	case backendtest.Garbage:
		dials.Garbage = &at
	case "":
		dials.Fail = map[backendtest.Refusal]schemas.Code{
			backendtest.RateLimit: schemas.CodeRateLimit, backendtest.Overloaded: schemas.CodeOverloaded, backendtest.Internal: schemas.CodeUpstreamError,
			backendtest.Invalid: schemas.CodeUpstreamRejected, backendtest.Credentials: schemas.CodeUpstreamAuth, backendtest.UnknownModel: schemas.CodeModelNotFound,
			backendtest.ContextLength: schemas.CodeContextLength, backendtest.GaveUp: schemas.CodeUpstreamTimeout,
		}[s.Refusal]
	}
	b, err := echo.New(echo.Config{Name: "test", Dials: dials})
	if err != nil {
		t.Fatal(err)
	}
	return b, nobody{}
}

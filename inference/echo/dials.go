package echo

import (
	"encoding/json"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// Bounds of the dials that a request may turn.
const (
	maxTokens     = 1 << 20
	maxIntervalMS = 60_000
)

// Dials shape an answer and its faults. The member x_echo of a request body overrides those of the configuration one by
// one.
type Dials struct {
	Tokens     int  `json:"tokens,omitempty"`      // length of the answer; the text is repeated or cut. 0 = the text once
	IntervalMS int  `json:"interval_ms,omitempty"` // time before each token
	Vary       bool `json:"vary,omitempty"`        // each call gives another text, whatever Capabilities says

	// Faults. Of those that name a number of tokens the first to be reached happens.
	Fail         schemas.Code `json:"fail,omitempty"`           // fail with this code before the first event
	RetryAfterMS int          `json:"retry_after_ms,omitempty"` // what the failure asks for
	Cut          *int         `json:"cut,omitempty"`            // end after that many tokens, without a finish_reason
	Stall        *int         `json:"stall,omitempty"`          // stay silent after that many tokens, until the caller gives up
	Garbage      *int         `json:"garbage,omitempty"`        // fail after that many tokens as if what came was no JSON
	FaultyTries  int          `json:"faulty_tries,omitempty"`   // faults happen in the first that many calls only, those of other attempts included. 0 = in all
}

// override reads the member x_echo of a body.
func (d Dials) override(raw string) (Dials, error) {
	if raw == "" {
		return d, nil
	}
	if err := json.Unmarshal([]byte(raw), &d); err != nil {
		return d, schemas.Errorf(schemas.CodeInvalidValue, "x_echo cannot be read: send an object with tokens, interval_ms, vary, fail, retry_after_ms, cut, stall, garbage or faulty_tries").
			WithParam("x_echo").WithCause(err)
	}
	return d, d.validate()
}

func (d Dials) validate() error {
	if d.Tokens < 0 || d.Tokens > maxTokens || d.IntervalMS < 0 || d.IntervalMS > maxIntervalMS || d.RetryAfterMS < 0 || d.FaultyTries < 0 {
		return schemas.Errorf(schemas.CodeInvalidValue, "x_echo is out of range: tokens goes up to %d, interval_ms up to %d, and nothing below 0", maxTokens, maxIntervalMS).
			WithParam("x_echo")
	}
	switch d.Fail {
	case "", schemas.CodeRateLimit, schemas.CodeOverloaded, schemas.CodeUnavailable, schemas.CodeUpstreamError, schemas.CodeUpstreamTimeout,
		schemas.CodeUpstreamInterrupted, schemas.CodeUpstreamAuth, schemas.CodeUpstreamRejected, schemas.CodeModelNotFound,
		schemas.CodeContextLength, schemas.CodeContentFilter, schemas.CodeInternal:
		return nil
	}
	return schemas.Errorf(schemas.CodeInvalidValue, "x_echo.fail is no code that a model fails with: use one such as %q or %q", schemas.CodeUpstreamError, schemas.CodeRateLimit).
		WithParam("x_echo.fail")
}

func (d Dials) interval() time.Duration { return time.Duration(d.IntervalMS) * time.Millisecond }

// active reports whether the faults happen in this try.
func (d Dials) active(try int) bool { return d.FaultyTries == 0 || try <= d.FaultyTries }

// refusal is the failure before the first event, if there is to be one.
func (d Dials) refusal(try int) error {
	if d.Fail == "" || !d.active(try) {
		return nil
	}
	return schemas.Errorf(d.Fail, "the echo model was told to fail; turn its dial fail").
		WithRetryAfter(time.Duration(d.RetryAfterMS) * time.Millisecond)
}

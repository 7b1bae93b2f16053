// Package backendtest has the behaviour that every [inference.Backend] shares, as one suite: [Run] runs it over a backend
// and a fake server of its protocol. What a protocol has for itself is tested beside its backend.
//
// A fake is a real server on a real connection that says what a [Script] says in the words of its protocol. Each backend's
// tests hold one [Subject], which ties the two together.
package backendtest

import (
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

// Script is what the server does with every call, in terms that all protocols have. The zero value is not an answer; start
// from [Whole].
type Script struct {
	Model   string   // what the server calls the model
	Thought []string // reasoning, in pieces, before the text
	Text    []string // in pieces, each an event of its own
	Calls   []Call   // of tools, after the text
	Finish  string   // finish_reason in the terms of chat: stop, length or tool_calls
	Usage   schemas.Usage

	Pace time.Duration // before each piece of text but the first

	// Fault happens after At pieces of text, and not at all when it is empty. At -1 is before anything of the reply, its
	// status included. A fault of a unary answer happens in the middle of its document, wherever At is but at -1.
	Fault Fault
	At    int

	// Refusal is answered instead of the answer, or in the middle of it when Fault is [Fail]. It also refuses the list of
	// models and embeddings.
	Refusal    Refusal
	RetryAfter time.Duration // that the refusal asks for, in whole seconds; only set with RateLimit
}

// Call is a call of a tool.
type Call struct {
	ID, Name  string
	Arguments []string // JSON, in pieces; a protocol that has no pieces sends them together
}

// Fault is what goes wrong in an answer.
type Fault string

// The faults.
const (
	Hold    Fault = "hold"    // stay silent until the caller leaves
	Cut     Fault = "cut"     // end the stream as if all were well, without what ends an answer
	Reset   Fault = "reset"   // break the connection
	Fail    Fault = "fail"    // report Refusal in the stream
	Garbage Fault = "garbage" // send [Canary] where the protocol has an event
)

// Canary is what garbage and explanations of failures hold, and what no error may quote.
const Canary = "canary"

// Refusal is why a server does not answer.
type Refusal string

// The refusals, with the codes that callers get for them unless the subject says otherwise.
const (
	RateLimit     Refusal = "rate limit"     // rate_limit_exceeded
	Overloaded    Refusal = "overloaded"     // server_is_overloaded
	Internal      Refusal = "internal"       // upstream_error
	Invalid       Refusal = "invalid"        // upstream_rejected
	Credentials   Refusal = "credentials"    // upstream_auth
	UnknownModel  Refusal = "unknown model"  // model_not_found
	ContextLength Refusal = "context length" // context_length_exceeded
	GaveUp        Refusal = "gave up"        // upstream_timeout
)

func refusals() map[Refusal]schemas.Code {
	return map[Refusal]schemas.Code{
		RateLimit: schemas.CodeRateLimit, Overloaded: schemas.CodeOverloaded, Internal: schemas.CodeUpstreamError,
		Invalid: schemas.CodeUpstreamRejected, Credentials: schemas.CodeUpstreamAuth, UnknownModel: schemas.CodeModelNotFound,
		ContextLength: schemas.CodeContextLength, GaveUp: schemas.CodeUpstreamTimeout,
	}
}

// Server is a fake that is running. Its methods are safe for concurrent use.
type Server interface {
	// Asked lists the model of each call so far, as the server got it. Lists of models and checks of health are no calls.
	Asked() []string

	// Gone gets a value when a caller leaves before its answer is whole.
	Gone() <-chan struct{}
}

// Subject is a backend under test and what is particular about it.
type Subject struct {
	// Start starts a fake that plays the script, and a backend that calls it; both end with the test. It is called from
	// concurrent tests. The backend's own configuration names no model, so that the request's name is sent.
	Start func(t testing.TB, s Script, timeouts inference.Timeouts) (inference.Backend, Server)

	// Dial makes a backend for an address where something else stands. With secure it uses TLS, or whatever else needs an
	// answer before there is a connection. Nil is a backend without a server: nothing can happen on the way to it.
	Dial func(t testing.TB, address string, secure bool, timeouts inference.Timeouts) inference.Backend

	Op        schemas.Op // of the requests; default chat. Completion and messages are the others.
	Tools     bool       // it can call tools
	Reasoning bool       // its thoughts are told apart from its text
	Embeds    bool
	Models    []string // that the server lists; default m1 and m2

	Unary func(s Script) bool            // whether the script can be played to a unary request; default: all can
	Codes map[Refusal]schemas.Code       // of refusals that differ; an empty code is a refusal that the protocol does not have
	Usage *schemas.Usage                 // of every answer, for a server that cannot be told what to count
	Shown func(e inference.Event) string // the text of an event whose chunk does not hold it
}

// Whole is an answer to the suite's question, which is also what echo says to it.
func Whole() Script {
	return Script{
		Model: "m", Text: []string{"echo: ", "Hello ", "world"}, Finish: "stop",
		Usage: schemas.Usage{PromptTokens: 3, CompletionTokens: 3, TotalTokens: 6},
	}
}

// Run runs the suite.
func Run(t *testing.T, s Subject) {
	t.Helper()
	for name, check := range map[string]func(*testing.T, Subject){
		"stream": stream, "unary": unary, "usage asked for": usageAskedFor, "finish reasons": finishReasons, "model names": modelNames,
		"calls": calls, "tools": tools, "reasoning": reasoning, "large": large, "together": together,
		"refused": refused, "failed later": failedLater, "cut": cut, "garbage": garbage, "broken": broken,
		"cancelled": cancelled, "abandoned": abandoned, "deadline": deadline, "timeouts": timeouts, "unreachable": unreachable, "slow consumer": slowConsumer,
		"nothing left": nothingLeft, "models": models, "embeddings": embeddings, "other ops": otherOps,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			check(t, s)
		})
	}
}

// local reports whether there is no server.
func (s Subject) local() bool { return s.Dial == nil }

// plays reports whether a script can be played to a request of this kind.
func (s Subject) plays(script Script, streamed bool) bool {
	return streamed || s.Unary == nil || s.Unary(script)
}

// code is what a refusal is told as; ok is false for one that the protocol does not have.
func (s Subject) code(r Refusal) (code schemas.Code, ok bool) {
	if code, differs := s.Codes[r]; differs {
		return code, code != ""
	}
	return refusals()[r], true
}

// usage is what an answer costs.
func (s Subject) usage(script Script) schemas.Usage {
	if s.Usage != nil {
		return *s.Usage
	}
	return script.Usage
}

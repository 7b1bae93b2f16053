package backendtest

import (
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

// refused has every refusal before the first byte of an answer, with nothing but the error.
func refused(t *testing.T, s Subject) {
	for refusal := range refusals() {
		code, ok := s.code(refusal)
		if !ok {
			continue
		}
		t.Run(string(refusal), func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, streamed bool) {
				script := Whole()
				script.Refusal = refusal
				if refusal == RateLimit {
					script.RetryAfter = 7 * time.Second
				}
				if !s.plays(script, streamed) {
					return
				}
				b, _ := s.started(t, script)
				a := s.ask(t.Context(), t, b, s.request(streamed))
				if a.err == nil || a.err.Code != code || len(a.events) > 0 {
					t.Fatalf("%d events, then %v; want %s alone", len(a.events), a.err, code)
				}
				if a.err.RetryAfter != script.RetryAfter {
					t.Errorf("retry after %v, want %v", a.err.RetryAfter, script.RetryAfter)
				}
			})
		})
	}
}

// interrupted wants the text before a fault and then an error of this code.
func (s Subject) interrupted(t *testing.T, script Script, code schemas.Code) {
	t.Helper()
	b, _ := s.started(t, script)
	a := s.ask(t.Context(), t, b, s.request(true))
	if a.err == nil || a.err.Code != code {
		t.Fatalf("%q, then %v; want %s", a.events, a.err, code)
	}
	if want := strings.Join(script.Text[:max(script.At, 0)], ""); a.text != want {
		t.Errorf("%q was passed on, want %q", a.text, want)
	}
	if len(a.finish) > 0 {
		t.Errorf("a cut answer has the finish reason %q", a.finish)
	}
}

// everywhere runs a check at each place of an answer where a fault can be.
func everywhere(t *testing.T, fault Fault, check func(t *testing.T, script Script)) {
	for at := range len(Whole().Text) + 1 {
		script := Whole()
		script.Fault, script.At, script.Refusal = fault, at, Internal
		check(t, script)
	}
}

func failedLater(t *testing.T, s Subject) {
	if s.local() {
		return
	}
	everywhere(t, Fail, func(t *testing.T, script Script) { s.interrupted(t, script, schemas.CodeUpstreamError) })
}

func cut(t *testing.T, s Subject) {
	everywhere(t, Cut, func(t *testing.T, script Script) {
		script.Refusal = ""
		s.interrupted(t, script, schemas.CodeUpstreamInterrupted)
	})
}

func garbage(t *testing.T, s Subject) {
	everywhere(t, Garbage, func(t *testing.T, script Script) {
		script.Refusal = ""
		s.interrupted(t, script, schemas.CodeUpstreamError)
	})
}

// broken has a connection that breaks: before the reply, anywhere in a stream, and in the middle of a document.
func broken(t *testing.T, s Subject) {
	if s.local() {
		return
	}
	everywhere(t, Reset, func(t *testing.T, script Script) {
		script.Refusal = ""
		b, _ := s.started(t, script)
		a := s.ask(t.Context(), t, b, s.request(true))
		if a.err == nil || a.err.Code != schemas.CodeUpstreamInterrupted && (script.At > 0 || a.err.Code != schemas.CodeUpstreamError) {
			t.Errorf("broken after %d pieces: %q, then %v", script.At, a.events, a.err)
		}
		if !strings.HasPrefix(strings.Join(script.Text, ""), a.text) || len(a.finish) > 0 {
			t.Errorf("broken after %d pieces: %q ended for %q", script.At, a.text, a.finish)
		}
	})
	both(t, func(t *testing.T, streamed bool) {
		script := Whole()
		script.Fault, script.At = Reset, -1
		if !s.plays(script, streamed) {
			return
		}
		b, _ := s.started(t, script)
		if a := s.ask(t.Context(), t, b, s.request(streamed)); a.err == nil || a.err.Code != schemas.CodeUpstreamError || len(a.events) > 0 {
			t.Errorf("%d events, then %v; want %s alone", len(a.events), a.err, schemas.CodeUpstreamError)
		}
	})
	script := Whole()
	script.Fault, script.At = Reset, 1
	if s.plays(script, false) {
		b, _ := s.started(t, script)
		if a := s.ask(t.Context(), t, b, s.request(false)); a.err == nil || len(a.events) > 0 {
			t.Errorf("half a document: %q, %v", a.events, a.err)
		}
	}
}

// unreachable has nobody at the address.
func unreachable(t *testing.T, s Subject) {
	if s.local() {
		return
	}
	const address = "127.0.0.1:1" // a port that was free a moment ago may be another test's by now
	b := s.Dial(t, address, false, inference.Timeouts{})
	a := s.ask(t.Context(), t, b, s.request(true))
	if a.err == nil || a.err.Code != schemas.CodeUpstreamError || strings.Contains(a.err.Message, address) {
		t.Errorf("error %v, want %s that does not say where", a.err, schemas.CodeUpstreamError)
	}
	if b.Health(t.Context()) == nil {
		t.Error("a server that is not there is healthy")
	}
}

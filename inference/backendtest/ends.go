package backendtest

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

// noticeLimit is how long a server may take to notice that its caller left. The promise is a second, which is measured
// through the whole pipeline elsewhere; the rest is for a machine that has other work.
const noticeLimit = 30 * time.Second

// brief is a timeout that is to pass.
const brief = 100 * time.Millisecond

// left waits until the server notices that its caller left. A call that ended before it reached the server, as one with a
// short timeout may on a busy machine, has left nothing there.
func (s Subject) left(t testing.TB, server Server) {
	t.Helper()
	if s.local() {
		return
	}
	select {
	case <-server.Gone():
	case <-time.After(noticeLimit):
		if len(server.Asked()) > 0 {
			t.Errorf("the server was still being listened to after %v", noticeLimit)
		}
	}
}

// asked waits until the server has the call.
func (s Subject) asked(ctx context.Context, server Server) {
	for !s.local() && len(server.Asked()) == 0 && ctx.Err() == nil {
		time.Sleep(time.Millisecond) // it has nothing to tell when a call comes
	}
}

// cancelled cancels a call with a cause in each of its phases.
func cancelled(t *testing.T, s Subject) {
	endless := Whole()
	endless.Text, endless.Pace = make([]string, 100_000), time.Millisecond
	for i := range endless.Text {
		endless.Text[i] = "a"
	}
	silent, held := Whole(), Whole()
	silent.Fault, silent.At = Hold, -1
	held.Fault, held.At = Hold, 1
	for name, test := range map[string]struct {
		script   Script
		streamed bool
	}{
		"before the reply": {silent, true}, "in the stream": {held, true}, "while it sends": {endless, true},
		"unary": {silent, false}, "in the document": {held, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !s.plays(test.script, test.streamed) || s.local() && name == "while it sends" {
				return
			}
			b, server := s.started(t, test.script)
			ctx, cancel := context.WithCancelCause(t.Context())
			go func() {
				s.asked(ctx, server)
				cancel(schemas.Errorf(schemas.CodeShutdown, "stopping"))
			}()
			a := s.ask(ctx, t, b, s.request(test.streamed))
			if a.err == nil || a.err.Code != schemas.CodeShutdown {
				t.Errorf("error %v, want the cause of the cancellation", a.err)
			}
			s.left(t, server)
		})
	}
	t.Run("before it begins", func(t *testing.T) {
		t.Parallel()
		b, _ := s.started(t, Whole())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if a := s.ask(ctx, t, b, s.request(true)); a.err == nil || a.err.Code != schemas.CodeCancelled || len(a.events) > 0 {
			t.Errorf("%d events, then %v; want %s", len(a.events), a.err, schemas.CodeCancelled)
		}
	})
}

// abandoned has a loop that breaks out, and one whose body blocks while the call is cancelled.
func abandoned(t *testing.T, s Subject) {
	script := Whole()
	script.Fault, script.At = Hold, 1
	t.Run("break", func(t *testing.T) {
		t.Parallel()
		b, server := s.started(t, script)
		for range b.Generate(t.Context(), s.request(true)) {
			break
		}
		s.left(t, server)
	})
	t.Run("break anywhere", func(t *testing.T) {
		t.Parallel()
		b, _ := s.started(t, Whole())
		for last := range 8 {
			n := 0
			for range b.Generate(t.Context(), s.request(true)) { // which panics when it yields again
				if n++; n > last {
					break
				}
			}
		}
	})
	t.Run("cancelled while the loop blocks", func(t *testing.T) {
		t.Parallel()
		b, server := s.started(t, script)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		first := true
		a := s.ask(ctx, t, b, s.request(true), func() {
			if first {
				first = false
				cancel()
				s.left(t, server)
			}
		})
		if a.err == nil || a.err.Code != schemas.CodeCancelled {
			t.Errorf("error %v, want %s", a.err, schemas.CodeCancelled)
		}
	})
	t.Run("before a silence", func(t *testing.T) {
		t.Parallel()
		b, server := s.started(t, script)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		first := true
		seen := func() { // the first piece is there, or right behind this event
			if first {
				first = false
				time.AfterFunc(20*brief, cancel)
			}
		}
		if a := s.ask(ctx, t, b, s.request(true), seen); a.waits || a.text != script.Text[0] {
			t.Errorf("%q was passed on before a silence, with the promise of more: %t", a.text, a.waits)
		}
		s.left(t, server)
	})
}

func deadline(t *testing.T, s Subject) {
	script := Whole()
	script.Fault, script.At = Hold, 1
	b, server := s.started(t, script)
	r := s.request(true)
	r.Deadline = time.Now().Add(5 * brief)
	if a := s.ask(t.Context(), t, b, r); a.err == nil || a.err.Code != schemas.CodeDeadline {
		t.Errorf("error %v, want %s", a.err, schemas.CodeDeadline)
	}
	s.left(t, server)
}

// timeouts lets each of them pass; the error says which it was.
func timeouts(t *testing.T, s Subject) {
	if s.local() {
		return
	}
	silent, held, slow := Whole(), Whole(), Whole()
	silent.Fault, silent.At = Hold, -1
	held.Fault, held.At = Hold, 1
	slow.Text, slow.Pace = make([]string, 10_000), 10*time.Millisecond
	for i := range slow.Text {
		slow.Text[i] = "a"
	}
	for name, test := range map[string]struct {
		script   Script
		streamed bool
		timeouts inference.Timeouts
		says     string
	}{
		"first token":     {silent, true, inference.Timeouts{FirstToken: brief}, "first-token timeout"},
		"idle":            {held, true, inference.Timeouts{Idle: brief}, "idle timeout"},
		"idle, unary":     {held, false, inference.Timeouts{Idle: brief}, "idle timeout"},
		"total":           {slow, true, inference.Timeouts{Total: 3 * brief}, "total timeout"},
		"total, unary":    {silent, false, inference.Timeouts{Total: brief}, "total timeout"},
		"total, in a gap": {held, true, inference.Timeouts{Total: 3 * brief}, "total timeout"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !s.plays(test.script, test.streamed) {
				return
			}
			b, server := s.Start(t, test.script, test.timeouts)
			a := s.ask(t.Context(), t, b, s.request(test.streamed))
			if a.err == nil || a.err.Code != schemas.CodeUpstreamTimeout || !strings.Contains(a.err.Message, test.says) {
				t.Errorf("error %v, want %s that names the %s", a.err, schemas.CodeUpstreamTimeout, test.says)
			}
			s.left(t, server)
		})
	}
	t.Run("connect", func(t *testing.T) {
		t.Parallel()
		mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts and says nothing, so that nothing secure comes about
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { mute.Close() })
		b := s.Dial(t, mute.Addr().String(), true, inference.Timeouts{Connect: brief})
		a := s.ask(t.Context(), t, b, s.request(true))
		if a.err == nil || a.err.Code != schemas.CodeUpstreamTimeout || !strings.Contains(a.err.Message, "connect timeout") {
			t.Errorf("error %v, want %s that names the connect timeout", a.err, schemas.CodeUpstreamTimeout)
		}
	})
}

// slowConsumer has a loop body that takes longer than the server may be silent, while the next piece is still to come.
func slowConsumer(t *testing.T, s Subject) {
	const idle = 3 * time.Second
	script := Whole()
	script.Pace = brief
	b, _ := s.Start(t, script, inference.Timeouts{Idle: idle})
	events := 0
	a := s.ask(t.Context(), t, b, s.request(true), func() {
		if events++; events == 3 {
			time.Sleep(idle + idle/2) // the loop body's own time is what is tested
		}
	})
	s.wantWhole(t, a, script)
}

package backendtest

import (
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

// started is a backend with default timeouts.
func (s Subject) started(t testing.TB, script Script) (inference.Backend, Server) {
	t.Helper()
	return s.Start(t, script, inference.Timeouts{})
}

// wantWhole checks that an answer is the script's.
func (s Subject) wantWhole(t testing.TB, a answer, script Script) {
	t.Helper()
	if a.err != nil {
		t.Fatalf("%v after %q", a.err, a.events)
	}
	if want := strings.Join(script.Text, ""); a.text != want {
		t.Errorf("text %.200q, want %.200q", a.text, want)
	}
	if diff := cmp.Diff([]string{script.Finish}, a.finish); diff != "" {
		t.Errorf("finish reasons (-want +got):\n%s", diff)
	}
	want, got := s.usage(script), schemas.Usage{}
	if len(a.usage) > 0 {
		got = a.usage[len(a.usage)-1]
	}
	if got.PromptTokens != want.PromptTokens || got.CompletionTokens != want.CompletionTokens || got.TotalTokens != want.TotalTokens {
		t.Errorf("usage %+v, want %+v", a.usage, want)
	}
}

func stream(t *testing.T, s Subject) {
	b, server := s.started(t, Whole())
	a := s.ask(t.Context(), t, b, s.request(true))
	s.wantWhole(t, a, Whole())
	if b.Name() == "" || !s.local() && len(server.Asked()) != 1 {
		t.Errorf("backend %q called the server %d times", b.Name(), len(server.Asked()))
	}
	if s.Op == schemas.OpMessages {
		return
	}
	if role := gjson.Get(a.events[0], "choices.0.delta.role").Str; s.Op != schemas.OpCompletion && role != "assistant" {
		t.Errorf("the first event says nothing of the role: %s", a.events[0])
	}
	for _, event := range a.events {
		if !gjson.Get(event, "choices.0").Exists() {
			t.Errorf("an event that was not asked for: %s", event)
		}
	}
}

func unary(t *testing.T, s Subject) {
	if !s.plays(Whole(), false) {
		return
	}
	b, _ := s.started(t, Whole())
	a := s.ask(t.Context(), t, b, s.request(false))
	s.wantWhole(t, a, Whole())
	if len(a.events) != 1 {
		t.Errorf("a unary answer of %d events", len(a.events))
	}
}

func usageAskedFor(t *testing.T, s Subject) {
	if s.Op == schemas.OpMessages {
		return // events of the dialect hold it
	}
	b, _ := s.started(t, Whole())
	a := s.ask(t.Context(), t, b, s.request(true, `"stream_options":{"include_usage":true}`))
	s.wantWhole(t, a, Whole())
	last := a.events[len(a.events)-1]
	if got, want := gjson.Get(last, "usage.total_tokens").Int(), s.usage(Whole()).TotalTokens; got != int64(want) || gjson.Get(last, "choices.#").Int() != 0 {
		t.Errorf("the last event is %s, want a chunk with %d tokens and no choice", last, want)
	}
}

func finishReasons(t *testing.T, s Subject) {
	both(t, func(t *testing.T, streamed bool) {
		script := Whole()
		script.Text, script.Finish, script.Usage.CompletionTokens, script.Usage.TotalTokens = script.Text[:2], "length", 2, 5
		if !s.plays(script, streamed) {
			return
		}
		b, _ := s.started(t, script)
		a := s.ask(t.Context(), t, b, s.request(streamed, `"max_tokens":2`))
		if a.err != nil || a.text != strings.Join(script.Text, "") || !cmp.Equal(a.finish, []string{"length"}) {
			t.Errorf("%q ended for %q, %v", a.text, a.finish, a.err)
		}
	})
}

func modelNames(t *testing.T, s Subject) {
	if s.local() {
		return
	}
	both(t, func(t *testing.T, streamed bool) {
		script := Whole()
		script.Model = "real"
		if !s.plays(script, streamed) {
			return
		}
		b, server := s.started(t, script)
		r := s.request(streamed)
		r.Model = "real"
		a := s.ask(t.Context(), t, b, r) // which looks for the public name in each event
		s.wantWhole(t, a, script)
		if diff := cmp.Diff([]string{"real"}, server.Asked()); diff != "" {
			t.Errorf("the server was asked for (-want +got):\n%s", diff)
		}
		if s.Op == schemas.OpMessages && strings.Contains(strings.Join(a.events, ""), `"real"`) {
			t.Errorf("the caller sees the server's name for the model: %s", a.events)
		}
	})
}

// calls has one call of the server for each loop, and none before.
func calls(t *testing.T, s Subject) {
	b, server := s.started(t, Whole())
	answers := b.Generate(t.Context(), s.request(true))
	for want := range 3 {
		if got := len(server.Asked()); got != want && !s.local() {
			t.Errorf("the server was called %d times after %d loops", got, want)
		}
		for _, err := range answers {
			if err != nil {
				t.Fatal(err)
			}
		}
	}
}

func tools(t *testing.T, s Subject) {
	if !s.Tools {
		return
	}
	both(t, func(t *testing.T, streamed bool) {
		script := Whole()
		script.Finish = "tool_calls"
		script.Calls = []Call{
			{ID: "call_1", Name: "weather", Arguments: []string{`{"city"`, `:"Malmö \"north\"",`, `"days":[1,2]}`}},
			{ID: "call_2", Name: "time", Arguments: []string{`{}`}},
		}
		if !s.plays(script, streamed) {
			return
		}
		b, _ := s.started(t, script)
		const members = `"tools":[{"type":"function","function":{"name":"weather","parameters":{"type":"object","properties":{}}}},{"type":"function","function":{"name":"time"}}]`
		a := s.ask(t.Context(), t, b, s.request(streamed, members))
		s.wantWhole(t, a, script)
		if len(a.tools) != 2 {
			t.Fatalf("tool calls %+v, want two", a.tools)
		}
		for i, want := range script.Calls {
			if got := a.tools[i]; got.ID != want.ID || got.Name != want.Name || !sameArguments(got, want) {
				t.Errorf("tool call %+v, want %+v", got, want)
			}
		}
	})
}

func reasoning(t *testing.T, s Subject) {
	if !s.Reasoning {
		return
	}
	both(t, func(t *testing.T, streamed bool) {
		script := Whole()
		script.Thought = []string{"Let me ", "think."}
		if !s.plays(script, streamed) {
			return
		}
		b, _ := s.started(t, script)
		a := s.ask(t.Context(), t, b, s.request(streamed))
		s.wantWhole(t, a, script)
		if a.thought != "Let me think." {
			t.Errorf("thought %q", a.thought)
		}
	})
}

// large has pieces up to what any protocol must carry, and one beyond what any may.
func large(t *testing.T, s Subject) {
	if s.local() {
		return
	}
	for size, whole := range map[int]bool{5 << 20: true, 17 << 20: false} {
		t.Run(fmt.Sprintf("%d MiB", size>>20), func(t *testing.T) {
			t.Parallel()
			both(t, func(t *testing.T, streamed bool) {
				script := Whole()
				script.Text[1] = strings.Repeat("x", size)
				if !s.plays(script, streamed) {
					return
				}
				b, _ := s.started(t, script)
				a := s.ask(t.Context(), t, b, s.request(streamed))
				if whole {
					s.wantWhole(t, a, script)
				} else if a.err == nil || a.err.Code != schemas.CodeUpstreamError {
					t.Errorf("error %v, want %s", a.err, schemas.CodeUpstreamError)
				}
			})
		})
	}
}

// together has several calls at once.
func together(t *testing.T, s Subject) {
	b, _ := s.started(t, Whole())
	var group sync.WaitGroup
	for range 16 {
		group.Go(func() {
			if a := s.ask(t.Context(), t, b, s.request(true)); a.err != nil || a.text != "echo: Hello world" {
				t.Errorf("%q, %v", a.text, a.err)
			}
		})
	}
	group.Wait()
}

package openai_test

import (
	"strings"
	"testing"

	"github.com/weir-llm/weir/inference/openai"
	"github.com/weir-llm/weir/internal/openai/openaitest"
	"github.com/weir-llm/weir/schemas"
)

// An event that cannot be read fails the call, or is left out and counted, as the operator wants it; garbage without end fails
// it either way.
func TestMalformedEvents(t *testing.T) {
	t.Parallel()
	whole := openaitest.Answer("Hello", " world")
	with := func(n int) []string {
		events := []string{whole[0], whole[1]}
		for range n {
			events = append(events, `{"choices":[{"delta":{"content":"lo`)
		}
		return append(events, whole[2:]...)
	}
	for name, test := range map[string]struct {
		skip   bool
		events []string
		passed int
		out    int
		code   schemas.Code
	}{
		"fails":         {false, with(1), 2, 0, schemas.CodeUpstreamError},
		"is left out":   {true, with(1), 4, 1, ""},
		"a hundred are": {true, with(100), 4, 100, ""},
		"more are not":  {true, with(101), 2, 0, schemas.CodeUpstreamError},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b, _ := start(t, openai.Config{SkipMalformed: test.skip}, openaitest.Dials{Events: test.events})
			passed, out := 0, 0
			var failed *schemas.Error
			for event, err := range b.Generate(t.Context(), request(streamed)) {
				if err != nil {
					failed = schemas.AsError(err)
					break
				}
				if len(event.Data) > 0 {
					passed++
				}
				out += event.LeftOut
			}
			if passed != test.passed || test.code == "" && out != test.out || failed == nil && test.code != "" || failed != nil && failed.Code != test.code {
				t.Errorf("%d events, %d left out, %v", passed, out, failed)
			}
			if failed != nil && strings.Contains(failed.Error(), "content") {
				t.Errorf("the error quotes the answer: %v", failed)
			}
		})
	}
}

// Between two events a server may cut a rune in two.
func TestRuneInTwoEvents(t *testing.T) {
	t.Parallel()
	whole := openaitest.Answer("x", "y", "!")
	whole[1], whole[2] = strings.Replace(whole[1], `"x"`, "\"gr\xc3\"", 1), strings.Replace(whole[2], `"y"`, "\"\xbc\xc3\x9fe\"", 1)
	b, _ := start(t, openai.Config{}, openaitest.Dials{Events: whole})
	events, _, err := generate(t.Context(), b, request(streamed))
	if text := strings.Join(events, ""); err != nil || !strings.Contains(text, `"gr"`) || !strings.Contains(text, `"üße"`) {
		t.Errorf("%v: %s", err, text)
	}
}

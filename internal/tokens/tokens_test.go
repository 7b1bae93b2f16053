package tokens

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

func counter(t testing.TB) *Counter {
	t.Helper()
	c, err := New()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// TestPrompt counts what OpenAI's own recipe counts: each text, 3 for a message, 1 for a name and 3 for the answer to begin.
func TestPrompt(t *testing.T) {
	t.Parallel()
	c := counter(t)
	for body, want := range map[string]int64{
		`{"messages":[{"role":"user","content":"hello"}]}`:                                                              3 + 3 + 1 + 1,
		`{"messages":[{"role":"system","content":"hello world"},{"role":"user","name":"bob","content":"hello"}]}`:       3 + (3 + 1 + 2) + (3 + 1 + 1 + 1 + 1),
		`{"messages":[{"role":"user","content":[{"type":"text","text":"hello"},{"type":"image_url","image_url":{}}]}]}`: 3 + 3 + 1 + 1 + perAttachment,
		`{"messages":[{"role":"user","content":"he\u006clo"}]}`:                                                         3 + 3 + 1 + 1,
		`{"messages":[{"role":"user","content":""}],"tools":[]}`:                                                        3 + 3 + 1 + 1,
		`{"prompt":"hello world"}`:                 2,
		`{"prompt":["hello","hello world"]}`:       3,
		`{"prompt":[1,2,3]}`:                       3,
		`{"input":["hello",[1,2]]}`:                3,
		`{"instructions":"hello","input":"hello"}`: 2,
		`{"system":"hello","messages":[{"role":"user","content":[{"type":"tool_result","content":"hello world"}]}]}`: 1 + 3 + 3 + 1 + 2,
		`{}`:                              0,
		`[`:                               0,
		`{"messages":7,"prompt":{"a":1}}`: 3 + 1 + perAttachment,
	} {
		if got := c.Prompt([]byte(body)); got != want {
			t.Errorf("%s has %d tokens, want %d", body, got, want)
		}
	}
}

// TestMaxExact is at the limit, and one byte beyond.
func TestMaxExact(t *testing.T) {
	t.Parallel()
	c := counter(t)
	body := func(text string) []byte { return fmt.Appendf(nil, `{"prompt":%q}`, text) }
	text := strings.Repeat("hello ", MaxExact/6) + "abcd"
	if len(text) != MaxExact {
		t.Fatal(len(text))
	}
	if got, words := c.Prompt(body(text)), int64(MaxExact/6); got < words || got > words+4 {
		t.Errorf("%d tokens of %d words", got, words)
	}
	over := len(text) + 1
	if got, want := c.Prompt(body(text+"e")), int64(float64(over)/BytesPerToken); got != want {
		t.Errorf("%d tokens, want %d", got, want)
	}
}

// TestHostileText takes no more than a moment, whatever the text is made of: what grows with the square of it takes far longer
// than is allowed here to a machine that is busy.
func TestHostileText(t *testing.T) {
	t.Parallel()
	c := counter(t)
	for _, piece := range []string{"a", " ", "\n", "'", "\u0301", "aB", " \n", "1", "\x80", "漢", "x'"} {
		text := strings.Repeat(piece, MaxExact/len(piece))
		began := time.Now()
		n := (&sum{counter: c, left: MaxExact})
		n.text(text)
		took := time.Since(began)
		t.Logf("%q: %d tokens in %s", piece, n.tokens, took)
		if n.tokens == 0 || took > time.Minute {
			t.Errorf("%d bytes of %q: %d tokens in %s", len(text), piece, n.tokens, took)
		}
	}
}

func TestConcurrentUse(t *testing.T) {
	t.Parallel()
	c := counter(t)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 50 {
				if got := c.Prompt([]byte(`{"prompt":"hello world"}`)); got != 2 {
					t.Errorf("%d tokens", got)
				}
			}
		})
	}
	all.Wait()
}

func BenchmarkPrompt(b *testing.B) {
	c := counter(b)
	body := fmt.Appendf(nil, `{"messages":[{"role":"user","content":%q}]}`, strings.Repeat("The quick brown fox jumps over the lazy dog. ", 45))
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		c.Prompt(body)
	}
}

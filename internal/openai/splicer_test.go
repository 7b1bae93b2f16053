package openai

import (
	"errors"
	"fmt"
	"iter"
	"slices"
	"strings"
	"testing"
)

func textChunk(id, content string) string {
	return fmt.Sprintf(`{"id":%q,"object":"chat.completion.chunk","created":1,"model":"m","choices":[{"index":0,"delta":{"content":%q},"finish_reason":null}]}`, id, content)
}

func run(id string, pieces ...string) []string {
	events := []string{fmt.Sprintf(`{"id":%q,"created":1,"model":"m","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}]}`, id)}
	for _, piece := range pieces {
		events = append(events, textChunk(id, piece))
	}
	return append(events, fmt.Sprintf(`{"id":%q,"created":1,"model":"m","choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}`, id))
}

func indexed(events []string) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for i, event := range events {
			if !yield(uint64(i), []byte(event)) {
				return
			}
		}
	}
}

// text is the decoded content of events and their finish reasons, which must be of one id.
func text(t *testing.T, events []string) string {
	t.Helper()
	var all strings.Builder
	var c Chunk
	for _, event := range events {
		if err := c.Peek([]byte(event)); err != nil {
			t.Fatal(err)
		}
		if c.ID != "first" {
			t.Errorf("event has id %q", c.ID)
		}
		for _, o := range c.Choices {
			all.WriteString(o.Content)
			if o.Finish != "" {
				all.WriteString("<" + o.Finish + ">")
			}
		}
	}
	return all.String()
}

func splice(seen, second []string) (out []string, err error) {
	s, err := NewSplicer(indexed(seen))
	if err != nil {
		return nil, err
	}
	for _, event := range second {
		data, keep, err := s.Next([]byte(event))
		if err != nil {
			return out, err
		}
		if keep {
			out = append(out, string(data))
		}
	}
	return out, s.Done()
}

func TestSpliceIsWholeAtEveryCut(t *testing.T) {
	t.Parallel()
	first := run("first", "Hel", "lo, ", "wörl", "d \"ok\"\n", "🎉!")
	// The second run may be cut into other pieces.
	second := run("second", "H", "ello, w", "örld \"", "ok\"\n🎉", "!")
	want := text(t, first)
	for cut := range len(first) + 1 {
		rest, err := splice(first[:cut], second)
		if cut == 0 {
			continue // nothing visible is a fresh run, not a splice
		}
		if err != nil {
			t.Fatalf("cut %d: %v", cut, err)
		}
		if got := text(t, slices.Concat(first[:cut], rest)); got != want {
			t.Errorf("cut %d: got %q, want %q", cut, got, want)
		}
	}
}

// asText turns the events of a chat into those of a text completion.
func asText(events []string) (out []string) {
	replacer := strings.NewReplacer(`"delta":{"role":"assistant","content":""}`, `"text":""`, `"delta":{}`, `"text":""`, `"delta":{"content":`, `"text":`, `},"finish`, `,"finish`)
	for _, event := range events {
		out = append(out, replacer.Replace(event))
	}
	return out
}

func TestSpliceOfACompletionIsWholeAtEveryCut(t *testing.T) {
	t.Parallel()
	first, second := asText(run("first", "Hel", "lo, ", "wörl", "d")), asText(run("second", "H", "ello, w", "örld"))
	for cut := 1; cut <= len(first); cut++ {
		rest, err := splice(first[:cut], second)
		if err != nil {
			t.Fatalf("cut %d: %v", cut, err)
		}
		if got, want := text(t, slices.Concat(first[:cut], rest)), text(t, first); got != want || want != "Hello, wörld<stop>" {
			t.Errorf("cut %d: got %q, want %q", cut, got, want)
		}
		if all := strings.Join(rest, ""); strings.Contains(all, "delta") {
			t.Errorf("cut %d: %s", cut, all)
		}
	}
}

func TestSpliceRefusesWhatDiffers(t *testing.T) {
	t.Parallel()
	seen := run("first", "one two", " three")
	for name, second := range map[string][]string{
		"another word": run("second", "one too", " three"),
		"shorter":      run("second", "one"),
		"longer":       run("second", "one two three four"),
		"not JSON":     {"nonsense"},
	} {
		if _, err := splice(seen, second); !errors.Is(err, ErrDiverged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	tool := `{"id":"first","choices":[{"index":0,"delta":{"tool_calls":[{"index":0,"id":"c","function":{"name":"f"}}]},"finish_reason":null}]}`
	if _, err := splice([]string{tool}, seen); !errors.Is(err, ErrNotSpliceable) {
		t.Errorf("tool call: %v", err)
	}
}

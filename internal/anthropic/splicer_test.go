package anthropic

import (
	"errors"
	"iter"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/anthropic/anthropictest"
	"github.com/weir-llm/weir/internal/openai"
)

func numbered(events []string) iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for i, event := range events {
			if !yield(uint64(i), []byte(event)) {
				return
			}
		}
	}
}

// joined is what readers get of a second run, and its error.
func joined(s *Splicer, events []string) (made []string, err error) {
	for _, event := range events {
		out, err := s.Next([]byte(event))
		if err != nil {
			return made, err
		}
		for _, data := range out {
			made = append(made, string(data))
		}
	}
	return made, s.Done()
}

// A run that says the same again is joined wherever the first was cut: both together are the first run.
func TestSplicerAtEveryCut(t *testing.T) {
	t.Parallel()
	whole := anthropictest.Whole("end_turn", anthropictest.Text(0, "Hello ", "w\u00f6rld"), anthropictest.Text(1, "and more"))
	for cut := range whole {
		s, err := NewSplicer(numbered(whole[:cut]))
		if err != nil {
			t.Fatalf("after %d events: %v", cut, err)
		}
		made, err := joined(s, whole)
		want := whole[cut:]
		if cut == 0 {
			want = whole[1:] // nobody cuts there: the beginning is always visible
		}
		if diff := cmp.Diff(want, made); diff != "" || err != nil {
			t.Errorf("after %d events: %v (-want +got):\n%s", cut, err, diff)
		}
	}
}

func TestWhatIsNotSpliced(t *testing.T) {
	t.Parallel()
	for name, blocks := range map[string][]string{
		"a thought":                   anthropictest.Thinking(0, "sig", "Hm"),
		"a signed thought of no word": anthropictest.Thinking(0, "sig"),
		"a call of a tool":            anthropictest.Tool(0, "toolu_1", "f", `{"a":1}`),
		"the beginning of a call":     anthropictest.Tool(0, "toolu_1", "f")[:1],
		"a citation":                  {anthropictest.Text(0)[0], `{"type":"content_block_delta","index":0,"delta":{"type":"citations_delta","citation":{}}}`},
		"an unknown block":            {`{"type":"content_block_start","index":0,"content_block":{"type":"server_tool_use","id":"x"}}`},
		"an unknown event":            {`{"type":"content_block_replace","index":0}`},
		"blocks out of order":         anthropictest.Text(1, "x"),
	} {
		if _, err := NewSplicer(numbered(append([]string{anthropictest.Start}, blocks...))); !errors.Is(err, openai.ErrNotSpliceable) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestRunsThatDiverge(t *testing.T) {
	t.Parallel()
	seen := append([]string{anthropictest.Start}, anthropictest.Text(0, "Hello ", "world")...)
	for name, second := range map[string][]string{
		"other words":             anthropictest.Whole("end_turn", anthropictest.Text(0, "Hello ", "there")),
		"fewer words":             anthropictest.Whole("end_turn", anthropictest.Text(0, "Hello ")),
		"more words":              anthropictest.Whole("end_turn", anthropictest.Text(0, "Hello ", "world", "!")),
		"none":                    anthropictest.Whole("end_turn"),
		"a call instead":          anthropictest.Whole("tool_use", anthropictest.Tool(0, "toolu_1", "f", `{}`)),
		"a thought before":        anthropictest.Whole("end_turn", anthropictest.Thinking(0, "sig", "Hm"), anthropictest.Text(1, "Hello ", "world")),
		"what cannot be read":     {`{"type":`},
		"another block, too soon": {anthropictest.Start, anthropictest.Text(1, "x")[0]},
	} {
		s, err := NewSplicer(numbered(seen))
		if err != nil {
			t.Fatal(err)
		}
		if made, err := joined(s, second); !errors.Is(err, openai.ErrDiverged) || strings.Contains(strings.Join(made, ""), "stop_reason") {
			t.Errorf("%s: %v after %s", name, err, made)
		}
	}
}

// A run that goes on may begin with words that the answer began with. They are held back until it is certain that they are
// not the beginning again, and none is lost.
func TestHeldBackWordsAreSaid(t *testing.T) {
	t.Parallel()
	s, err := NewSplicer(numbered(append([]string{anthropictest.Start}, anthropictest.Text(0, "no, ", "no and")[:3]...)))
	if err != nil {
		t.Fatal(err)
	}
	s.GoOn(15, 3)
	made, err := joined(s, anthropictest.Whole("end_turn", anthropictest.Text(0, "no, ", "no")))
	want := []string{
		`{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"no, no"}}`, `{"type":"content_block_stop","index":0}`,
		`{"type":"message_delta","delta":{"stop_reason":"end_turn","stop_sequence":null},"usage":{"output_tokens":10}}`, `{"type":"message_stop"}`,
	}
	if diff := cmp.Diff(want, made); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
}

func TestRestOfMessage(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ body, want string }{
		"a turn of its own": {
			`{"max_tokens":9,"messages":[{"role":"user","content":"hi"} ],"model":"m"}`,
			`{"max_tokens":6,"messages":[{"role":"user","content":"hi"} ,{"role":"assistant","content":"a \"b\""}],"model":"m"}`,
		},
		"behind one that was begun": {
			`{"messages":[{"role":"user","content":"hi"}, {"content":"so ","role":"assistant"} ],"max_tokens":2}`,
			`{"messages":[{"role":"user","content":"hi"}, {"content":"so a \"b\"","role":"assistant"} ],"max_tokens":1}`,
		},
		"behind one in blocks": {
			`{"messages":[{"role":"assistant","content":[{"type":"text","text":"x"},{"type":"text","text":"so ","cache_control":{"type":"ephemeral"}}]}],"max_tokens":9}`,
			`{"messages":[{"role":"assistant","content":[{"type":"text","text":"x"},{"type":"text","text":"so a \"b\"","cache_control":{"type":"ephemeral"}}]}],"max_tokens":6}`,
		},
		"behind a call":        {`{"messages":[{"role":"assistant","content":[{"type":"tool_use","id":"1","name":"f","input":{}}]}],"max_tokens":9}`, ""},
		"behind an empty turn": {`{"messages":[{"role":"assistant","content":[]}],"max_tokens":9}`, ""},
		"with thinking":        {`{"messages":[{"role":"user","content":"hi"}],"max_tokens":9,"thinking":{"type":"adaptive"}}`, ""},
		"with thinking disabled": {
			`{"messages":[{"role":"user","content":"hi"}],"max_tokens":9,"thinking":{"type":"disabled"}}`,
			`{"messages":[{"role":"user","content":"hi"},{"role":"assistant","content":"a \"b\""}],"max_tokens":6,"thinking":{"type":"disabled"}}`,
		},
	} {
		got, err := RestOfMessage([]byte(c.body), `a "b"`, 3)
		if (err != nil) != (c.want == "") || string(got) != c.want && c.want != "" {
			t.Errorf("%s: %s, %v; want %s", name, got, err, c.want)
		}
	}
}

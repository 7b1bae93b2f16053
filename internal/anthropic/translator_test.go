package anthropic

import (
	"fmt"
	"iter"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/openai"
)

func chunk(delta, finish string) string {
	return `{"id":"c1","object":"chat.completion.chunk","created":1,"model":"up","choices":[{"index":0,"delta":{` + delta + `},"finish_reason":` + finish + `}]}`
}

const usageChunk = `{"id":"c1","choices":[],"usage":{"prompt_tokens":10,"completion_tokens":4,"total_tokens":14,"prompt_tokens_details":{"cached_tokens":3}}}`

// translate puts a stream of chunks through a translator.
func translate(t *Translator, chunks ...string) (events []string, err error) {
	var c openai.Chunk
	for _, data := range chunks {
		if err := c.Peek([]byte(data)); err != nil {
			return events, err
		}
		made, err := t.Add(&c)
		if err != nil {
			return events, err
		}
		events = appendStrings(events, made)
	}
	return appendStrings(events, t.Done()), nil
}

func appendStrings(events []string, made [][]byte) []string {
	for _, event := range made {
		events = append(events, string(event))
	}
	return events
}

func newTranslator() *Translator { return &Translator{ID: "msg_1", Model: "m", InputTokens: 99} }

func toolChunk(index int, id, name, arguments string) string {
	head := fmt.Sprintf(`"index":%d`, index)
	if id != "" {
		head += fmt.Sprintf(`,"id":%q,"type":"function"`, id)
	}
	member := ""
	if name != "" {
		member = fmt.Sprintf(`"name":%q,`, name)
	}
	return chunk(fmt.Sprintf(`"tool_calls":[{%s,"function":{%s"arguments":%q}}]`, head, member, arguments), "null")
}

func TestTranslator(t *testing.T) {
	t.Parallel()
	role := chunk(`"role":"assistant","content":""`, "null")
	a, b := block{Type: "tool_use", ID: "t0", Name: "f", Input: `{"a":"}"}`}, block{Type: "tool_use", ID: "t1", Name: "g", Input: `{"b":2}`}
	for _, test := range []struct {
		name   string
		chunks []string
		want   message
	}{
		{"text", []string{role, chunk(`"content":"Hel"`, "null"), chunk(`"content":"lo"`, "null"), chunk("", `"stop"`), usageChunk},
			message{Content: []block{{Type: "text", Text: "Hello"}}, StopReason: "end_turn", Input: 7, Output: 4}},
		{"nothing", []string{role, chunk("", `"stop"`)}, message{StopReason: "end_turn", Input: 99}},
		{"usage that nobody tells", []string{chunk(`"content":"a"`, "null"), chunk(`"content":"b"`, `"length"`)},
			message{Content: []block{{Type: "text", Text: "ab"}}, StopReason: "max_tokens", Input: 99, Output: 2}},
		{"reasoning first", []string{chunk(`"reasoning_content":"hm"`, "null"), chunk(`"reasoning_content":"m","content":"a"`, "null"), chunk("", `"stop"`), usageChunk},
			message{Content: []block{{Type: "thinking", Thinking: "hmm"}, {Type: "text", Text: "a"}}, StopReason: "end_turn", Input: 7, Output: 4}},
		{"filtered", []string{chunk(`"content":"a"`, `"content_filter"`), usageChunk}, message{Content: []block{{Type: "text", Text: "a"}}, StopReason: "refusal", Input: 7, Output: 4}},
		{"refusal", []string{chunk(`"refusal":"no"`, `"stop"`), usageChunk}, message{Content: []block{{Type: "text", Text: "no"}}, StopReason: "refusal", Input: 7, Output: 4}},
		{"other choices", []string{chunk(`"content":"a"`, `"stop"`), strings.Replace(chunk(`"content":"b"`, `"stop"`), `"index":0`, `"index":1`, 1), usageChunk},
			message{Content: []block{{Type: "text", Text: "a"}}, StopReason: "end_turn", Input: 7, Output: 4}},
		{"one tool", []string{chunk(`"content":"call"`, "null"), toolChunk(0, "t0", "f", ""), toolChunk(0, "", "", `{"a":`), toolChunk(0, "", "", `"}"}`), chunk("", `"tool_calls"`), usageChunk},
			message{Content: []block{{Type: "text", Text: "call"}, a}, StopReason: "tool_use", Input: 7, Output: 4}},
		{"a tool without arguments, and a server that says stop", []string{toolChunk(0, "t0", "f", ""), chunk("", `"stop"`), usageChunk},
			message{Content: []block{{Type: "tool_use", ID: "t0", Name: "f"}}, StopReason: "tool_use", Input: 7, Output: 4}},
		{"two tools in turn", []string{toolChunk(0, "t0", "f", `{"a":"}"}`), toolChunk(1, "t1", "g", `{"b":`), toolChunk(1, "", "", "2}"), chunk("", `"tool_calls"`), usageChunk},
			message{Content: []block{a, b}, StopReason: "tool_use", Input: 7, Output: 4}},
		{"two tools mixed", []string{toolChunk(0, "t0", "f", ""), toolChunk(1, "t1", "g", ""), toolChunk(1, "", "", `{"b":`), toolChunk(0, "", "", `{"a":"}`), toolChunk(1, "", "", `2}`), toolChunk(0, "", "", `"}`), chunk("", `"tool_calls"`), usageChunk},
			message{Content: []block{a, b}, StopReason: "tool_use", Input: 7, Output: 4}},
		{"two tools, the first cut by the limit", []string{toolChunk(0, "t0", "f", `{"a`), toolChunk(1, "t1", "g", `{"b":2}`), chunk("", `"length"`), usageChunk},
			message{Content: []block{{Type: "tool_use", ID: "t0", Name: "f", Input: `{"a`}, b}, StopReason: "max_tokens", Input: 7, Output: 4}},
		{"text after a tool", []string{toolChunk(0, "t0", "f", `{"a":"}"}`), chunk(`"content":"then"`, "null"), chunk("", `"stop"`), usageChunk},
			message{Content: []block{a, {Type: "text", Text: "then"}}, StopReason: "tool_use", Input: 7, Output: 4}},
		{"a tool without an id", []string{toolChunk(3, "", "f", "{}"), chunk("", `"tool_calls"`), usageChunk},
			message{Content: []block{{Type: "tool_use", ID: "toolu_msg_1_3", Name: "f", Input: "{}"}}, StopReason: "tool_use", Input: 7, Output: 4}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			events, err := translate(newTranslator(), test.chunks...)
			if err != nil {
				t.Fatal(err)
			}
			got, whole, err := assemble(events)
			if err != nil || !whole {
				t.Fatalf("whole %v, %v:\n%s", whole, err, strings.Join(events, "\n"))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("message (-want +got):\n%s", diff)
			}
		})
	}
}

func TestTranslatorRefusesWhatItCannotShow(t *testing.T) {
	t.Parallel()
	for name, chunks := range map[string][]string{
		"a call that goes on after it was left": {toolChunk(0, "t0", "f", `{"a"`), chunk(`"content":"x"`, "null"), toolChunk(0, "", "", `:1}`)},
		"too many calls":                        {manyCalls(maxCalls + 1)},
	} {
		if events, err := translate(newTranslator(), chunks...); err == nil {
			t.Errorf("%s: no error after %d events", name, len(events))
		}
	}
	if _, err := translate(newTranslator(), manyCalls(maxCalls)); err != nil {
		t.Errorf("%d calls: %v", maxCalls, err)
	}
}

func manyCalls(n int) string {
	calls := make([]string, n)
	for i := range calls {
		calls[i] = fmt.Sprintf(`{"index":%d,"id":"t%d","function":{"name":"f","arguments":"{}"}}`, i, i)
	}
	return chunk(`"tool_calls":[`+strings.Join(calls, ",")+"]", "null")
}

// TestTranslatorWaitingIsBounded holds back the arguments of a call that another is mixed with, up to the limit.
func TestTranslatorWaitingIsBounded(t *testing.T) {
	t.Parallel()
	tr, c := newTranslator(), &openai.Chunk{}
	add := func(data string) error {
		if err := c.Peek([]byte(data)); err != nil {
			t.Fatal(err)
		}
		_, err := tr.Add(c)
		return err
	}
	piece := strings.Repeat("x", maxWaiting/4)
	for i, data := range []string{toolChunk(0, "t0", "f", `{"`), toolChunk(1, "t1", "g", piece), toolChunk(1, "", "", piece), toolChunk(1, "", "", piece), toolChunk(1, "", "", piece)} {
		if err := add(data); err != nil {
			t.Fatalf("delta %d of %d bytes in all: %v", i, maxWaiting, err)
		}
	}
	if err := add(toolChunk(1, "", "", "x")); err == nil {
		t.Errorf("%d bytes wait, more than %d", maxWaiting+1, maxWaiting)
	}
}

// TestSplitInvariance cuts an answer into deltas at random places, in both directions: however a server cuts it, the
// reader puts the same message together.
func TestSplitInvariance(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2))
	want := message{
		Content: []block{
			{Type: "thinking", Thinking: "Höher — \"quoted\" \\ and 🙂 thoughts"}, {Type: "text", Text: "Übung\nmacht 日本語 🙂"},
			{Type: "tool_use", ID: "t0", Name: "f", Input: `{"q":"a \"b\" {c}","n":[1,{"x":null}]}`}, {Type: "tool_use", ID: "t1", Name: "g", Input: `{"ü":"🙂"}`},
		},
		StopReason: "tool_use", Input: 7, Output: 4,
	}
	for i := range 500 {
		chunks := []string{chunk(`"role":"assistant"`, "null")}
		for _, piece := range pieces(random, want.Content[0].Thinking) {
			chunks = append(chunks, chunk(fmt.Sprintf(`"reasoning":%s`, appendString(nil, piece)), "null"))
		}
		for _, piece := range pieces(random, want.Content[1].Text) {
			chunks = append(chunks, chunk(fmt.Sprintf(`"content":%s`, appendString(nil, piece)), "null"))
		}
		chunks = append(chunks, mixed(random, i%2 == 0, want.Content[2:])...)
		events, err := translate(newTranslator(), append(chunks, chunk("", `"tool_calls"`), usageChunk)...)
		if err != nil {
			t.Fatal(err)
		}
		got, whole, err := assemble(events)
		if err != nil || !whole {
			t.Fatalf("round %d: whole %v, %v:\n%s", i, whole, err, strings.Join(chunks, "\n"))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("round %d: message (-want +got):\n%s\n%s", i, diff, strings.Join(chunks, "\n"))
		}
		// And back: the events are an answer of an Anthropic server now.
		back, err := translate(newTranslator(), toChunks(t, events)...)
		if err != nil {
			t.Fatal(err)
		}
		if got, _, err = assemble(back); err != nil {
			t.Fatalf("round %d, there and back: %v", i, err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Fatalf("round %d: message, there and back (-want +got):\n%s", i, diff)
		}
	}
}

// mixed are the deltas of several calls, one after the other or shuffled into each other.
func mixed(random *rand.Rand, shuffle bool, calls []block) (chunks []string) {
	queues := make([][]string, len(calls))
	for i, call := range calls {
		queues[i] = append(queues[i], toolChunk(i, call.ID, call.Name, ""))
		for _, piece := range pieces(random, call.Input) {
			queues[i] = append(queues[i], toolChunk(i, "", "", piece))
		}
	}
	if shuffle { // a server opens its calls in order
		for i := range queues {
			chunks, queues[i] = append(chunks, queues[i][0]), queues[i][1:]
		}
	}
	for {
		var left []int
		for i := range queues {
			if len(queues[i]) > 0 {
				left = append(left, i)
			}
		}
		if len(left) == 0 {
			return chunks
		}
		next := left[0]
		if shuffle {
			next = left[random.IntN(len(left))]
		}
		chunks, queues[next] = append(chunks, queues[next][0]), queues[next][1:]
	}
}

// pieces cuts s between runes at random places.
func pieces(random *rand.Rand, s string) (out []string) {
	runes := []rune(s)
	for len(runes) > 0 {
		n := 1 + random.IntN(len(runes))
		if random.IntN(2) == 0 {
			n = 1
		}
		out, runes = append(out, string(runes[:n])), runes[n:]
	}
	return out
}

// TestResume goes on behind every event of an answer: what a second worker adds is exactly what is missing.
func TestResume(t *testing.T) {
	t.Parallel()
	chunks := []string{chunk(`"role":"assistant","content":""`, "null"), chunk(`"reasoning":"hm"`, "null"), chunk(`"content":"a"`, "null"), chunk(`"content":"b"`, "null"), chunk("", `"stop"`), usageChunk}
	whole, err := translate(newTranslator(), chunks...)
	if err != nil {
		t.Fatal(err)
	}
	for n := range len(whole) + 1 {
		seen := whole[:n]
		next := newTranslator()
		if err := next.Resume(indexed(seen)); err != nil {
			t.Fatal(err)
		}
		splicer, err := openai.NewSplicer(indexed(toChunks(t, seen)))
		if err != nil {
			t.Fatal(err)
		}
		var rest []string
		var c openai.Chunk
		for _, data := range chunks {
			left, keep, err := splicer.Next([]byte(data))
			if err != nil {
				t.Fatal(err)
			}
			if !keep {
				continue
			}
			if err := c.Peek(left); err != nil {
				t.Fatal(err)
			}
			made, err := next.Add(&c)
			if err != nil {
				t.Fatal(err)
			}
			rest = appendStrings(rest, made)
		}
		rest = appendStrings(rest, next.Done())
		if diff := cmp.Diff(whole[n:], rest); diff != "" && !(len(rest) == 0 && n == len(whole)) {
			t.Errorf("behind %d events (-want +got):\n%s", n, diff)
		}
	}
	if err := newTranslator().Resume(indexed([]string{`{"type":"content_block_start","index":0,"content_block":{"type":"tool_use"}}`})); err == nil {
		t.Error("a tool's call can be gone on with")
	}
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

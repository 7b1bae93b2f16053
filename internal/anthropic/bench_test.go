package anthropic

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weir-llm/weir/internal/anthropic/anthropictest"
	"github.com/weir-llm/weir/internal/openai"
)

// BenchmarkTranslator is the way of a chunk from its JSON to events, and of an event from its JSON to a chunk, in a long
// answer: one operation is one chunk.
func BenchmarkTranslator(b *testing.B) {
	for name, data := range map[string]string{
		"text": chunk(`"content":" word\n"`, "null"), "tool": toolChunk(0, "", "", ` "key": "val`), "reasoning": chunk(`"reasoning_content":" thought"`, "null"),
	} {
		b.Run(name, func(b *testing.B) {
			t, c := newTranslator(), &openai.Chunk{}
			b.ReportAllocs()
			for b.Loop() {
				if err := c.Peek([]byte(data)); err != nil {
					b.Fatal(err)
				}
				if _, err := t.Add(c); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkChunks(b *testing.B) {
	for name, data := range map[string]string{
		"text": anthropictest.Text(0, " word\n")[1], "tool": anthropictest.Tool(0, "t", "f", ` "key": "val`)[1], "thinking": anthropictest.Thinking(0, "s", " thought")[1],
	} {
		b.Run(name, func(b *testing.B) {
			made, e := &Chunks{Model: "claude", IncludeUsage: true}, &Event{}
			for _, before := range []string{anthropictest.Start, anthropictest.Tool(0, "t", "f")[0]} {
				if err := e.Peek([]byte(before)); err != nil {
					b.Fatal(err)
				}
				made.Add(e)
			}
			event := []byte(data)
			b.ReportAllocs()
			for b.Loop() {
				if err := e.Peek(event); err != nil {
					b.Fatal(err)
				}
				if out, _ := made.Add(e); len(out) == 0 {
					b.Fatal("nothing")
				}
			}
		})
	}
}

func BenchmarkToChat(b *testing.B) {
	var turns []string
	for i := range 9 {
		turns = append(turns, fmt.Sprintf(`{"role":"user","content":[{"type":"text","text":%q}]}`, strings.Repeat(fmt.Sprint("some words ", i), 20)))
	}
	body := messagesBody(`"messages":[` + strings.Join(turns, ",") + "]")
	b.ReportAllocs()
	b.SetBytes(int64(len(body)))
	for b.Loop() {
		if _, err := ToChat(body); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkEventName(b *testing.B) {
	data, buf := []byte(anthropictest.Text(0, " word")[1]), []byte(nil)
	b.ReportAllocs()
	for b.Loop() {
		buf = append(buf[:0], EventName(data)...)
	}
}

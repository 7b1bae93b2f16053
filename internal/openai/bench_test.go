package openai

import (
	"fmt"
	"strings"
	"testing"

	"github.com/weir-llm/weir/schemas"
)

const benchChunk = `{"id":"chatcmpl-AbCdEfGhIjKlMnOpQrStUvWx","object":"chat.completion.chunk","created":1764000000,"model":"gpt-4.1","system_fingerprint":"fp_0123456789","choices":[{"index":0,"delta":{"content":" word\n"},"logprobs":null,"finish_reason":null}]}`

func BenchmarkParseRequest(b *testing.B) {
	for _, turns := range []int{1, 9, 90} {
		var messages []string
		for i := range turns {
			messages = append(messages, fmt.Sprintf(`{"role":"user","content":"%s \"%d\"\n"}`, strings.Repeat("some words of a prompt ", 9), i))
		}
		body := []byte(`{"model":"gpt-4.1","stream":true,"temperature":0.2,"max_tokens":256,"messages":[` + strings.Join(messages, ",") + `]}`)
		b.Run(fmt.Sprintf("%dB", len(body)), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(body)))
			for b.Loop() {
				if _, err := ParseRequest(schemas.OpChat, body, Policy{}); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkChunk(b *testing.B) {
	for name, mender := range map[string]*Mender{"untouched": {DropUsage: true}, "renamed": {DropUsage: true, Model: "public"}} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			data, c := []byte(benchChunk), &Chunk{}
			for b.Loop() {
				if err := c.Peek(ToUTF8(data)); err != nil {
					b.Fatal(err)
				}
				if _, keep := mender.Mend(data, c); !keep {
					b.Fatal("dropped")
				}
			}
		})
	}
}

func BenchmarkChunkRepeated(b *testing.B) {
	b.ReportAllocs()
	first, second, c := []byte(strings.Replace(benchChunk, `\n`, "", 1)), []byte(strings.Replace(benchChunk, ` word\n`, "more", 1)), &Chunk{}
	for b.Loop() {
		if c.Peek(first) != nil || c.Peek(second) != nil {
			b.Fatal("not read")
		}
	}
}

// BenchmarkAnswer is what a whole answer costs, short and long.
func BenchmarkAnswer(b *testing.B) {
	for _, words := range []int{8, 800} {
		data := fmt.Appendf(nil, `{"id":"chatcmpl-1","object":"chat.completion","created":1764000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":%q,"refusal":null},"logprobs":null,"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":8,"total_tokens":17}}`,
			strings.Repeat("word ", words))
		b.Run(fmt.Sprintf("%dB", len(data)), func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				c, mender := &Chunk{}, &Mender{}
				if err := c.Peek(ToUTF8(data)); err != nil {
					b.Fatal(err)
				}
				mender.Mend(data, c)
			}
		})
	}
}

func BenchmarkReader(b *testing.B) {
	stream := strings.Repeat("data: "+benchChunk+"\n\n", 1000)
	b.ReportAllocs()
	b.SetBytes(int64(len(stream)))
	for b.Loop() {
		for _, err := range NewReader(strings.NewReader(stream)).Events() {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

func BenchmarkAppendEvent(b *testing.B) {
	var buf []byte
	data := []byte(benchChunk)
	b.ReportAllocs()
	for b.Loop() {
		buf = AppendEvent(buf[:0], schemas.Cursor{Request: "req_01JDZ", Index: 17}, data)
	}
}

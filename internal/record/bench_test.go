package record_test

import (
	"strings"
	"testing"

	"github.com/weir-llm/weir/internal/record"
	"github.com/weir-llm/weir/schemas"
)

// BenchmarkBuild makes the record of a unary answer, by the worker that has given it and by one that finds it.
func BenchmarkBuild(b *testing.B) {
	answer := []byte(`{"id":"chatcmpl-1","object":"chat.completion","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		strings.Repeat("word ", 64) + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":64,"total_tokens":76}}`)
	s := summary(1)
	c := chain(start(1, "w-1", 0), &schemas.Frame{Kind: schemas.KindEnd, Attempt: 1, Writer: "w", Count: 1, Data: answer, Summary: s.Encode()})
	for name, known := range map[string]*schemas.Summary{"own": s, "found": nil} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				record.Build(item(), body, c, known)
			}
		})
	}
}

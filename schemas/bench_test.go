package schemas

import (
	"encoding/json"
	"testing"
	"time"
)

// benchResults are the records of an answer that was streamed and of one that was not.
func benchResults() map[string]*Result {
	unary := resultSample()
	unary.Events, unary.Cost = nil, nil
	unary.Tries = []Try{{Attempt: 1, Backend: "vllm-1", Started: accepted, FirstTokenMS: 24.512, DurationMS: 24.713, Usage: unary.Usage}}
	unary.Response = json.RawMessage(`{"id":"chatcmpl-1","object":"chat.completion","created":1764000000,"model":"gpt-4.1","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		"The quick brown fox jumps over the lazy dog, and then it does so again. The quick brown fox jumps over the lazy dog, and then it does so again." +
		`"},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":64,"total_tokens":76}}`)
	unary.Started, unary.Finished = accepted.Add(1234*time.Microsecond), accepted.Add(25*time.Millisecond)
	return map[string]*Result{"streamed": resultSample(), "unary": unary}
}

func BenchmarkResultEncode(b *testing.B) {
	for name, r := range benchResults() {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				r.Encode()
			}
		})
	}
}

func BenchmarkResultDecode(b *testing.B) {
	for name, r := range benchResults() {
		data := r.Encode()
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			b.SetBytes(int64(len(data)))
			for b.Loop() {
				if _, err := DecodeResult(data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func BenchmarkWork(b *testing.B) {
	traced := Header{HeaderTraceParent: {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}}
	for name, header := range map[string]Header{"plain": nil, "traced": traced} {
		w := &Work{Request: Request{
			Identity: identity, ModelToken: "gpt-4=2E1", Op: OpChat, Priority: PriorityNormal, Deadline: accepted, Header: header,
		}, Dispatch: 1, Accepted: accepted, Cost: 100}
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeWork(w.ModelToken, w.Encode(), nil); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

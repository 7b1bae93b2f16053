package sqlite_test

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/weir-llm/weir/schemas"
	"github.com/weir-llm/weir/sink/sqlite"
)

// BenchmarkPut is the work of one result in a commit of many, as a sink under load makes them.
func BenchmarkPut(b *testing.B) {
	const size = 64
	s, err := sqlite.Open(b.Context(), sqlite.Config{Path: filepath.Join(b.TempDir(), "weir.db")})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	batch := make([]*schemas.Result, 0, size)
	b.ReportAllocs()
	for n := 0; b.Loop(); n++ {
		if batch = append(batch, unary(n)); len(batch) < size {
			continue
		}
		if err := s.Put(b.Context(), batch); err != nil {
			b.Fatal(err)
		}
		batch = batch[:0]
	}
}

// unary is the result of an answer that was not streamed.
func unary(n int) *schemas.Result {
	at := time.Date(2026, 11, 24, 17, 0, 0, 0, time.UTC).Add(time.Duration(n) * time.Millisecond)
	usage := &schemas.Usage{PromptTokens: 12, CompletionTokens: 64, TotalTokens: 76}
	r := &schemas.Result{
		V: schemas.Version, Tenant: "acme", RequestID: fmt.Sprintf("01KAXV%020d", n), Model: "bench", Op: schemas.OpChat,
		Accepted: at, Started: at.Add(3 * time.Millisecond), Finished: at.Add(30 * time.Millisecond), Status: schemas.StatusCompleted,
		FinishReasons: []string{"stop"}, Attempts: 1, FirstTokenMS: 29.127, DurationMS: 30.412, Usage: usage,
		Tries:    []schemas.Try{{Attempt: 1, Backend: "mock", Started: at, FirstTokenMS: 24.512, DurationMS: 24.713, Usage: usage}},
		Priority: schemas.PriorityNormal, Dispatch: 1, Worker: "host-1234-5678",
		Response: json.RawMessage(`{"id":"chatcmpl-1","object":"chat.completion","created":1764000000,"model":"bench","choices":[{"index":0,"message":{"role":"assistant","content":"` +
			fmt.Sprintf("%0320d", n) + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":12,"completion_tokens":64,"total_tokens":76}}`),
	}
	r.SetRequest([]byte(`{"model":"bench","temperature":0,"messages":[{"role":"user","content":"Say something about the number ` + fmt.Sprint(n) + `"}],"stream":false,"mock":{"tokens":64}}`))
	return r
}

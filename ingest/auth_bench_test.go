package ingest

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/schemas"
)

// stored is a store with keys that never change.
type stored []bus.KeyEntry

func (s stored) Watch(ctx context.Context, fn func(bus.KeyChange)) error {
	fn(bus.KeyChange{All: true, Entries: s})
	<-ctx.Done()
	return nil
}

// BenchmarkAuthenticateAndValidate is what the door adds to a request of 2 KB before it is published: the key of ten
// thousand, the checks of the body, and the request with its headers. The limit is 50 µs.
func BenchmarkAuthenticateAndValidate(b *testing.B) {
	s, token := guarded(b, 10_000)
	body := bodyOf(2 << 10)
	r := httptest.NewRequestWithContext(b.Context(), http.MethodPost, "/v1/chat/completions", nil)
	r.Header.Set("Authorization", "Bearer "+token)
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set(schemas.HeaderPriority, "batch")
	leave := func(error) {}
	b.SetBytes(int64(len(body)))
	b.ReportAllocs()
	for b.Loop() {
		key, err := s.authenticate(r)
		if err != nil {
			b.Fatal(err)
		}
		if err := authorize(&key, r.Method); err != nil {
			b.Fatal(err)
		}
		c := &call{exchange: exchange{s: s, ctx: b.Context(), leave: leave}, r: r}
		done := c.admit(key)
		parsed, err := openai.ParseRequest(schemas.OpChat, body, openai.Policy{})
		if err != nil {
			b.Fatal(err)
		}
		c.id.Request = "r1"
		a := asked{op: schemas.OpChat, header: passed(r.Header, passedOn), allow: c.allowModel}
		if _, err := newRequest(c.id, a, parsed); err != nil {
			b.Fatal(err)
		}
		done()
	}
	if perRequest := b.Elapsed() / time.Duration(b.N); perRequest > 50*time.Microsecond {
		b.Logf("%s per request: over the limit of 50 µs, unless the machine was busy", perRequest)
	}
}

// guarded is a door without a listener, over so many keys, and one of them.
func guarded(b *testing.B, n int) (*Ingest, string) {
	b.Helper()
	var entries stored
	var token keys.Token
	for i := range n {
		token = keys.NewToken(fmt.Sprintf("%012d", i))
		entries = append(entries, bus.KeyEntry{ID: token.ID, Value: fmt.Appendf(nil,
			`{"v":1,"id":%q,"tenant":"acme","models":["gpt-4.1"],"scope":"full","secrets":[{"sha256":"%x"}]}`, token.ID, sha256.Sum256([]byte(token.Reveal())))})
	}
	ring, err := keys.New(keys.Config{Store: entries})
	if err != nil {
		b.Fatal(err)
	}
	go func() { _ = ring.Run(b.Context()) }() // it ends with the benchmark
	<-ring.Listed()
	return &Ingest{keys: ring, local: true, cors: &cors{protection: http.NewCrossOriginProtection()}, log: telemetry.Discard()}, token.Reveal()
}

func bodyOf(size int) []byte {
	message := func(content string) map[string]string { return map[string]string{"role": "user", "content": content} }
	body, err := json.Marshal(map[string]any{
		"model": "gpt-4.1", "stream": true, "temperature": 0.2, "messages": []any{message("You are terse."), message(strings.Repeat("word ", size/5-24))},
	})
	if err != nil {
		panic(err) // it always marshals
	}
	return body
}

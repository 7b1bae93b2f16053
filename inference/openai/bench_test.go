package openai_test

import (
	"context"
	"fmt"
	"net"
	"strings"
	"testing"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/openai"
	"github.com/weir-llm/weir/schemas"
)

// BenchmarkUnary is a call that is answered with one document, by a server that costs next to nothing.
func BenchmarkUnary(b *testing.B) {
	answer := `{"id":"chatcmpl-1","object":"chat.completion","created":1764000000,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"` +
		strings.Repeat("some words of an answer\\n", 20) + `"},"finish_reason":"stop"}],"usage":{"prompt_tokens":9,"completion_tokens":80,"total_tokens":89}}`
	backend, err := openai.New(openai.Config{Name: "b", URL: "http://" + canned(b, answer), APIKey: "key"})
	if err != nil {
		b.Fatal(err)
	}
	defer backend.Close()
	request := &inference.GenerateRequest{
		Op: schemas.OpChat, Body: []byte(`{"model":"m","messages":[{"role":"user","content":"say something"}]}`), Choices: 1,
		Header: schemas.Header{schemas.HeaderTraceParent: {"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"}},
	}
	ctx, cancel := context.WithTimeout(b.Context(), inference.Timeouts{}.WithDefaults().Total)
	defer cancel()
	b.ReportAllocs()
	for b.Loop() {
		for _, err := range backend.Generate(ctx, request) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

// canned serves the same document whatever arrives, and returns its address.
func canned(b *testing.B, document string) string {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = listener.Close() })
	reply := fmt.Appendf(nil, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%s", len(document), document)
	go func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				for request := make([]byte, 16<<10); ; {
					if _, err := conn.Read(request); err != nil {
						return
					}
					if _, err := conn.Write(reply); err != nil {
						return
					}
				}
			}()
		}
	}()
	return listener.Addr().String()
}

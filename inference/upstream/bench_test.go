package upstream

import (
	"context"
	"net/http/httptest"
	"testing"

	"github.com/weir-llm/weir/internal/certs/certstest"
)

// BenchmarkConnections is a small call over connections that are kept and over one of its own each time, as a client
// without a pool makes it.
func BenchmarkConnections(b *testing.B) {
	authority := certstest.NewAuthority(b)
	pair, ca := authority.Issue("127.0.0.1"), authority.File()
	for _, c := range []struct {
		name       string
		start      func(*httptest.Server)
		connection Connection
	}{
		{"http1", func(s *httptest.Server) { s.Start() }, Connection{}},
		{"tls-http1", secured(pair, b, false), Connection{CA: ca}},
		{"tls-http2", secured(pair, b, true), Connection{CA: ca}},
	} {
		for _, kept := range []bool{true, false} {
			name := c.name + "/kept"
			if !kept {
				name = c.name + "/new"
			}
			b.Run(name, func(b *testing.B) {
				client := newServer(b, c.start).client(b, Config{Connection: c.connection})
				client.transport.DisableKeepAlives = !kept
				b.ReportAllocs()
				for b.Loop() {
					if _, err := fetch(context.Background(), client, "/ok"); err != nil {
						b.Fatal(err)
					}
				}
			})
		}
	}
}

package ingest_test

import (
	"context"
	"io"
	"net/netip"
	"strings"
	"testing"
)

func networks(t *testing.T, texts ...string) (networks []netip.Prefix) {
	t.Helper()
	for _, text := range texts {
		network, err := netip.ParsePrefix(text)
		if err != nil {
			t.Fatal(err)
		}
		networks = append(networks, network)
	}
	return networks
}

type readCloser struct {
	io.Reader
	io.Closer
}

// blocked is a body that never comes.
type blocked struct{ ctx context.Context }

func (b blocked) Read([]byte) (int, error) {
	<-b.ctx.Done()
	return 0, io.EOF
}

func newBody(s string) io.Reader { return strings.NewReader(s) }

package ingest_test

import (
	"context"
	"io"
	"strings"
)

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

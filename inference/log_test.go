package inference_test

import (
	"bytes"
	"context"
	"log/slog"
	"strings"
	"sync"
	"testing"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

// lockedBuffer is written by a logger and read by the test.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *lockedBuffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *lockedBuffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

// What a model server says of a request is for the caller alone: it may quote the prompt.
func TestRefusalIsNotLogged(t *testing.T) {
	t.Parallel()
	p := setup(t)
	log := &lockedBuffer{}
	refuse := func(context.Context, int, int) error {
		return schemas.Errorf(schemas.CodeUpstreamRejected, "the model server refused the request (HTTP 400): bad content CANARY")
	}
	p.worker("w1", &fake{words: three, gate: refuse}, func(c *inference.Config) {
		c.Logger = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	p.dispatch(work("r1", 1, sampled))
	if r := p.ended(identity("r1")); !strings.Contains(string(r.Error), "CANARY") {
		t.Errorf("the caller is not told: %s", r.Error)
	}
	if s := log.String(); strings.Contains(s, "CANARY") || !strings.Contains(s, string(schemas.CodeUpstreamRejected)) {
		t.Errorf("the log says %s", s)
	}
}

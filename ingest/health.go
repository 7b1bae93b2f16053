package ingest

import (
	"context"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// readyFor is how long an answer about readiness holds, so that probes cannot load the bus.
const readyFor = time.Second

// healthCheck remembers the last answer of the bus.
type healthCheck struct {
	mu      sync.Mutex
	checked time.Time
	err     error
}

// Ready reports why the door should get no new requests: it drains, or the bus could not take one.
func (s *Ingest) Ready(ctx context.Context) error {
	if s.draining.Load() {
		return schemas.Errorf(schemas.CodeShutdown, "draining")
	}
	h := &s.health
	h.mu.Lock()
	defer h.mu.Unlock()
	if time.Since(h.checked) < readyFor {
		return h.err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), 2*time.Second) // the answer is for others too
	defer cancel()
	h.err = s.cfg.Bus.Ready(ctx)
	h.checked = time.Now()
	return h.err
}

func (s *Ingest) livez(w http.ResponseWriter, _ *http.Request) { plain(w, http.StatusOK, "ok\n") }

func (s *Ingest) readyz(w http.ResponseWriter, r *http.Request) {
	if err := s.Ready(r.Context()); err != nil {
		plain(w, http.StatusServiceUnavailable, schemas.AsError(err).Message+"\n")
		return
	}
	plain(w, http.StatusOK, "ok\n")
}

func plain(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.WriteHeader(status)
	_, _ = io.WriteString(w, text)
}

package ingest

import (
	"context"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/schemas"
)

// prefers reports whether a caller has named a preference (RFC 7240).
func prefers(values []string, preference string) bool {
	for _, value := range values {
		for one := range strings.SplitSeq(value, ",") {
			name, _, _ := strings.Cut(one, ";")
			if strings.EqualFold(strings.TrimSpace(name), preference) {
				return true
			}
		}
	}
	return false
}

// tellProcessing tells a caller who waits for an answer in one piece, and who has asked for that, where its request stands: in
// responses 102, the first when the hold time is over and then one with each heartbeat, until stop is called. Who has not asked
// gets none: there are HTTP clients that take any first response for the answer. Nobody else may use the headers meanwhile.
func (c *call) tellProcessing() (stop func()) {
	if !c.r.ProtoAtLeast(1, 1) || !prefers(c.r.Header.Values(schemas.HeaderPrefer), schemas.PreferProcessing) {
		return func() {}
	}
	ctx, cancel := context.WithCancel(c.ctx)
	var telling sync.WaitGroup
	telling.Go(func() {
		timer := time.NewTimer(c.s.cfg.HoldStatus - time.Since(c.began))
		defer timer.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-timer.C:
			}
			c.sayProcessing(ctx)
			timer.Reset(c.s.cfg.Heartbeat)
		}
	})
	return sync.OnceFunc(func() { cancel(); telling.Wait() })
}

func (c *call) sayProcessing(ctx context.Context) {
	w, err := c.s.cfg.Bus.Waiting(ctx, c.id)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		c.log(slog.LevelDebug, "nobody tells where a request stands", slog.Any(telemetry.KeyError, err))
	}
	h := c.w.Header()
	tellWaiting(h, w)
	_ = c.control.SetWriteDeadline(time.Now().Add(c.s.cfg.WriteTimeout))
	c.w.WriteHeader(http.StatusProcessing)
	_ = c.control.SetWriteDeadline(time.Time{})
	tellWaiting(h, nil)
}

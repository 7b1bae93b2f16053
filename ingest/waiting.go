package ingest

import (
	"context"
	"fmt"
	"log/slog"
	"math"
	"strconv"

	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/schemas"
)

// waiting is where the exchange's request stands in the queue, or nil when it is not known to wait. It is asked only for a
// caller who has heard nothing for as long as a heartbeat.
func (x *exchange) waiting() *schemas.Waiting {
	if context.Cause(x.ctx) != nil {
		return nil
	}
	w, err := x.s.cfg.Bus.Waiting(x.ctx, x.id)
	if err != nil {
		x.log(slog.LevelDebug, "nobody tells where a request stands", slog.Any(telemetry.KeyError, err))
		return nil
	}
	return w
}

// tellWaiting sets the headers that tell a caller where its request stands.
func tellWaiting(h map[string][]string, w *schemas.Waiting) {
	delete(h, schemas.HeaderQueuePlace)
	delete(h, schemas.HeaderQueueWait)
	if w == nil {
		return
	}
	h[schemas.HeaderQueuePlace] = []string{strconv.Itoa(w.Place)}
	if w.WaitMS > 0 {
		h[schemas.HeaderQueueWait] = []string{strconv.FormatInt(waitSeconds(w), 10)}
	}
}

// waitingComment is the same as a comment of an event stream. It ends in one newline, as every heartbeat does.
func waitingComment(w *schemas.Waiting) string {
	if w == nil {
		return ""
	}
	text := fmt.Sprintf(": queued position=%d of=%d", w.Place, w.Queued)
	if w.WaitMS > 0 {
		text += fmt.Sprintf(" wait=%ds", waitSeconds(w))
	}
	return text + "\n"
}

func waitSeconds(w *schemas.Waiting) int64 { return int64(math.Ceil(float64(w.WaitMS) / 1000)) }

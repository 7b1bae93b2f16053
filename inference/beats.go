package inference

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// beatGap bounds how often takes and releases are told: a beat tells of all since the last.
const beatGap = 10 * time.Millisecond

// beats publishes the worker's heartbeat at every interval and soon after each take and release.
type beats struct {
	bus      *bus.Bus
	name     string
	log      *slog.Logger
	models   []*model
	changed  chan struct{} // capacity 1
	draining atomic.Bool
}

func newBeats(b *bus.Bus, name string, log *slog.Logger, models []*model) *beats {
	return &beats{bus: b, name: name, log: log, models: models, changed: make(chan struct{}, 1)}
}

// soon asks for a beat.
func (b *beats) soon() {
	select {
	case b.changed <- struct{}{}:
	default:
	}
}

// drain says in every further beat that the worker takes nothing new.
func (b *beats) drain() {
	b.draining.Store(true)
	b.soon()
}

func (b *beats) run(ctx context.Context) {
	ticker := time.NewTicker(schemas.HeartbeatInterval)
	defer ticker.Stop()
	gap := time.NewTimer(beatGap)
	defer gap.Stop()
	for {
		b.send()
		select {
		case <-ctx.Done():
			b.send() // the last releases
			return
		case <-gap.C:
		}
		select {
		case <-ctx.Done():
			b.send()
			return
		case <-ticker.C:
		case <-b.changed:
		}
		gap.Reset(beatGap)
	}
}

func (b *beats) send() {
	beat := &schemas.Heartbeat{V: schemas.Version, Worker: b.name, Draining: b.draining.Load()}
	for _, m := range b.models {
		beat.Models = append(beat.Models, m.beat())
	}
	if err := b.bus.Beat(beat); err != nil {
		b.log.Debug("a heartbeat was not sent", "error", err)
	}
}

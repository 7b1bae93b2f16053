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
	usage    *usage
	changed  chan struct{} // capacity 1
	draining atomic.Bool
}

func newBeats(b *bus.Bus, name string, log *slog.Logger, models []*model, u *usage) *beats {
	return &beats{bus: b, name: name, log: log, models: models, usage: u, changed: make(chan struct{}, 1)}
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
	figures := true // they are told at each interval, and not at every take and release
	for {
		b.send(figures)
		select {
		case <-ctx.Done():
			b.send(true) // the last releases
			return
		case <-gap.C:
		}
		select {
		case <-ctx.Done():
			b.send(true)
			return
		case <-ticker.C:
			figures = true
		case <-b.changed:
			figures = false
		}
		gap.Reset(beatGap)
	}
}

func (b *beats) send(figures bool) {
	beat := &schemas.Heartbeat{V: schemas.Version, Worker: b.name, Draining: b.draining.Load()}
	for _, m := range b.models {
		beat.Models = append(beat.Models, m.beat(figures))
	}
	if figures {
		beat.Tenants = b.usage.beat()
	}
	if err := b.bus.Beat(beat); err != nil {
		b.log.Debug("a heartbeat was not sent", "error", err)
	}
}

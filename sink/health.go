package sink

import (
	"fmt"
	"log/slog"
	"sync"

	"github.com/weir-llm/weir/internal/telemetry"
)

// activity is one of the things that a sink must be able to do.
type activity int

const (
	storing activity = iota
	fetching
	activities
)

func (a activity) String() string {
	return [activities]string{"the store does not take results", "results cannot be fetched from the bus"}[a]
}

// health remembers which activities fail, and logs only when that changes.
type health struct {
	log    *slog.Logger
	meters *metrics

	mu     sync.Mutex
	errors [activities]error
}

func (h *health) set(a activity, err error) {
	h.mu.Lock()
	was := h.errors[a]
	h.errors[a] = err
	h.mu.Unlock()
	h.meters.failing(a, err != nil)
	switch {
	case was == nil && err != nil:
		h.log.Error(a.String()+"; nothing is lost, it is tried again until it works", telemetry.KeyError, err)
	case was != nil && err == nil:
		h.log.Info("recovered: it is no longer so that " + a.String())
	}
}

func (h *health) get(a activity) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.errors[a]
}

func (h *health) err() error {
	for a := range activities {
		if err := h.get(a); err != nil {
			return fmt.Errorf("sink: %s: %w", a, err)
		}
	}
	return nil
}

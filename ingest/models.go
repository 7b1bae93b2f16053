package ingest

import (
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// liveModels is what the heartbeats say that workers serve.
type liveModels struct {
	mu   sync.Mutex
	seen map[string]time.Time // by encoded model
}

func newLiveModels() *liveModels { return &liveModels{seen: make(map[string]time.Time)} }

func (l *liveModels) beat(h *schemas.Heartbeat) {
	now := time.Now()
	l.mu.Lock()
	defer l.mu.Unlock()
	for i := range h.Models {
		l.seen[h.Models[i].Model] = now
	}
}

// names of the models whose workers were heard lately.
func (l *liveModels) names() []string {
	oldest := time.Now().Add(-schemas.HeartbeatMisses * schemas.HeartbeatInterval)
	l.mu.Lock()
	defer l.mu.Unlock()
	maps.DeleteFunc(l.seen, func(_ string, at time.Time) bool { return at.Before(oldest) })
	var names []string
	for token := range l.seen {
		if name, err := schemas.DecodeModel(token); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// models answers GET /v1/models: those of the configuration and those of live workers, as far as the key may use them.
func (s *Ingest) models(c *call) error {
	names := append(s.live.names(), s.cfg.Models()...)
	slices.Sort(names)
	names = slices.DeleteFunc(slices.Compact(names), func(name string) bool { return !c.mayUse(name) })
	if c.dialect == messages {
		return c.write(http.StatusOK, anthropic.EncodeModels(names, s.started))
	}
	var list []openai.ModelInfo
	for _, name := range names {
		list = append(list, openai.ModelInfo{ID: name, Created: s.started.Unix(), OwnedBy: "weir"})
	}
	return c.write(http.StatusOK, openai.EncodeModels(list))
}

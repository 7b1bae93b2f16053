package ingest

import (
	"maps"
	"net/http"
	"slices"
	"sync"
	"time"

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

// models answers GET /v1/models: those of the configuration and those of live workers.
func (s *Ingest) models(c *call) error {
	var list []openai.ModelInfo
	for _, name := range s.modelNames() {
		list = append(list, s.modelInfo(name))
	}
	return c.write(http.StatusOK, openai.EncodeModels(list))
}

// model answers GET /v1/models/{id}. An id may have slashes, as they are or encoded.
func (s *Ingest) model(c *call) error {
	id := c.r.PathValue("id")
	if id == "" {
		return unknownRoute(c)
	}
	if !slices.Contains(s.modelNames(), id) {
		return schemas.Errorf(schemas.CodeModelNotFound, "the model %.200q does not exist; GET /v1/models lists those that do", id).WithParam("model")
	}
	return c.write(http.StatusOK, openai.EncodeModel(s.modelInfo(id)))
}

func (s *Ingest) modelNames() []string {
	names := append(s.live.names(), s.cfg.Models()...)
	slices.Sort(names)
	return slices.Compact(names)
}

func (s *Ingest) modelInfo(name string) openai.ModelInfo {
	return openai.ModelInfo{ID: name, Created: s.started.Unix(), OwnedBy: "weir"}
}

package ingest

import (
	"net/http"
	"slices"

	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// completion answers POST /v1/completions.
func (s *Ingest) completion(c *call) error { return s.ask(c, schemas.OpCompletion) }

// embedding answers POST /v1/embeddings.
func (s *Ingest) embedding(c *call) error { return s.ask(c, schemas.OpEmbedding) }

// model answers GET /v1/models/{id}. An id may have slashes, as they are or encoded.
func (s *Ingest) model(c *call) error {
	id := c.r.PathValue("id")
	if id == "" {
		return unknownRoute(c)
	}
	if !slices.Contains(append(s.live.names(), s.cfg.Models()...), id) || !c.mayUse(id) {
		return schemas.Errorf(schemas.CodeModelNotFound, "the model %.200q does not exist; GET /v1/models lists those that do", id).WithParam("model")
	}
	if c.dialect == messages {
		return c.write(http.StatusOK, anthropic.EncodeModel(id, s.started))
	}
	return c.write(http.StatusOK, openai.EncodeModel(openai.ModelInfo{ID: id, Created: s.started.Unix(), OwnedBy: "weir"}))
}

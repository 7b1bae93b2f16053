package ingest

import (
	"strings"

	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/schemas"
)

// messages answers POST /v1/messages. The query of its beta surface (?beta=true) changes nothing: what a request may hold
// is for the model server to say.
func (s *Ingest) messages(c *call) error { return s.ask(c, schemas.OpMessages) }

// countTokens answers POST /v1/messages/count_tokens. It goes through the pipeline like any other request, because only a
// worker knows who can count: a model with an Anthropic server asks it, any other gets the estimate.
func (s *Ingest) countTokens(c *call) error { return s.ask(c, schemas.OpCountTokens) }

// messagesHeaders takes over what the caller says about the form of the dialect, and checks the body against it.
func (c *call) messagesHeaders(h schemas.Header, body []byte) error {
	version := c.r.Header.Get(anthropic.HeaderVersion)
	beta := strings.Join(c.r.Header.Values(anthropic.HeaderBeta), ",")
	if err := anthropic.CheckVersion(version); err != nil {
		return err
	}
	if err := anthropic.CheckBeta(beta); err != nil {
		return err
	}
	if version != "" {
		h[schemas.HeaderAnthropicVersion] = []string{version}
	}
	if beta != "" {
		h[schemas.HeaderAnthropicBeta] = []string{beta}
	}
	return anthropic.CheckBody(version, body)
}

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

// addMessagesHeaders adds what the caller says about the form of the dialect.
func (c *call) addMessagesHeaders(h schemas.Header) {
	if version := c.r.Header.Get(anthropic.HeaderVersion); version != "" {
		h[schemas.HeaderAnthropicVersion] = []string{version}
	}
	if beta := strings.Join(c.r.Header.Values(anthropic.HeaderBeta), ","); beta != "" {
		h[schemas.HeaderAnthropicBeta] = []string{beta}
	}
}

// checkMessages checks a request of the dialect against the form of it that its caller named, by whichever door it came.
func checkMessages(h schemas.Header, body []byte) error {
	version := first(h, schemas.HeaderAnthropicVersion)
	if err := anthropic.CheckVersion(version); err != nil {
		return err
	}
	if err := anthropic.CheckBeta(first(h, schemas.HeaderAnthropicBeta)); err != nil {
		return err
	}
	return anthropic.CheckBody(version, body)
}

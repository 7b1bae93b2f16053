package openai

import (
	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// goOn makes the body and the path those of a call that goes on with an answer, if that is what is asked for, and asks to
// be told what the next could go on from.
func (c *call) goOn(body []byte, path string) ([]byte, string, error) {
	if c.request.Tell && c.request.Stream && c.backend.config.Continue == inference.ContinueTokens {
		c.vocabulary = openai.Model(body)
		body, c.tells = openai.WithRunning(body)
		c.mender.DropRun = c.tells
	}
	r := c.request.Resume
	if r == nil {
		return body, path, nil
	}
	c.mender.As = &r.Origin
	switch {
	case c.backend.config.Continue == inference.ContinueNone, r.IDs != nil && c.backend.config.Continue != inference.ContinueTokens:
		return nil, "", schemas.Errorf(schemas.CodeUnsupported, "the model server cannot go on with an answer")
	case r.IDs != nil:
		c.asChat = c.request.Op != schemas.OpCompletion
		return openai.RestOfTokens(body, r.IDs, r.Tokens), "/completions", nil
	case c.request.Op == schemas.OpCompletion:
		body, err := openai.RestOfCompletion(body, r.Text, r.Tokens)
		return body, path, err
	}
	body, err := openai.RestOfChat(body, r.Text, r.Tokens)
	return body, path, err
}

// told is what the event tells another call to go on from.
func (c *call) told() *openai.Running {
	if !c.tells {
		return nil
	}
	c.running = c.chunk.Running()
	c.running.Vocabulary = c.vocabulary
	return &c.running
}

// chat makes a chunk of chat of one of a text completion.
func (c *call) chat() ([]byte, error) {
	if len(c.chunk.Choices) > 0 {
		c.chunk.Usage = "" // it is that of the whole in the last chunk
	}
	c.buf = openai.AppendChatChunk(c.buf[:0], c.request.Resume.Origin, &c.chunk)
	return c.buf, c.chunk.Peek(c.buf)
}

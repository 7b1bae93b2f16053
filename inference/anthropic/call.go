package anthropic

import (
	"net/http"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// The protocol's headers as net/http spells them.
var (
	anthropicVersion = http.CanonicalHeaderKey(anthropic.HeaderVersion)
	anthropicBeta    = http.CanonicalHeaderKey(anthropic.HeaderBeta)
)

// call is one call of the server. It is owned by the goroutine that runs the loop.
type call struct {
	*upstream.Call
	backend *Backend
	request *inference.GenerateRequest

	public string            // the model's name as the caller knows it
	chunks *anthropic.Chunks // of a chat request
	event  anthropic.Event
	chunk  openai.Chunk // what a relayed event says
	relay  anthropic.Answer
	events int
}

// run makes the call and passes on its answer.
func (c *call) run() error {
	body, path, header, err := c.outgoing()
	if err != nil {
		return err
	}
	reply, err := c.Send(http.MethodPost, path, body, header)
	if err != nil {
		return err
	}
	if c.request.Stream {
		return c.Stream(reply.Body, c)
	}
	return c.unary(reply)
}

// outgoing is what the server is asked, and prepares the way back.
func (c *call) outgoing() (body []byte, path string, header http.Header, err error) {
	body, path, header = c.request.Body, "/messages", http.Header{anthropicVersion: {c.backend.config.Version}}
	c.public = openai.Model(body)
	switch c.request.Op {
	case schemas.OpChat, "":
		body, err = c.chat()
		if err != nil {
			return nil, "", nil, err
		}
	case schemas.OpCountTokens, schemas.OpMessages:
		if c.request.Op == schemas.OpCountTokens {
			path += "/count_tokens"
		} else if body, err = c.messages(); err != nil {
			return nil, "", nil, err
		}
		for from, to := range map[string]string{schemas.HeaderAnthropicVersion: anthropicVersion, schemas.HeaderAnthropicBeta: anthropicBeta} {
			if v := c.request.Header[from]; len(v) > 0 {
				header.Set(to, v[0])
			}
		}
	default:
		return nil, "", nil, schemas.Errorf(schemas.CodeUnsupported, "the model server's protocol has no operation %q; use %q or %q", c.request.Op, schemas.OpMessages, schemas.OpChat)
	}
	model := c.request.Model
	if model == "" {
		model = c.backend.config.Model
	}
	if model != "" && model != c.public {
		body = openai.WithModel(body, model)
	}
	return body, path, header, nil
}

// chat turns a chat request into one of the protocol.
func (c *call) chat() ([]byte, error) {
	c.chunks = &anthropic.Chunks{
		Model: c.public, Created: time.Now().Unix(), IncludeUsage: c.request.Stream && openai.IncludesUsage(c.request.Body),
	}
	body := c.request.Body
	if r := c.request.Resume; r != nil {
		if !c.goesOn(r) || anthropic.Thinks(body) {
			return nil, cannotGoOn()
		}
		var err error
		if body, err = openai.RestOfChat(body, r.Text, r.Tokens); err != nil {
			return nil, err
		}
	}
	return anthropic.ToMessages(body, anthropic.ChatPolicy{MaxTokens: c.backend.config.MaxTokens, Version: c.backend.config.Version})
}

// messages is a request of the protocol itself, or for the rest of its answer.
func (c *call) messages() ([]byte, error) {
	r := c.request.Resume
	switch {
	case r == nil:
		return c.request.Body, nil
	case !c.goesOn(r):
		return nil, cannotGoOn()
	}
	return anthropic.RestOfMessage(c.request.Body, r.Text, r.Tokens)
}

func (c *call) goesOn(r *inference.Resume) bool {
	return c.backend.config.Continue != inference.ContinueNone && r.IDs == nil
}

func cannotGoOn() error {
	return schemas.Errorf(schemas.CodeUnsupported, "the model server cannot go on with an answer")
}

// unary passes on a whole response.
func (c *call) unary(reply *http.Response) error {
	data, err := c.Document(reply, openai.MaxEventBytes)
	if err != nil {
		return err
	}
	whole, err := anthropic.ParseMessage(data)
	switch {
	case err != nil:
		return upstream.NotAnAnswer(data, err)
	case whole.Error != "":
		return openai.EventError([]byte(whole.Error))
	case c.request.Op == schemas.OpCountTokens:
		if !whole.Counted {
			return schemas.Errorf(schemas.CodeUpstreamError, "the model server did not say how many tokens the request has; have the operator check the backend's url")
		}
		c.Pass(inference.Event{Data: openai.OneLine(data), Chunk: &openai.Chunk{}})
		return nil
	case !whole.Message:
		return schemas.Errorf(schemas.CodeUpstreamError, "the model server's answer is not a message; try again, and have the operator check the backend's url")
	case whole.Finish == "":
		return schemas.Errorf(schemas.CodeUpstreamInterrupted, "the model server's answer has no stop_reason, so it may be cut; try again")
	}
	whole.Note(&c.chunk)
	if c.chunks != nil {
		if data, err = anthropic.ToResponse(data, c.public, c.chunks.Created); err != nil {
			return err
		}
		served := c.chunk.Model
		if err := c.chunk.Peek(data); err != nil {
			return upstream.NotAnAnswer(data, err)
		}
		c.chunk.Model = served
	} else {
		data = openai.OneLine(whole.WithModel(data, c.public))
	}
	c.Pass(inference.Event{Data: data, Chunk: &c.chunk})
	return nil
}

package openai

import (
	"net/http"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// call is one call of the server. It is owned by the goroutine that runs the loop.
type call struct {
	*upstream.Call
	backend *Backend
	request *inference.GenerateRequest

	choices int // answers asked for
	mender  openai.Mender
	chunk   openai.Chunk
	halves  openai.Halves
	ending  openai.Endings
	events  int
	done    bool // the end mark came

	tells   bool // the server was asked to tell what another call could go on from
	running openai.Running

	vocabulary string // of the server
	asChat     bool   // what comes are chunks of a text completion for a caller of chat
	buf        []byte
}

// run makes the call and passes on its answer.
func (c *call) run() error {
	path, err := endpoint(c.request.Op)
	if err != nil {
		return err
	}
	body, path, err := c.goOn(c.outgoing(), path)
	if err != nil {
		return err
	}
	reply, err := c.Send(http.MethodPost, path, body, nil)
	if err != nil {
		return err
	}
	if c.request.Stream {
		return c.Stream(reply.Body, c)
	}
	return c.unary(reply)
}

// outgoing is the body for the server, and prepares the way back.
func (c *call) outgoing() []byte {
	body := c.request.Body
	c.mender.Body, c.mender.Request = body, c.request.Identity.Request
	model := c.request.Model
	if model == "" {
		model = c.backend.config.Model
	}
	if model != "" { // else nobody looks for the model in a body that may be large
		if public := openai.Model(body); model != public {
			c.mender.Model = public
			body = openai.WithModel(body, model)
		}
	}
	if c.backend.config.MaxCompletionTokens {
		body = openai.WithMaxCompletionTokens(body)
	}
	if c.choices = c.request.Choices; c.choices == 0 {
		c.choices = openai.Choices(c.request.Op, body)
	}
	if c.request.Stream {
		body, c.mender.DropUsage = openai.WithUsage(body)
	}
	return body
}

// unary passes on a whole response.
func (c *call) unary(reply *http.Response) error {
	data, err := c.Document(reply, openai.MaxEventBytes)
	if err != nil {
		return err
	}
	if err := c.chunk.Peek(data); err != nil {
		return upstream.NotAnAnswer(data, err)
	}
	c.ending.Add(&c.chunk)
	switch {
	case c.chunk.Error != "":
		return openai.EventError([]byte(c.chunk.Error))
	case c.chunk.Failed() != nil:
		return c.chunk.Failed()
	case !c.ending.Started():
		return schemas.Errorf(schemas.CodeUpstreamError, "the model server's answer has no choices; try again, and have the operator check the backend's url")
	case *c.backend.config.RequireFinishReason && !c.ending.Whole(0):
		return schemas.Errorf(schemas.CodeUpstreamInterrupted, "the model server's answer has no finish_reason, so it may be cut; try again")
	}
	data, _ = c.mender.Mend(data, &c.chunk)
	c.Pass(inference.Event{Data: data, Chunk: &c.chunk})
	return nil
}

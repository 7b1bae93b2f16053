package ollama

import (
	"net/http"
	"strings"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/ollama"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// lines is what a stream comes as.
const lines = "application/x-ndjson"

// doneMark is what an answer that was cut lacks.
const doneMark = `"done": true`

// call is one call of the server. It is owned by the goroutine that runs the loop.
type call struct {
	*upstream.Call
	backend *Backend
	request *inference.GenerateRequest

	tellsUsage bool // the caller asked for it
	chunks     ollama.Chunks
	event      ollama.Event
	chunk      openai.Chunk
	events     int
	done       bool
}

// run makes the call and passes on its answer.
func (c *call) run() error {
	if c.request.Op != schemas.OpChat && c.request.Op != "" {
		return schemas.Errorf(schemas.CodeUnsupported, "the model server's protocol has no operation %q; use %q", c.request.Op, schemas.OpChat)
	}
	public := openai.Model(c.request.Body)
	body, err := c.body()
	if err != nil {
		return err
	}
	body, err = ollama.FromChat(body, c.backend.model(c.request, public), c.backend.config.Policy)
	if err != nil {
		return err
	}
	c.tellsUsage = openai.IncludesUsage(c.request.Body)
	c.chunks = ollama.Chunks{ID: ollama.IDPrefix + strings.TrimPrefix(c.request.Identity.Request, "req_"), Model: public}
	var header http.Header
	if c.request.Stream {
		header = http.Header{"Accept": {lines}}
	}
	reply, err := c.Send(http.MethodPost, "/api/chat", body, header)
	if err != nil {
		return err
	}
	if c.request.Stream {
		return c.Lines(reply.Body, c)
	}
	return c.unary(reply)
}

// body is the caller's, or asks for the rest of an answer: then the message that it ends with is the model's own, which it
// goes on with.
func (c *call) body() ([]byte, error) {
	r := c.request.Resume
	switch {
	case r == nil:
		return c.request.Body, nil
	case c.backend.config.Continue == inference.ContinueNone || r.IDs != nil:
		return nil, schemas.Errorf(schemas.CodeUnsupported, "the model server cannot go on with an answer")
	}
	return openai.RestOfChat(c.request.Body, r.Text, r.Tokens)
}

// unary passes on a whole response.
func (c *call) unary(reply *http.Response) error {
	data, err := c.Document(reply, openai.MaxEventBytes)
	if err != nil {
		return err
	}
	if err := c.event.Peek(openai.OneLine(data)); err != nil {
		return upstream.NotAnAnswer(data, err)
	}
	switch {
	case c.event.Error != "":
		return openai.EventError([]byte(c.event.Error))
	case !c.event.Done:
		return schemas.Errorf(schemas.CodeUpstreamInterrupted, "the model server's answer does not say that it is done, so it may be cut; try again")
	case c.event.Loaded():
		return onlyLoaded()
	}
	response := c.chunks.Response(&c.event)
	if err := c.chunk.Peek(response); err != nil {
		return upstream.NotAnAnswer(data, err)
	}
	c.Pass(inference.Event{Data: response, Chunk: &c.chunk})
	return nil
}

func onlyLoaded() error {
	return schemas.Errorf(schemas.CodeUpstreamError, "the model server loaded the model and answered nothing; try again")
}

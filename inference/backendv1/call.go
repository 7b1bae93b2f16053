package backendv1

import (
	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/rpc"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/openai"
	pb "github.com/weir-llm/weir/internal/pb/backendv1"
	"github.com/weir-llm/weir/schemas"
)

// call is one call of the server. It is owned by the goroutine that runs the loop.
type call struct {
	*rpc.Call
	backend *Backend
	request *inference.GenerateRequest

	mender   openai.Mender
	chunk    openai.Chunk
	ending   openai.Endings
	events   int
	usage    bool // a chunk held it
	origin   openai.Origin
	document []byte // a unary answer, which is passed on when it is known to be whole
	final    bool   // the last message came

	tell    bool // the server was asked to tell its tokens
	running openai.Running
	goesOn  bool // the server has said that it goes on with an answer
}

// run makes the call and passes on its answer.
func (c *call) run() error {
	if err := checkOp(c.request.Op); err != nil {
		return err
	}
	out := c.outgoing()
	if err := c.goOn(out); err != nil {
		return err
	}
	stream, err := c.backend.stub.Generate(c.Context(), out, rpc.Options(openai.MaxEventBytes)...)
	if err != nil {
		return c.Failed(err)
	}
	if err := rpc.Stream(c.Call, stream, c.message); err != nil || c.Stopped() {
		return c.ended(err)
	}
	return c.judge()
}

// body is the caller's with the server's name for the model, and prepares the way back.
func (c *call) body() []byte {
	model := c.request.Model
	if model == "" {
		model = c.backend.config.Model
	}
	body := c.request.Body
	c.mender.Body, c.mender.Request = body, c.request.Identity.Request
	if model != "" { // else nobody looks for the model in a body that may be large
		if public := openai.Model(body); model != public {
			c.mender.Model = public
			body = openai.WithModel(body, model)
		}
	}
	return body
}

func (c *call) outgoing() *pb.GenerateRequest {
	r := c.request
	op := r.Op
	if op == "" {
		op = schemas.OpChat
	}
	c.mender.DropUsage = r.Stream && !openai.IncludesUsage(r.Body)
	out := &pb.GenerateRequest{
		RequestId: r.Identity.Request, Tenant: r.Identity.Tenant, Op: string(op), BodyJson: c.body(), Attempt: uint32(max(r.Attempt, 0)),
	}
	if !r.Deadline.IsZero() {
		out.DeadlineUnixMs = r.Deadline.UnixMilli()
	}
	return out
}

// message passes on what a message holds.
func (c *call) message(m *pb.GenerateEvent, more bool) (counts, end bool, err error) {
	chunks, last := m.GetChunkJson(), m.GetFinal()
	end = last != nil
	c.goesOn = c.goesOn || m.GetResumed()
	if c.request.Resume != nil && !c.goesOn && (len(chunks) > 0 || end) {
		return false, false, cannotGoOn()
	}
	for i, data := range chunks {
		rest := i < len(chunks)-1 || end && c.tells(last) || more && !end
		if err := c.event(data, c.told(m, i), rest); err != nil || c.Stopped() {
			return true, end, err
		}
	}
	if end {
		c.final = true
		c.finish(last)
	}
	return len(chunks) > 0, end, nil
}

// event passes on a chunk, or keeps a whole response.
func (c *call) event(data []byte, told *openai.Running, more bool) error {
	if len(data) > openai.MaxEventBytes {
		return upstream.TooLarge(openai.MaxEventBytes)
	}
	data = openai.ToUTF8(data)
	if err := c.chunk.Peek(data); err != nil {
		return upstream.NotAnEvent(err)
	}
	switch {
	case c.chunk.Error != "":
		return openai.EventError([]byte(c.chunk.Error))
	case c.chunk.Failed() != nil:
		return c.chunk.Failed()
	case !c.request.Stream && c.events > 0:
		return schemas.Errorf(schemas.CodeUpstreamError, "the model server answered with a stream instead of one document; send the request with \"stream\": true, or have the operator look at the server")
	}
	c.events++
	c.ending.Add(&c.chunk)
	c.usage = c.usage || c.chunk.Usage != ""
	if !c.request.Stream {
		c.document = data
		return nil
	}
	if c.events == 1 {
		c.origin = c.chunk.Origin()
	}
	data, _ = c.mender.Mend(data, &c.chunk)
	c.Pass(inference.Event{Data: data, Chunk: &c.chunk, Running: told, More: more})
	return nil
}

// ended judges a stream that broke. An answer that is whole stays so whatever became of the call afterwards.
func (c *call) ended(err error) error {
	if c.judge() == nil {
		return nil
	}
	return err
}

// judge judges what has come when no more does: nil means that the answer is whole.
func (c *call) judge() error {
	switch {
	case c.events == 0:
		return upstream.EmptyStream()
	case !c.final:
		return upstream.Interrupted("final message")
	case !c.ending.Started():
		return schemas.Errorf(schemas.CodeUpstreamError, "the model server's answer has no choices; try again, and have the operator look at the server")
	case c.ending.Whole(0): // a server that ignores n gives one choice
		return nil
	}
	return upstream.Interrupted("finish_reason")
}

package triton

import (
	"errors"
	"io"
	"time"

	"github.com/tidwall/gjson"
	"google.golang.org/grpc"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/rpc"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/openai"
	pb "github.com/weir-llm/weir/internal/pb/triton"
	"github.com/weir-llm/weir/schemas"
)

// call is one call of the server. It is owned by the goroutine that runs the loop.
type call struct {
	*rpc.Call
	backend *Backend
	request *inference.GenerateRequest

	stream grpc.BidiStreamingClient[pb.ModelInferRequest, pb.ModelStreamInferResponse]
	writer *writer
	asked  bool // for the usage chunk
	counts usage
	events int
	whole  string // text of a unary answer
	finish string // why the answer ended
}

// run makes the call and passes on its answer.
func (c *call) run() error {
	request, err := c.outgoing()
	if err != nil {
		return err
	}
	c.stream, err = c.backend.stub.ModelStreamInfer(c.Context(), rpc.Options(openai.MaxEventBytes)...)
	if err != nil {
		return c.Failed(err)
	}
	if err := c.stream.Send(request); err != nil && !errors.Is(err, io.EOF) { // after EOF the status tells more
		return c.Failed(err)
	}
	if err := rpc.Stream(c.Call, c.stream, c.message); err != nil || c.Stopped() {
		if c.finish != "" { // an answer that is whole stays so whatever became of the call afterwards
			return nil
		}
		return err
	}
	switch {
	case c.finish != "":
		return nil
	case c.events == 0:
		return upstream.EmptyStream()
	}
	return upstream.Interrupted("finish_reason")
}

// outgoing is what the server is asked, and prepares the way back.
func (c *call) outgoing() (*pb.ModelInferRequest, error) {
	r, body := c.request, gjson.ParseBytes(c.request.Body)
	var prompt string
	var err error
	switch r.Op {
	case schemas.OpChat, "":
		prompt, err = c.backend.config.Template.chat(body)
	case schemas.OpCompletion:
		prompt, err = completion(body)
	default:
		err = schemas.Errorf(schemas.CodeUnsupported, "the model server's protocol has no operation %q; use %q or %q", r.Op, schemas.OpChat, schemas.OpCompletion)
	}
	if err != nil {
		return nil, err
	}
	parameters, err := sampling(body, c.backend.config.MaxTokens)
	if err != nil {
		return nil, err
	}
	public := body.Get("model").Str
	model := r.Model
	if model == "" {
		model = c.backend.config.Model
	}
	if model == "" {
		model = public
	}
	c.writer = newWriter(r.Op, r.Identity.Request, public, time.Now().Unix())
	c.asked = r.Stream && openai.IncludesUsage(r.Body)
	return newRequest(model, r.Identity.Request, prompt, parameters, r.Stream), nil
}

// message passes on what a response of the server says.
func (c *call) message(m *pb.ModelStreamInferResponse, more bool) (counts, end bool, err error) {
	if m.GetErrorMessage() != "" {
		return false, false, refusal(m.GetErrorMessage())
	}
	r, err := read(m.GetInferResponse())
	if err != nil {
		return false, false, schemas.Errorf(schemas.CodeUpstreamError, "the model server sent %v; try again, and have the operator check that the model is one of the vLLM backend", err)
	}
	if end = r.final; end {
		_ = c.stream.CloseSend() // so that the server ends the stream; whether it did is told by its status
	}
	if c.finish != "" || !r.told && r.finish == "" { // only the end mark
		return r.told, end, nil
	}
	c.events++
	c.counts.prompt = max(c.counts.prompt, r.prompt)
	c.counts.answer += r.answer
	if r.finish != "" {
		if c.finish = finishOf(r.finish); c.finish == "" {
			return false, false, upstream.Interrupted("finish_reason but " + aborted)
		}
	}
	switch {
	case c.request.Stream:
		c.pass(r, more && !end)
	case len(c.whole)+len(r.text) > openai.MaxEventBytes:
		return true, end, upstream.TooLarge(openai.MaxEventBytes)
	default:
		c.collect(r)
	}
	return true, end, nil
}

// pass passes on the chunks of a response. All but the last promise the next.
func (c *call) pass(r response, more bool) {
	ends := c.finish != ""
	if c.events == 1 && !c.writer.completion && !c.chunk(c.writer.role, r.text != "" || ends || more) {
		return
	}
	if r.text != "" && !c.chunk(func() ([]byte, *openai.Chunk) { return c.writer.text(r.text) }, ends || more) {
		return
	}
	if !ends || !c.chunk(func() ([]byte, *openai.Chunk) { return c.writer.finish(c.finish) }, true) {
		return
	}
	c.chunk(func() ([]byte, *openai.Chunk) {
		data, chunk := c.writer.usage(c.counts)
		if !c.asked {
			data = nil
		}
		return data, chunk
	}, false)
}

func (c *call) chunk(write func() ([]byte, *openai.Chunk), more bool) bool {
	data, chunk := write()
	return c.Pass(inference.Event{Data: data, Chunk: chunk, More: more})
}

// collect gathers a unary answer, and passes it on when it has ended.
func (c *call) collect(r response) {
	if c.whole += r.text; c.finish != "" {
		c.chunk(func() ([]byte, *openai.Chunk) { return c.writer.response(c.whole, c.finish, c.counts) }, false)
	}
}

package backendv1

import (
	"strconv"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/openai"
	pb "github.com/weir-llm/weir/internal/pb/backendv1"
	"github.com/weir-llm/weir/schemas"
)

func tokens(f *pb.Final) uint64 { return uint64(f.GetPromptTokens()) + uint64(f.GetCompletionTokens()) }

// tells reports whether the last message holds counts that no chunk told.
func (c *call) tells(f *pb.Final) bool { return !c.usage && tokens(f) > 0 }

// finish passes on what is due at the end: a whole response, or the usage, to the pipeline and to a caller that asked for
// it.
func (c *call) finish(f *pb.Final) {
	tells := c.tells(f)
	var usage []byte
	if tells {
		usage = appendUsage(nil, f)
	}
	switch {
	case !c.request.Stream && c.judge() == nil:
		c.respond(usage)
	case c.request.Stream && tells:
		c.chunk = openai.Chunk{Usage: string(usage)}
		event := inference.Event{Chunk: &c.chunk}
		if openai.IncludesUsage(c.request.Body) {
			event.Data = c.usageChunk(usage)
		}
		c.Pass(event)
	}
}

// respond passes on a whole response.
func (c *call) respond(usage []byte) {
	data := c.document
	if len(usage) > 0 {
		data = openai.WithAnswerUsage(data, string(usage))
		if c.chunk.Peek(data) != nil {
			return // unreachable: both parts are valid JSON
		}
	}
	data, _ = c.mender.Mend(data, &c.chunk)
	c.Pass(inference.Event{Data: data, Chunk: &c.chunk})
}

func appendUsage(b []byte, f *pb.Final) []byte {
	b = strconv.AppendUint(append(b, `{"prompt_tokens":`...), uint64(f.GetPromptTokens()), 10)
	b = strconv.AppendUint(append(b, `,"completion_tokens":`...), uint64(f.GetCompletionTokens()), 10)
	b = strconv.AppendUint(append(b, `,"total_tokens":`...), tokens(f), 10)
	if f.GetCachedTokens() > 0 {
		b = strconv.AppendUint(append(b, `,"prompt_tokens_details":{"cached_tokens":`...), uint64(f.GetCachedTokens()), 10)
		b = append(b, '}')
	}
	return append(b, '}')
}

// usageChunk follows the chunks of the answer and has their id, time and model.
func (c *call) usageChunk(usage []byte) []byte {
	b := []byte(`{`)
	for _, m := range [...]struct{ name, value string }{{`"id":`, c.origin.ID}, {`"created":`, c.origin.Created}, {`"model":`, c.origin.Model}} {
		if m.value != "" {
			b = append(append(append(b, m.name...), m.value...), ',')
		}
	}
	object := `"object":"chat.completion.chunk"`
	if c.request.Op == schemas.OpCompletion {
		object = `"object":"text_completion"`
	}
	b = append(append(b, object...), `,"choices":[],"usage":`...)
	b = append(append(b, usage...), '}')
	var chunk openai.Chunk
	if chunk.Peek(b) != nil {
		return nil // unreachable: every part of it was read from valid JSON
	}
	b, _ = c.mender.Mend(b, &chunk)
	return b
}

// embeddings is the answer in the form that was asked for.
func (c *call) embeddings(data []byte) ([]byte, error) {
	if err := c.chunk.Peek(data); err != nil {
		return nil, upstream.NotAnAnswer(data, err)
	}
	if c.chunk.Error != "" {
		return nil, openai.EventError([]byte(c.chunk.Error))
	}
	answer, count, err := openai.Embeddings(c.mender.MendDocument(data, &c.chunk), openai.EncodingFormat(c.request.Body))
	switch {
	case err != nil:
		return nil, schemas.Errorf(schemas.CodeUpstreamError, "the model server's embeddings cannot be read; try again, and have the operator look at the server").WithCause(err)
	case count == 0:
		return nil, schemas.Errorf(schemas.CodeUpstreamError, "the model server's answer has no embeddings; try again, and have the operator look at the server")
	}
	return answer, nil
}

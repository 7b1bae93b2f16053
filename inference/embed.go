package inference

import (
	"context"
	"iter"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// generate calls the backend as the request's op wants, and yields what Generate would: of embeddings, which no backend
// streams, the whole response as one event.
func generate(ctx context.Context, b Backend, r *GenerateRequest) iter.Seq2[Event, error] {
	if r.Op != schemas.OpEmbedding {
		return b.Generate(ctx, r)
	}
	return func(yield func(Event, error) bool) {
		response, err := b.Embed(ctx, r)
		if err != nil {
			yield(Event{}, err)
			return
		}
		chunk := &openai.Chunk{}
		if err := chunk.Peek(response); err != nil {
			yield(Event{}, schemas.Errorf(schemas.CodeUpstreamError, "the model server's embeddings are not a JSON object; try again").WithCause(err))
			return
		}
		yield(Event{Data: response, Chunk: chunk}, nil)
	}
}

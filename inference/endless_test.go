package inference_test

import (
	"bytes"
	"context"
	"iter"
	"testing"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

// endless is a backend that does not stop.
type endless struct {
	*fake
	said int
}

func (e *endless) Generate(context.Context, *inference.GenerateRequest) iter.Seq2[inference.Event, error] {
	return func(yield func(inference.Event, error) bool) {
		event := eventOf(unary(string(bytes.Repeat([]byte("x"), 8<<20))))
		for yield(event, nil) {
			e.said++
		}
	}
}

func TestAnswerWithoutEnd(t *testing.T) {
	t.Parallel()
	p := setup(t)
	backend := &endless{fake: &fake{}}
	p.worker("w1", backend)
	id := p.send("r1", whole)
	if got := p.read(id); got.code() != schemas.CodeUpstreamError {
		t.Errorf("it ended in %q", got.code())
	}
	if r := p.ended(id); r.Attempts != 1 || backend.said > 16 {
		t.Errorf("%d attempts, %d events of 8 MiB were taken", r.Attempts, backend.said)
	}
}

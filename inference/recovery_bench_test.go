package inference

import (
	"context"
	"iter"
	"testing"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// ready is a backend that answers at once with one event.
type ready struct{ Backend }

func (ready) Name() string { return "ready" }

func (ready) Generate(context.Context, *GenerateRequest) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) { yield(Event{Data: []byte("{}"), Chunk: &openai.Chunk{}}, nil) }
}

// BenchmarkRecovery is what a request costs that needs no recovery: budget, pick, outcome and record.
func BenchmarkRecovery(b *testing.B) {
	m, err := newModel("m", Model{Backends: []Slot{{Backend: ready{}, MaxInFlight: 1}}})
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		r := &recovery{
			models: []*model{m}, record: func(*model, schemas.Try) {},
			call: func(ctx context.Context, t *try) said { return t.heard(t.place.backend.Generate(ctx, nil)) },
		}
		for _, err := range r.events(b.Context()) {
			if err != nil {
				b.Fatal(err)
			}
		}
	}
}

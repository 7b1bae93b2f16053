package inference_test

import (
	"context"
	"fmt"
	"iter"
	"testing"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// instant answers at once with events that are ready made.
type instant struct {
	fake
	events []inference.Event
}

func (b *instant) Generate(context.Context, *inference.GenerateRequest) iter.Seq2[inference.Event, error] {
	return func(yield func(inference.Event, error) bool) {
		for _, e := range b.events {
			if !yield(e, nil) {
				return
			}
		}
	}
}

// BenchmarkStream64 answers with 64 tokens: in a frame each, as at a slow pace, and as fast as a model can be read.
func BenchmarkStream64(b *testing.B) {
	for _, more := range []bool{false, true} {
		backend := &instant{}
		for range 63 {
			e := event(1, "token ", "null")
			e.More = more
			backend.events = append(backend.events, e)
		}
		backend.events = append(backend.events, event(1, "", `"stop"`))
		for _, concurrent := range []int{1, 32} {
			b.Run(fmt.Sprintf("gathered=%t/concurrent=%d", more, concurrent), func(b *testing.B) {
				benchmark(b, backend, sampled, concurrent)
			})
		}
	}
}

func BenchmarkUnary(b *testing.B) {
	backend := &instant{events: []inference.Event{eventOf(unary("one two three"))}}
	for _, concurrent := range []int{1, 32} {
		b.Run(fmt.Sprintf("concurrent=%d", concurrent), func(b *testing.B) { benchmark(b, backend, whole, concurrent) })
	}
}

// benchmark measures requests from dispatch until a reader has seen their end.
func benchmark(b *testing.B, backend inference.Backend, body string, concurrent int) {
	p := setup(b)
	p.worker("w1", backend, slots(concurrent))
	b.ReportAllocs()
	n, ends := 0, make(chan error, concurrent)
	ask := func() {
		n++
		id := identity(fmt.Sprintf("r%d", n))
		reader, err := p.bus.Open(b.Context(), id, bus.ReadOptions{Fresh: true})
		if err != nil {
			b.Fatal(err)
		}
		go func() {
			defer reader.Close()
			for f, err := range reader.Frames(b.Context()) {
				if err != nil || f.Kind == schemas.KindError {
					ends <- fmt.Errorf("%s: %s, %w", id, f.Data, err)
					return
				}
			}
			ends <- nil
		}()
		p.dispatch(work(id.Request, 1, body))
	}
	for range concurrent - 1 {
		ask()
	}
	for b.Loop() {
		ask()
		if err := <-ends; err != nil {
			b.Fatal(err)
		}
	}
	for range concurrent - 1 {
		if err := <-ends; err != nil {
			b.Fatal(err)
		}
	}
}

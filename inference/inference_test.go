package inference_test

import (
	"context"
	"fmt"
	"iter"
	"log/slog"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/bus/bustest"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// fake is a backend with dials.
type fake struct {
	words         []string
	deterministic bool
	gate          func(ctx context.Context, i int) error // before word i
	calls         atomic.Int32
}

func (f *fake) Name() string                                  { return "fake" }
func (f *fake) Embed(context.Context, []byte) ([]byte, error) { return nil, nil }
func (f *fake) Models(context.Context) ([]string, error)      { return nil, nil }
func (f *fake) Health(context.Context) error                  { return nil }
func (f *fake) Capabilities() inference.Capabilities {
	return inference.Capabilities{Deterministic: f.deterministic}
}
func (f *fake) event(call int32, delta, finish string) inference.Event {
	data := fmt.Appendf(nil, `{"id":"call-%d","created":1,"model":"m","choices":[{"index":0,"delta":{"content":%q},"finish_reason":%s}]}`, call, delta, finish)
	c := &openai.Chunk{}
	if err := c.Peek(data); err != nil {
		panic(err)
	}
	return inference.Event{Data: data, Chunk: c}
}

func (f *fake) Generate(ctx context.Context, _ *inference.GenerateRequest) iter.Seq2[inference.Event, error] {
	return func(yield func(inference.Event, error) bool) {
		call := f.calls.Add(1)
		for i, word := range f.words {
			if f.gate != nil {
				if err := f.gate(ctx, i); err != nil {
					yield(inference.Event{}, err)
					return
				}
			}
			if !yield(f.event(call, word, "null"), nil) {
				return
			}
		}
		yield(f.event(call, "", `"stop"`), nil)
	}
}

// start runs a worker until the test ends or stop is called, which waits.
func start(t *testing.T, b *bus.Bus, name string, backend inference.Backend) (stop func()) {
	t.Helper()
	w, err := inference.New(inference.Config{
		Logger: slog.New(slog.NewTextHandler(t.Output(), &slog.HandlerOptions{Level: slog.LevelDebug})), Bus: b, Name: name, DrainTimeout: 5 * time.Second,
		Models: map[string]inference.Model{"m": {Backends: []inference.Slot{{Backend: backend, MaxInFlight: 4}}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() {
		if err := w.Run(ctx); err != nil {
			t.Error(err)
		}
	})
	stop = sync.OnceFunc(func() { cancel(); running.Wait() })
	t.Cleanup(stop)
	return stop
}

func dispatch(t *testing.T, b *bus.Bus, id string, number int, body string) schemas.Identity {
	t.Helper()
	w := &schemas.Work{
		Request:  schemas.Request{Identity: schemas.Identity{Tenant: "acme", Request: id}, ModelToken: "m", Body: []byte(body)},
		Dispatch: number, Accepted: time.Now(),
	}
	if _, err := b.Dispatch(t.Context(), w); err != nil {
		t.Fatal(err)
	}
	return w.Identity
}

// read collects the answer's text and its terminal frame.
func read(t *testing.T, b *bus.Bus, id schemas.Identity) (text string, terminal *schemas.Frame) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var c openai.Chunk
	for f, err := range b.Read(ctx, id, bus.ReadOptions{}) {
		if err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
		for _, event := range f.Events() {
			if err := c.Peek(event); err != nil {
				t.Fatal(err)
			}
			for _, choice := range c.Choices {
				text += choice.Content
			}
		}
		terminal = f
	}
	return text, terminal
}

// result waits for the final record.
func result(t *testing.T, b *bus.Bus, id schemas.Identity) *schemas.Result {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; <-time.After(10 * time.Millisecond) {
		r, err := b.Result(t.Context(), id)
		if err == nil {
			return r
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

const streamed = `{"model":"m","stream":true,"temperature":0,"messages":[{"role":"user","content":"hi"}]}`

func TestStreamedAnswer(t *testing.T) {
	t.Parallel()
	b := bustest.New(t)
	start(t, b, "w1", &fake{words: []string{"one ", "two ", "three"}})
	id := dispatch(t, b, "r1", 1, streamed)
	text, terminal := read(t, b, id)
	if text != "one two three" || terminal.Kind != schemas.KindEnd {
		t.Fatalf("got %q, %+v", text, terminal)
	}
	r := result(t, b, id)
	if r.Status != schemas.StatusCompleted || r.Attempts != 1 || len(r.Tries) != 1 || r.Tries[0].Outcome != "" || len(r.FinishReasons) != 1 || r.Events.Count != 4 {
		t.Fatalf("%+v", r)
	}
}

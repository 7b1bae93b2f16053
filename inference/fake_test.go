package inference_test

import (
	"context"
	"fmt"
	"iter"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// fake is a backend with dials.
type fake struct {
	name          string // default fake
	words         []string
	deterministic bool
	gate          func(ctx context.Context, call, i int) error // before word i, and before the end of the answer
	unfinished    bool                                         // a stream says no finish_reason
	whole         []byte                                       // a unary answer; default one of words
	leftOut       int                                          // events before a unary answer that could not be read

	calls   atomic.Int32
	running atomic.Int32
	most    atomic.Int32 // that ran at once
}

var _ inference.Backend = (*fake)(nil)

func (f *fake) Name() string {
	if f.name == "" {
		return "fake"
	}
	return f.name
}
func (f *fake) Embed(context.Context, *inference.GenerateRequest) ([]byte, error) {
	f.calls.Add(1)
	return f.whole, nil
}
func (f *fake) Models(context.Context) ([]string, error) { return nil, nil }
func (f *fake) Health(context.Context) error             { return nil }
func (f *fake) Capabilities() inference.Capabilities {
	return inference.Capabilities{Deterministic: f.deterministic}
}

func (f *fake) Generate(ctx context.Context, r *inference.GenerateRequest) iter.Seq2[inference.Event, error] {
	return func(yield func(inference.Event, error) bool) {
		call := int(f.calls.Add(1))
		now := f.running.Add(1)
		defer f.running.Add(-1)
		for most := f.most.Load(); now > most && !f.most.CompareAndSwap(most, now); most = f.most.Load() {
		}
		if err := f.say(ctx, call, r, yield); err != nil {
			yield(inference.Event{}, err)
		}
	}
}

func (f *fake) say(ctx context.Context, call int, r *inference.GenerateRequest, yield func(inference.Event, error) bool) error {
	stream, event := r.Stream, event
	if r.Op == schemas.OpCompletion {
		event = textEvent
	}
	for i, word := range f.words {
		if err := f.pass(ctx, call, i); err != nil {
			return err
		}
		if stream && !yield(event(call, word, "null"), nil) {
			return nil
		}
	}
	if err := f.pass(ctx, call, len(f.words)); err != nil {
		return err
	}
	if stream && f.unfinished {
		return nil
	}
	if stream {
		yield(event(call, "", `"stop"`), nil)
		return nil
	}
	data := f.whole
	if data == nil {
		data = unary(strings.Join(f.words, ""))
	}
	answer := eventOf(data)
	answer.LeftOut = f.leftOut
	yield(answer, nil)
	return nil
}

func (f *fake) pass(ctx context.Context, call, i int) error {
	if f.gate == nil {
		return nil
	}
	return f.gate(ctx, call, i)
}

func event(call int, delta, finish string) inference.Event {
	return eventOf(fmt.Appendf(nil, `{"id":"call-%d","created":1,"model":"m","choices":[{"index":0,"delta":{"content":%q},"finish_reason":%s}]}`, call, delta, finish))
}

func textEvent(call int, text, finish string) inference.Event {
	return eventOf(fmt.Appendf(nil, `{"id":"call-%d","object":"text_completion","created":1,"model":"m","choices":[{"index":0,"text":%q,"finish_reason":%s}]}`, call, text, finish))
}

func unary(content string) []byte {
	return fmt.Appendf(nil, `{"id":"c","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":%q},"finish_reason":"stop"}]}`, content)
}

func eventOf(data []byte) inference.Event {
	c := &openai.Chunk{}
	if err := c.Peek(data); err != nil {
		panic(err)
	}
	return inference.Event{Data: data, Chunk: c}
}

// stall is a gate that holds the given call before word i until it is opened or the call is cancelled.
type stall struct {
	call, i int
	reached chan struct{}
	ended   chan struct{} // closed when the call was cancelled while it was held
	opened  chan struct{}
	once    sync.Once
}

func stallAt(call, i int) *stall {
	return &stall{call: call, i: i, reached: make(chan struct{}), ended: make(chan struct{}), opened: make(chan struct{})}
}

func (s *stall) gate(ctx context.Context, call, i int) error {
	if call != s.call || i != s.i {
		return nil
	}
	close(s.reached)
	select {
	case <-s.opened:
		return nil
	case <-ctx.Done():
		close(s.ended)
		return inference.ContextError(ctx)
	}
}

func (s *stall) open() { s.once.Do(func() { close(s.opened) }) }

// wait fails the test unless c is closed, or has something, in time.
func wait[T any](t testing.TB, what string, c <-chan T) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("%s: waited in vain", what)
	}
}

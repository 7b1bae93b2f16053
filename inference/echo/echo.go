// Package echo is a backend without a model: it answers "echo: " and the last user message, or the prompt of a
// completion, token by token, and turns texts into vectors that are near when the texts share words. The same request
// gives the same bytes, on any machine and in any attempt, which makes it the reference for everything that must survive
// a crash.
//
// Its dials come from the configuration and, for one request, from the member `x_echo` of the body:
//
//	{"model":"echo","messages":[…],"stream":true,"x_echo":{"tokens":200,"interval_ms":20,"cut":50}}
//
// See [Dials] for all of them. Like max_tokens in the body, tokens ends the answer; unlike it, it repeats a text that is
// too short.
package echo

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// Config of the backend. The zero value, with a name, echoes at once.
type Config struct {
	Name string // required; the operator's name for it

	// Models is what the backend says it offers. Default: echo.
	Models []string

	// Deterministic is what Capabilities tells. Default true, which it is unless the dial Vary is set.
	Deterministic *bool

	Continue inference.Continuation // what Capabilities tells; it knows how to go on from a text

	Dials Dials // of every request
}

// Backend answers without a model server.
type Backend struct{ config Config }

var _ inference.Backend = (*Backend)(nil)

// New makes a backend.
func New(config Config) (*Backend, error) {
	if config.Name == "" {
		return nil, errors.New("backend: name is missing: give each backend one, it stands in results and metrics")
	}
	if err := config.Dials.validate(); err != nil {
		return nil, fmt.Errorf("backend %s: %w", config.Name, err)
	}
	if len(config.Models) == 0 {
		config.Models = []string{"echo"}
	}
	return &Backend{config}, nil
}

// Name of the backend, as configured.
func (b *Backend) Name() string { return b.config.Name }

// Capabilities of the backend, as configured.
func (b *Backend) Capabilities() inference.Capabilities {
	deterministic := b.config.Deterministic == nil || *b.config.Deterministic
	return inference.Capabilities{Deterministic: deterministic, Continue: min(b.config.Continue, inference.ContinueText)}
}

// Models lists the configured models.
func (b *Backend) Models(context.Context) ([]string, error) { return b.config.Models, nil }

// Health is always good.
func (b *Backend) Health(context.Context) error { return nil }

// Generate answers a chat or completion request.
func (b *Backend) Generate(ctx context.Context, r *inference.GenerateRequest) iter.Seq2[inference.Event, error] {
	return func(yield func(inference.Event, error) bool) {
		a, err := newAnswer(b.config.Dials, r)
		if err != nil {
			yield(inference.Event{}, err)
			return
		}
		if !r.Deadline.IsZero() {
			var cancel context.CancelFunc
			ctx, cancel = context.WithDeadline(ctx, r.Deadline)
			defer cancel()
		}
		c := call{ctx: ctx, answer: a, yield: yield}
		if err := c.run(r.Stream); err != nil && !c.stopped {
			yield(inference.Event{}, err)
		}
	}
}

// call is one run through an answer.
type call struct {
	ctx     context.Context // of the loop, which the call does not outlive
	answer  *answer
	yield   func(inference.Event, error) bool
	stopped bool // the loop body broke out
	chunk   openai.Chunk
	timer   *time.Timer
}

func (c *call) run(stream bool) error {
	if c.ctx.Err() != nil {
		return inference.ContextError(c.ctx)
	}
	if err := c.answer.dials.refusal(c.answer.try); err != nil {
		return err
	}
	if stream {
		return c.stream()
	}
	return c.unary()
}

func (c *call) stream() error {
	a := c.answer
	if a.form.opening != "" {
		for choice := range a.choices() {
			if !c.pass(a.opening(choice)) {
				return nil
			}
		}
	}
	longest := a.longest()
	for i := a.replies[0].from; i < longest; i++ {
		if err := c.token(i); err != nil || c.stopped {
			return err
		}
	}
	if err := c.fault(longest); err != nil {
		return err
	}
	for choice := range a.choices() {
		if !c.pass(a.closing(choice)) {
			return nil
		}
	}
	c.passUsage()
	return nil
}

// token passes on token i of every choice, at its time.
func (c *call) token(i int) error {
	if err := c.fault(i); err != nil {
		return err
	}
	if err := c.pause(c.answer.dials.interval()); err != nil {
		return err
	}
	for choice := range c.answer.choices() {
		if i < c.answer.reply(choice).count && !c.pass(c.answer.delta(choice, i)) {
			return nil
		}
	}
	return nil
}

func (c *call) unary() error {
	a := c.answer
	longest := a.longest()
	for i := range longest {
		if err := c.fault(i); err != nil {
			return err
		}
		if err := c.pause(a.dials.interval()); err != nil {
			return err
		}
	}
	if err := c.fault(longest); err != nil {
		return err
	}
	whole := a.whole()
	c.hand(whole, whole, false)
	return nil
}

// fault is what the dials let happen before token i.
func (c *call) fault(i int) error {
	d := c.answer.dials
	if !d.active(c.answer.try) {
		return nil
	}
	switch {
	case d.Stall != nil && i == *d.Stall:
		<-c.ctx.Done()
		return inference.ContextError(c.ctx)
	case d.Cut != nil && i == *d.Cut:
		return schemas.Errorf(schemas.CodeUpstreamInterrupted, "the echo model was told to stop after %d tokens; turn its dial cut", i)
	case d.Garbage != nil && i == *d.Garbage:
		return schemas.Errorf(schemas.CodeUpstreamError, "the echo model was told to send garbage after %d tokens; turn its dial garbage", i)
	}
	return nil
}

func (c *call) pause(d time.Duration) error {
	if d == 0 {
		if c.ctx.Err() != nil {
			return inference.ContextError(c.ctx)
		}
		return nil
	}
	if c.timer == nil {
		c.timer = time.NewTimer(d)
	} else {
		c.timer.Reset(d)
	}
	defer c.timer.Stop()
	select {
	case <-c.timer.C:
		return nil
	case <-c.ctx.Done():
		return inference.ContextError(c.ctx)
	}
}

// pass hands an event of a stream to the loop body, and reports whether to go on. Without a pause the next event is there
// at once; the last one is the usage.
func (c *call) pass(data []byte) bool {
	dials := c.answer.dials
	return c.hand(data, data, dials.IntervalMS == 0 && dials.Stall == nil)
}

// passUsage tells the usage, to the caller too if it asked.
func (c *call) passUsage() {
	says := c.answer.usageChunk()
	var data []byte
	if c.answer.includeUsage {
		data = says
	}
	c.hand(data, says, false)
}

// hand passes data on as an event that says what says does.
func (c *call) hand(data, says []byte, more bool) bool {
	if err := c.chunk.Peek(says); err != nil {
		panic(err) // our own chunk
	}
	c.stopped = !c.yield(inference.Event{Data: data, Chunk: &c.chunk, More: more}, nil)
	return !c.stopped
}

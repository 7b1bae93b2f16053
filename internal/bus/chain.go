package bus

import (
	"context"
	"errors"
	"iter"

	"github.com/weir-llm/weir/schemas"
)

// Chain is every stored frame of a request, in order.
type Chain struct {
	Frames []*schemas.Frame
}

// rereads is how often a chain is read again that was being removed.
const rereads = 2

// Chain reads the chain of a request up to the frame that its leader says is the last. It is empty when nothing was
// written, or when retention or erasure has removed it; it is never what a removal under way has left so far.
func (b *Bus) Chain(ctx context.Context, id schemas.Identity) (*Chain, error) {
	for read := 0; ; read++ {
		chain, err := b.readChain(ctx, id)
		removed := errors.Is(err, errRemoved) || errors.Is(err, ErrNotFound) || err == nil && !chain.whole()
		if !removed || read == rereads {
			return chain, err
		}
	}
}

func (b *Bus) readChain(ctx context.Context, id schemas.Identity) (*Chain, error) {
	chain := &Chain{}
	last, err := b.lastFrame(ctx, id)
	if errors.Is(err, ErrNotFound) {
		return chain, nil
	}
	if err != nil {
		return nil, err
	}
	for f, err := range b.storedFrames(ctx, id, 1, last.Sequence) {
		if err != nil {
			return nil, err
		}
		if err := b.resolveFrame(ctx, f); err != nil {
			return nil, err
		}
		chain.Frames = append(chain.Frames, f)
	}
	return chain, nil
}

// LastFrame is the last frame of a request by the word of the stream's leader, with its payload where it is stored; or
// [ErrNotFound] when nothing was written, or retention has removed it.
func (b *Bus) LastFrame(ctx context.Context, id schemas.Identity) (*schemas.Frame, error) {
	return b.lastFrame(ctx, id)
}

// whole reports whether no events are missing in the middle, as they are when a removal leaves only the last frame.
func (c *Chain) whole() bool {
	for i, f := range c.Frames {
		if i > 0 && f.Index > c.Frames[i-1].Next() {
			return false
		}
	}
	return true
}

// Last is the last frame, or nil.
func (c *Chain) Last() *schemas.Frame {
	if len(c.Frames) == 0 {
		return nil
	}
	return c.Frames[len(c.Frames)-1]
}

// Sequence of the last frame, 0 for an empty chain: what the next write must expect.
func (c *Chain) Sequence() uint64 {
	if last := c.Last(); last != nil {
		return last.Sequence
	}
	return 0
}

// Terminal is the frame that ended the request, or nil.
func (c *Chain) Terminal() *schemas.Frame {
	if last := c.Last(); last != nil && last.Kind.Terminal() {
		return last
	}
	return nil
}

// Start is the last start frame, or nil.
func (c *Chain) Start() *schemas.Frame {
	for i := len(c.Frames) - 1; i >= 0; i-- {
		if c.Frames[i].Start != nil {
			return c.Frames[i]
		}
	}
	return nil
}

// Attempts is the number of start frames.
func (c *Chain) Attempts() int {
	n := 0
	for _, f := range c.Frames {
		if f.Start != nil {
			n++
		}
	}
	return n
}

// Leader is the request whose answer a router copies into the chain, while nobody has opened another attempt; else empty.
func (c *Chain) Leader() string {
	if start := c.Start(); start != nil {
		return start.Start.Leader
	}
	return ""
}

// Next is the index of the event to come.
func (c *Chain) Next() uint64 {
	if last := c.Last(); last != nil {
		return last.Next()
	}
	return 0
}

// Visible reports whether a reader may have seen an event.
func (c *Chain) Visible() bool { return c.Next() > 0 }

// BodyHash is that of the request body, as the first frame that knows it says.
func (c *Chain) BodyHash() string {
	for _, f := range c.Frames {
		if f.BodyHash != "" {
			return f.BodyHash
		}
	}
	return ""
}

// Op is what the request asks for, which is the dialect of its events, as far as the frames tell.
func (c *Chain) Op() schemas.Op {
	for _, f := range c.Frames {
		if f.Op != "" {
			return f.Op
		}
	}
	return schemas.OpChat
}

// Events yields every event with its index.
func (c *Chain) Events() iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		for _, f := range c.Frames {
			for i, event := range f.Events() {
				if !yield(i, event) {
					return
				}
			}
		}
	}
}

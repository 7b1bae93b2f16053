package inference

import (
	"iter"
	"slices"
	"strings"

	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

type (
	said = iter.Seq2[Event, error]
	seen = iter.Seq2[uint64, []byte]
)

// dialect is how a request of one op is put to a backend, and how what the backend says becomes what readers of the op
// see. Frames always hold the op's own events, whichever backend gave them. It keeps nothing between its calls.
type dialect interface {
	// call puts the request to the backend. The body is that of the op, and is turned into what the backend speaks.
	call(backend func(*GenerateRequest) said, r *GenerateRequest) said

	// spliceable reports whether a second run of the backend can be joined to events of the op at all.
	spliceable() bool

	// splicer joins a second run of the backend to the events of the op that readers have seen. A run that is to go on from
	// them needs to know what the answer cost before.
	splicer(visible seen, before *spending) (splicer, error)

	// listener turns what the backend says into events of the op that follow those readers have seen. It reads visible
	// before it returns.
	listener(id schemas.Identity, r *openai.Request, visible seen) (func(said) said, error)
}

// dialectOf chooses how a request of op is run on a backend. An op that nobody can translate is left to the backend, whose
// error says what it can do.
func dialectOf(op schemas.Op, c Capabilities) dialect {
	switch {
	case c.Speaks(op):
	case op == schemas.OpMessages:
		return translated{}
	case op == schemas.OpCountTokens:
		return estimated{native{op}}
	}
	return native{op}
}

// Speaks reports whether the backend takes requests of op as they are.
func (c Capabilities) Speaks(op schemas.Op) bool {
	if len(c.Ops) == 0 {
		return op == schemas.OpChat
	}
	return slices.Contains(c.Ops, op)
}

// native is the dialect of a backend that speaks the op itself.
type native struct{ op schemas.Op }

func (native) call(backend func(*GenerateRequest) said, r *GenerateRequest) said { return backend(r) }

func (n native) spliceable() bool { return n.op != schemas.OpCountTokens }

func (n native) splicer(visible seen, before *spending) (splicer, error) {
	if n.op == schemas.OpMessages {
		return newMessageSplicer(visible, before)
	}
	return newChunkSplicer(visible, before)
}

func (native) listener(schemas.Identity, *openai.Request, seen) (func(said) said, error) {
	return func(events said) said { return events }, nil
}

// translated is a messages request on a backend that speaks only chat.
type translated struct{}

func (translated) call(backend func(*GenerateRequest) said, r *GenerateRequest) said {
	version := ""
	if v := r.Header[schemas.HeaderAnthropicVersion]; len(v) > 0 {
		version = v[0]
	}
	err := anthropic.CheckBody(version, r.Body)
	if err != nil {
		return failing(err)
	}
	chat := *r
	chat.Op = schemas.OpChat
	if chat.Body, err = anthropic.ToChat(r.Body); err != nil {
		return failing(err)
	}
	return backend(&chat)
}

func failing(err error) said {
	return func(yield func(Event, error) bool) { yield(Event{}, err) }
}

// fail ends a loop with an error. It stands apart because an event on the stack would be there while the next is waited for, of
// every stream.
//
//go:noinline
func fail(yield func(Event, error) bool, err error) { yield(Event{}, err) }

func (translated) spliceable() bool { return true }

// splicer compares chunks with chunks: the events that readers have seen are turned back into what they were made from.
func (translated) splicer(visible seen, before *spending) (splicer, error) {
	var failed error
	s, err := newChunkSplicer(func(yield func(uint64, []byte) bool) {
		var chunks anthropic.Chunks
		var e anthropic.Event
		for index, data := range visible {
			if failed = e.Peek(data); failed != nil {
				return
			}
			if chunk, _ := chunks.Add(&e); len(chunk) > 0 && !yield(index, chunk) {
				return
			}
		}
	}, before)
	if failed != nil {
		return nil, failed
	}
	return s, err
}

func (translated) listener(id schemas.Identity, r *openai.Request, visible seen) (func(said) said, error) {
	t := &anthropic.Translator{
		ID: messageID(id), Model: r.Model, InputTokens: anthropic.EstimateTokens(r.Body),
	}
	if err := t.Resume(visible); err != nil {
		return nil, err
	}
	if r.Stream {
		return func(events said) said { return translate(t, events) }, nil
	}
	return func(events said) said { return translateUnary(t, events) }, nil
}

// messageID follows from the request, so that it stays the same when another worker goes on.
func messageID(id schemas.Identity) string { return "msg_" + strings.TrimPrefix(id.Request, "req_") }

// translate turns chunks into events of the messages dialect.
func translate(t *anthropic.Translator, events said) said {
	return func(yield func(Event, error) bool) {
		for event, err := range events {
			var made [][]byte
			if err == nil {
				made, err = t.Add(event.Chunk)
			}
			if err != nil {
				yield(Event{}, err)
				return
			}
			if !several(made, event, yield) {
				return
			}
		}
		several(t.Done(), Event{Chunk: &openai.Chunk{}}, yield)
	}
}

// several passes on what one event was turned into. All of it says what that event says, and stays together.
func several(made [][]byte, from Event, yield func(Event, error) bool) bool {
	for i, data := range made {
		more := i < len(made)-1 || from.More
		if !yield(Event{Data: data, Chunk: from.Chunk, More: more}, nil) {
			return false
		}
	}
	return len(made) > 0 || yield(Event{Chunk: from.Chunk, More: from.More}, nil)
}

func translateUnary(t *anthropic.Translator, events said) said {
	return func(yield func(Event, error) bool) {
		for event, err := range events {
			if err == nil && len(event.Data) > 0 {
				event.Data, err = anthropic.FromResponse(event.Data, t.ID, t.Model, t.InputTokens)
			}
			if !yield(event, err) || err != nil {
				return
			}
		}
	}
}

// estimated is a count of tokens on a backend that cannot count: no backend is called.
type estimated struct{ native }

func (estimated) call(_ func(*GenerateRequest) said, r *GenerateRequest) said {
	return func(yield func(Event, error) bool) {
		yield(Event{Data: anthropic.CountResponse(anthropic.EstimateTokens(r.Body)), Chunk: &openai.Chunk{}}, nil)
	}
}

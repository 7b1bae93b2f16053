package anthropic

import (
	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/internal/openai"
)

var _ upstream.Protocol = (*call)(nil)

// Event passes on one event of a stream.
func (c *call) Event(event *openai.Event) (counts, end bool, err error) {
	data := openai.ToUTF8(event.Data)
	if err := c.event.Peek(data); err != nil {
		switch {
		case event.IsError():
			return false, false, openai.EventError(nil)
		case event.Cut:
			return false, false, upstream.Interrupted(anthropic.MessageStop)
		case event.Done(): // a proxy between two dialects
			return false, false, nil
		}
		return false, false, upstream.NotAnEvent(err)
	}
	switch {
	case c.event.Failed(), event.IsError():
		return false, false, openai.EventError([]byte(c.event.Error))
	case c.event.Ping():
		if c.events > 0 { // the model may think for long without a word, and pings are how the server says that it still does
			c.Alive()
		}
		return false, false, nil
	}
	c.events++
	end = c.event.Type == anthropic.MessageStop
	c.pass(data, event.More && !end)
	return true, end, nil
}

// pass hands the event on: as it is, or as a chunk.
func (c *call) pass(data []byte, more bool) {
	if c.chunks != nil {
		chunk, says := c.chunks.Add(&c.event)
		c.Pass(inference.Event{Data: chunk, Chunk: says, More: more})
		return
	}
	c.relay.Add(&c.event)
	c.relay.Note(&c.event, &c.chunk)
	data = openai.OneLine(c.event.WithModel(data, c.public))
	c.Pass(inference.Event{Data: data, Chunk: &c.chunk, More: more})
}

func (c *call) answer() *anthropic.Answer {
	if c.chunks != nil {
		return c.chunks.Answer()
	}
	return &c.relay
}

// Whole reports whether message_stop has come, after which nothing is read.
func (c *call) Whole() bool { return c.answer().Whole() }

// Ended judges what came of a stream.
func (c *call) Ended() error {
	switch a := c.answer(); {
	case a.Whole():
		return nil
	case c.events == 0:
		return upstream.EmptyStream()
	case a.Stopped():
		return upstream.Interrupted("stop_reason")
	}
	return upstream.Interrupted(anthropic.MessageStop)
}

// NoStream is the error of a document that came in place of a stream.
func (c *call) NoStream(data []byte) error {
	whole, err := anthropic.ParseMessage(data)
	if err != nil {
		return upstream.NotAnAnswer(data, err)
	}
	if whole.Error != "" {
		return openai.EventError([]byte(whole.Error))
	}
	return upstream.NotAStream()
}

package openai

import (
	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/openai"
)

var _ upstream.Protocol = (*call)(nil)

// Event passes on one event of a stream.
func (c *call) Event(event *openai.Event) (counts, end bool, err error) {
	if event.Done() {
		c.done = true
		return false, true, nil
	}
	data := c.halves.ToUTF8(event.Data)
	if err := c.chunk.Peek(data); err != nil {
		switch {
		case event.IsError():
			return false, false, openai.EventError(nil)
		case event.Cut:
			return false, false, upstream.Interrupted("finish_reason")
		}
		return false, false, upstream.NotAnEvent(err)
	}
	switch {
	case c.chunk.Error != "":
		return false, false, openai.EventError([]byte(c.chunk.Error))
	case event.IsError():
		return false, false, openai.EventError(data)
	case event.Named() && !c.chunk.HasChoices():
		return false, false, nil
	}
	if err := c.chunk.Failed(); err != nil {
		return false, false, err
	}
	c.events++
	c.ending.Add(&c.chunk)
	told := c.told()
	if c.asChat {
		if data, err = c.chat(); err != nil {
			return false, false, err
		}
	}
	data, _ = c.mender.Mend(data, &c.chunk)
	c.Pass(inference.Event{Data: data, Chunk: &c.chunk, Running: told, More: event.More})
	return true, false, nil
}

// Whole reports whether every choice that was asked for has ended.
func (c *call) Whole() bool { return c.ending.Whole(c.choices) }

// Ended judges what came of a stream.
func (c *call) Ended() error {
	switch {
	case c.Whole(), c.done && c.ending.Whole(0): // a server that ignores n gives one choice
		return nil
	case c.done && c.ending.Started() && !*c.backend.config.RequireFinishReason:
		return nil
	case c.events == 0:
		return upstream.EmptyStream()
	}
	return upstream.Interrupted("finish_reason")
}

// NoStream is the error of a document that came in place of a stream.
func (c *call) NoStream(data []byte) error {
	if err := c.chunk.Peek(data); err != nil {
		return upstream.NotAnAnswer(data, err)
	}
	if c.chunk.Error != "" {
		return openai.EventError([]byte(c.chunk.Error))
	}
	return upstream.NotAStream()
}

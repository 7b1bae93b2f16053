package ollama

import (
	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/openai"
)

var _ upstream.Protocol = (*call)(nil)

// Event passes on one line of a stream.
func (c *call) Event(line *openai.Event) (counts, end bool, err error) {
	if err := c.event.Peek(openai.ToUTF8(line.Data)); err != nil {
		if line.Cut {
			return false, false, upstream.Interrupted(doneMark)
		}
		return false, false, upstream.NotAnEvent(err)
	}
	switch {
	case c.event.Error != "":
		return false, false, openai.EventError([]byte(c.event.Error))
	case c.event.Loaded():
		return false, false, onlyLoaded()
	}
	c.events++
	c.done = c.event.Done
	data, chunk := c.chunks.Add(&c.event)
	if !c.Pass(inference.Event{Data: data, Chunk: chunk, More: c.done || line.More}) || !c.done {
		return true, c.done, nil
	}
	data, chunk = c.chunks.Usage(&c.event)
	if !c.tellsUsage {
		data = nil
	}
	c.Pass(inference.Event{Data: data, Chunk: chunk})
	return true, true, nil
}

// Whole reports whether the last line has come, after which nothing is read.
func (c *call) Whole() bool { return c.done }

// Ended judges what came of a stream.
func (c *call) Ended() error {
	switch {
	case c.done:
		return nil
	case c.events == 0:
		return upstream.EmptyStream()
	}
	return upstream.Interrupted(doneMark)
}

// NoStream is the error of a page that came in place of a stream.
func (c *call) NoStream(data []byte) error { return upstream.NotAnAnswer(data, openai.ErrNotJSON) }

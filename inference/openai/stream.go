package openai

import (
	"errors"
	"io"
	"time"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// stream passes on the events of a reply, until the answer is whole or the error that it is not.
func (c *call) stream(body io.Reader) error {
	reader := openai.NewReader(body)
	defer reader.Release()
	first, err := reader.Sniff()
	switch {
	case errors.Is(err, io.EOF):
		return emptyStream()
	case err != nil:
		return c.broken(err)
	case first == '{' || first == '[' || first == '<':
		return c.notAStream(reader)
	}
	for event, err := range reader.Events() {
		if err != nil {
			return c.ended(err)
		}
		if event.Done() {
			c.done = true
			c.letGo()
			c.drain(body)
			break
		}
		counts, err := c.event(&event)
		if err != nil || c.stopped {
			return err
		}
		if !counts {
			if !event.More {
				c.letGo()
			}
			continue
		}
		if !event.More { // what has arrived need not be waited for
			c.listen(c.patience(), c.backend.overdue.idle)
		}
	}
	return c.ended(nil)
}

// patience is how long the next event may take.
func (c *call) patience() time.Duration {
	if c.whole() {
		return min(c.backend.config.Timeouts.Idle, tailWait)
	}
	return c.backend.config.Timeouts.Idle
}

// event passes on one event, or returns the error that it is or tells of. An event that is no part of the answer does not
// count as a sign of life of the model.
func (c *call) event(event *openai.Event) (counts bool, err error) {
	data := openai.ToUTF8(event.Data)
	if err := c.chunk.Peek(data); err != nil {
		switch {
		case event.IsError():
			return false, openai.EventError(nil)
		case event.Cut:
			return false, interrupted()
		}
		return false, schemas.Errorf(schemas.CodeUpstreamError, "the model server sent an event that is not a JSON object; try again").WithCause(err)
	}
	switch {
	case c.chunk.Error != "":
		return false, openai.EventError([]byte(c.chunk.Error))
	case event.IsError():
		return false, openai.EventError(data)
	case event.Named() && !c.chunk.HasChoices():
		return false, nil
	}
	for i := range c.chunk.Choices {
		if c.chunk.Choices[i].Finish == "error" {
			return false, schemas.Errorf(schemas.CodeUpstreamError, "the model server ended the answer with finish_reason \"error\"; try again")
		}
	}
	c.events++
	c.ending.Add(&c.chunk)
	data, _ = c.mender.Mend(data, &c.chunk)
	c.pass(data, event.More)
	return true, nil
}

// whole reports whether every choice that was asked for has ended.
func (c *call) whole() bool { return c.ending.Whole(c.choices) }

// ended judges a stream that has ended, cleanly when err is nil. An answer that is whole stays so whatever became of the
// connection afterwards.
func (c *call) ended(err error) error {
	switch {
	case c.whole(), c.done && c.ending.Whole(0): // a server that ignores n gives one choice
		return nil
	case c.done && c.ending.Started() && !*c.backend.config.RequireFinishReason:
		return nil
	case errors.Is(err, openai.ErrEventTooLarge):
		return tooLarge(openai.MaxEventBytes)
	case err != nil:
		return c.broken(err)
	case c.events == 0:
		return emptyStream()
	}
	return interrupted()
}

// drain reads to the end of the reply, which is due, so that its connection can serve the next call.
func (c *call) drain(body io.Reader) {
	c.listen(drainWait, c.backend.overdue.idle)
	_, _, _ = readAtMost(body, -1, maxErrorBytes) // whatever follows the end mark says nothing
	c.hush()
}

// notAStream is the error of a reply that is a document where a stream was asked for.
func (c *call) notAStream(reader *openai.Reader) error {
	data, err := reader.ReadAll(maxErrorBytes)
	if err != nil {
		return c.broken(err)
	}
	if err := c.chunk.Peek(data); err != nil {
		return notAnAnswer(data, err)
	}
	if c.chunk.Error != "" {
		return openai.EventError([]byte(c.chunk.Error))
	}
	return schemas.Errorf(schemas.CodeUpstreamError, "the model server answered with one document instead of a stream; send the request without \"stream\": true, or have the operator check the backend")
}

func emptyStream() *schemas.Error {
	return schemas.Errorf(schemas.CodeUpstreamInterrupted, "the model server ended the stream without sending an event; try again")
}

func interrupted() *schemas.Error {
	return schemas.Errorf(schemas.CodeUpstreamInterrupted, "the model server ended the stream before the answer was whole: no finish_reason; try again")
}

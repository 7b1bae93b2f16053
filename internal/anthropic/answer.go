package anthropic

import (
	"github.com/weir-llm/weir/internal/openai"
)

// Answer follows the events of one answer, to tell when it is whole and what came of it. The zero value is before the
// first event. It is owned by one goroutine.
type Answer struct {
	id, model  string
	stopReason string
	usage      usage
	started    bool
	stopped    bool
	choices    [1]openai.Choice // backs what Note hands out
}

// Add notes the next event.
func (a *Answer) Add(e *Event) {
	switch e.Type {
	case MessageStart:
		a.started, a.id, a.model = true, e.id, e.model
	case MessageStop:
		a.stopped = true
	}
	if e.stopReason != "" {
		a.stopReason = e.stopReason
	}
	if e.usage.Exists() {
		a.usage.update(e.usage)
	}
}

// ID of the message.
func (a *Answer) ID() string { return a.id }

// Asked is how many tokens the prompt has, cached or not, as far as the server told; 0 = it did not.
func (a *Answer) Asked() int64 { return a.usage.prompt() }

// Started reports whether the answer has begun.
func (a *Answer) Started() bool { return a.started }

// Stopped reports whether message_stop has come.
func (a *Answer) Stopped() bool { return a.stopped }

// Whole reports whether the answer has come to its end: with a reason to stop, and with message_stop. Nothing else proves it.
func (a *Answer) Whole() bool { return a.started && a.stopped && a.stopReason != "" }

// Note says in the terms of the other dialect what the event that was added last tells of the answer: which model gives it,
// its text and thoughts, why it ended, and its usage. It fills c, which is valid until the next call.
func (a *Answer) Note(e *Event, c *openai.Chunk) {
	*c = openai.Chunk{}
	switch e.Type {
	case MessageStart:
		c.ID, c.Model = a.id, a.model
	case ContentBlockDelta:
		switch e.delta {
		case textDelta:
			a.choices[0] = openai.Choice{Content: e.text}
		case thinkingDelta:
			a.choices[0] = openai.Choice{Reasoning: e.text}
		default:
			return
		}
		c.Choices = a.choices[:]
	case MessageDelta:
		a.choices[0] = openai.Choice{Finish: finishOf(e.stopReason)}
		c.Choices = a.choices[:]
	case MessageStop:
		c.Usage = a.usage.encodeOpenAI()
	}
}

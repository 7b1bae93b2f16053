package anthropic

import (
	"strconv"

	"github.com/weir-llm/weir/internal/openai"
)

// Chunks turns the events of a messages answer into the chunks of a chat answer. It is owned by one goroutine. What it
// returns is valid until its next call.
type Chunks struct {
	Model        string // as the caller named it
	Created      int64  // unix seconds
	IncludeUsage bool   // the caller wants the usage chunk

	answer Answer
	calls  int    // of tools so far
	block  string // type of the open block
	head   []byte // of every chunk, up to and with `"choices":[`
	buf    []byte
	chunk  openai.Chunk
	choice [1]openai.Choice
}

// Add takes the next event and returns the chunk that it makes, as JSON and as what it says. Data is empty when there is
// nothing for the caller; the chunk still tells the pipeline what the event does. An error event is for the caller of
// Add to recognise.
func (t *Chunks) Add(e *Event) (data []byte, chunk *openai.Chunk) {
	t.answer.Add(e)
	t.chunk, t.choice[0] = openai.Chunk{}, openai.Choice{}
	o := &t.choice[0]
	if len(t.head) == 0 || e.Type == MessageStart {
		t.begin() // a server may leave the first event out; that the answer is not whole then is told at its end
	}
	switch e.Type {
	case MessageStart:
		o.Role = "assistant"
		data = t.delta(func(b []byte) []byte { return append(b, `"role":"assistant","content":""`...) })
	case ContentBlockStart:
		data = t.blockStart(e, o)
	case ContentBlockDelta:
		data = t.blockDelta(e, o)
	case MessageDelta:
		if o.Finish = finishOf(e.stopReason); o.Finish != "" {
			data = t.finish(o.Finish)
		}
	case MessageStop:
		t.chunk.Usage = t.answer.usage.encodeOpenAI()
		if t.IncludeUsage && t.chunk.Usage != "" {
			t.buf = append(append(t.buf[:0], t.head...), `],"usage":`...)
			data = append(append(t.buf, t.chunk.Usage...), '}')
			t.buf = data
		}
		return data, t.say(false)
	}
	return data, t.say(data != nil)
}

// Answer is what is known of the answer so far.
func (t *Chunks) Answer() *Answer { return &t.answer }

// say completes the chunk.
func (t *Chunks) say(choice bool) *openai.Chunk {
	t.chunk.ID, t.chunk.Model = t.answer.id, t.answer.model
	if choice {
		t.chunk.Choices = t.choice[:]
	}
	return &t.chunk
}

func (t *Chunks) begin() {
	b := appendString(append(t.head[:0], `{"id":`...), t.answer.id)
	b = strconv.AppendInt(append(b, `,"object":"chat.completion.chunk","created":`...), t.Created, 10)
	b = appendString(append(b, `,"model":`...), t.Model)
	t.head = append(b, `,"choices":[`...)
}

// delta writes a chunk of one choice that goes on.
func (t *Chunks) delta(members func([]byte) []byte) []byte {
	b := append(append(t.buf[:0], t.head...), `{"index":0,"delta":{`...)
	t.buf = append(members(b), `},"finish_reason":null}]}`...)
	return t.buf
}

func (t *Chunks) finish(reason string) []byte {
	b := append(append(t.buf[:0], t.head...), `{"index":0,"delta":{},"finish_reason":"`...)
	t.buf = append(append(b, reason...), `"}]}`...)
	return t.buf
}

func (t *Chunks) blockStart(e *Event, o *openai.Choice) []byte {
	t.block = e.block
	switch e.block {
	case textBlock, thinkingBlock:
		return t.text(e.text, e.block == thinkingBlock, o)
	case toolBlock:
		t.calls++
		return t.toolCall(o, func(b []byte) []byte {
			b = appendString(append(b, `,"id":`...), e.id)
			b = appendString(append(b, `,"type":"function","function":{"name":`...), e.name)
			return append(b, `,"arguments":""}`...)
		})
	}
	return nil // redacted thinking, and what the server's own tools do
}

func (t *Chunks) blockDelta(e *Event, o *openai.Choice) []byte {
	switch e.delta {
	case textDelta, thinkingDelta:
		return t.text(e.text, e.delta == thinkingDelta, o)
	case inputDelta:
		if t.block != toolBlock || e.text == "" {
			return nil
		}
		return t.toolCall(o, func(b []byte) []byte {
			return append(appendString(append(b, `,"function":{"arguments":`...), e.text), '}')
		})
	}
	return nil // signatures and citations
}

func (t *Chunks) text(text string, thinking bool, o *openai.Choice) []byte {
	if text == "" {
		return nil
	}
	name := `"content":`
	if thinking {
		name, o.Reasoning = `"reasoning_content":`, text
	} else {
		o.Content = text
	}
	return t.delta(func(b []byte) []byte { return appendString(append(b, name...), text) })
}

// toolCall writes a delta of the call that began last.
func (t *Chunks) toolCall(o *openai.Choice, members func([]byte) []byte) []byte {
	from, to := 0, 0
	data := t.delta(func(b []byte) []byte {
		b = append(b, `"tool_calls":`...)
		from = len(b)
		b = strconv.AppendInt(append(b, `[{"index":`...), int64(t.calls-1), 10)
		b = append(members(b), "}]"...)
		to = len(b)
		return b
	})
	o.ToolCalls = string(data[from:to])
	return data
}

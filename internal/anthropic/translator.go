package anthropic

import (
	"iter"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
)

// Translator turns the chunks of a chat answer into the events of a messages answer. One block is open at a time: text,
// thinking, or one tool's call; what comes for another call meanwhile waits until the open one is complete. It is owned
// by one goroutine. What it returns is valid until its next call.
type Translator struct {
	ID          string // of the message
	Model       string // as the caller named it
	InputTokens int    // the estimate for message_start; the truth is in message_delta

	started bool
	open    string // type of the open block, or empty
	index   int    // of the open block, or of the next one
	calls   toolCalls
	finish  string
	refused bool
	said    int64 // pieces of the answer, which stand in for a usage that nobody tells
	usage   usage
	ended   bool // message_delta is out
	stopped bool // message_stop is out

	buf    []byte
	events [][]byte
}

// Add takes the next chunk and returns the events that it makes, if any. The error ends the answer.
func (t *Translator) Add(c *openai.Chunk) ([][]byte, error) {
	t.buf, t.events = t.buf[:0], t.events[:0]
	if c.Usage != "" {
		t.usage = usageOf(gjson.Parse(c.Usage))
	}
	for i := range c.Choices {
		if c.Choices[i].Index != 0 { // a messages request asks for one answer
			continue
		}
		t.start()
		if err := t.choice(&c.Choices[i]); err != nil {
			return nil, err
		}
	}
	return t.events, nil
}

func (t *Translator) choice(o *openai.Choice) error {
	if o.Reasoning != "" {
		t.say(thinkingBlock, thinkingDelta, thinkingBlock, o.Reasoning)
	}
	if o.Content != "" {
		t.say(textBlock, textDelta, textBlock, o.Content)
	}
	if o.Refusal != "" {
		t.refused = true
		t.say(textBlock, textDelta, textBlock, o.Refusal)
	}
	if o.Finish != "" {
		t.finish = o.Finish
	}
	if o.ToolCalls == "" {
		return nil
	}
	return t.tools(o.ToolCalls)
}

// Done returns the events that end a whole answer.
func (t *Translator) Done() [][]byte {
	t.buf, t.events = t.buf[:0], t.events[:0]
	if t.stopped {
		return nil
	}
	t.start()
	t.finishCalls()
	t.closeBlock()
	if !t.ended {
		t.ended = true
		t.end()
	}
	t.stopped = true
	t.emit(func(b []byte) []byte { return append(b, `{"type":"message_stop"}`...) })
	return t.events
}

func (t *Translator) end() {
	if !t.usage.known {
		t.usage = usage{input: int64(t.InputTokens), output: t.said}
	}
	reason := stopReasonOf(t.finish, t.calls.any(), t.refused)
	t.emit(func(b []byte) []byte {
		b = append(append(b, `{"type":"message_delta","delta":{"stop_reason":"`...), reason...)
		return append(t.usage.append(append(b, `","stop_sequence":null},"usage":`...)), '}')
	})
}

// emit appends an event that build writes.
func (t *Translator) emit(build func([]byte) []byte) {
	from := len(t.buf)
	t.buf = build(t.buf)
	// A buffer that has grown leaves the earlier events where they were.
	t.events = append(t.events, t.buf[from:len(t.buf):len(t.buf)])
}

func (t *Translator) start() {
	if t.started {
		return
	}
	t.started = true
	t.emit(func(b []byte) []byte {
		b = appendString(append(b, `{"type":"message_start","message":{"id":`...), t.ID)
		b = appendString(append(b, `,"type":"message","role":"assistant","model":`...), t.Model)
		b = append(b, `,"content":[],"stop_reason":null,"stop_sequence":null,"usage":`...)
		estimate := usage{input: int64(t.InputTokens)}
		return append(estimate.append(b), "}}"...)
	})
}

// say adds a piece of text to the block of its type, which is opened when another is open.
func (t *Translator) say(block, delta, member, text string) {
	if t.open != block {
		t.finishCalls()
		t.closeBlock()
		t.openBlock(block, nil)
	}
	t.said++
	t.delta(delta, member, text)
}

func (t *Translator) delta(kind, member, text string) {
	t.emit(func(b []byte) []byte {
		b = strconv.AppendInt(append(b, `{"type":"content_block_delta","index":`...), int64(t.index), 10)
		b = append(append(b, `,"delta":{"type":"`...), kind...)
		b = append(append(append(b, `","`...), member...), `":`...)
		return append(appendString(b, text), "}}"...)
	})
}

func (t *Translator) openBlock(block string, call *toolCall) {
	t.open = block
	t.emit(func(b []byte) []byte {
		b = strconv.AppendInt(append(b, `{"type":"content_block_start","index":`...), int64(t.index), 10)
		b = append(b, `,"content_block":`...)
		switch block {
		case textBlock:
			b = append(b, `{"type":"text","text":""}`...)
		case thinkingBlock:
			b = append(b, `{"type":"thinking","thinking":"","signature":""}`...)
		default:
			b = appendString(append(b, `{"type":"tool_use","id":`...), call.id)
			b = append(appendString(append(b, `,"name":`...), call.name), `,"input":{}}`...)
		}
		return append(b, '}')
	})
}

func (t *Translator) closeBlock() {
	if t.open == "" {
		return
	}
	t.open = ""
	t.emit(func(b []byte) []byte {
		b = strconv.AppendInt(append(b, `{"type":"content_block_stop","index":`...), int64(t.index), 10)
		return append(b, '}')
	})
	t.index++
}

// Resume makes the translator go on behind events that readers have seen, as if it had made them. Only text and thinking
// can be gone on with: an answer with a tool's call cannot, because its arguments hold more state than events show.
func (t *Translator) Resume(seen iter.Seq2[uint64, []byte]) error {
	var e Event
	for _, data := range seen {
		if err := e.Peek(data); err != nil {
			return err
		}
		switch e.Type {
		case MessageStart:
			t.started = true
		case ContentBlockStart:
			if e.block != textBlock && e.block != thinkingBlock {
				return ErrNotResumable
			}
			t.open, t.index = e.block, e.index
		case ContentBlockDelta:
			t.said++
		case ContentBlockStop:
			t.open, t.index = "", e.index+1
		case MessageDelta:
			t.ended = true
		case MessageStop:
			t.stopped = true
		}
	}
	return nil
}

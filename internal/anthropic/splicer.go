package anthropic

import (
	"fmt"
	"iter"
	"strconv"
	"strings"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
)

// Splicer joins a second run to the events of a messages answer that readers have seen. The message begins once and keeps
// its id, blocks keep their indexes, what readers have of their text is dropped, and the usage is that of the whole. Only
// text is joined: signatures, calls of tools and citations cannot be said again, nor gone on with. It is owned by one
// goroutine.
type Splicer struct {
	blocks []*seenBlock
	reason string // why the answer ended, if readers know
	first  usage  // as message_start told it

	goesOn bool  // the run goes on instead of beginning again
	onto   int   // of a run that goes on: the index that its first block has for readers
	used   int64 // of a run that goes on: tokens of the answer before it
	asked  int64 // of the caller's own prompt; -1 = unknown
	watch  *openai.Watch
	space  string // readers have it, and the run may say it again

	event Event
	usage usage // of the second run
	made  [][]byte
}

// seenBlock is what readers have of a block; the text shrinks as the second run repeats it.
type seenBlock struct {
	kind, text string
	closed     bool
}

// NewSplicer reads the events that readers have seen. It returns [openai.ErrNotSpliceable] when they are more than text.
func NewSplicer(events iter.Seq2[uint64, []byte]) (*Splicer, error) {
	s := &Splicer{}
	for _, data := range events {
		if err := s.event.Peek(data); err != nil {
			return nil, fmt.Errorf("%w: %w", openai.ErrNotSpliceable, err)
		}
		if !s.remember(&s.event) {
			return nil, openai.ErrNotSpliceable
		}
	}
	for i, block := range s.blocks { // an empty block of thought is as good as none, unless it was signed or followed
		if block.kind != textBlock && (block.text != "" || block.closed || i < len(s.blocks)-1) {
			return nil, openai.ErrNotSpliceable
		}
	}
	return s, nil
}

// remember notes an event that readers have seen, and reports whether it is one of text.
func (s *Splicer) remember(e *Event) bool {
	switch e.Type {
	case MessageStart:
		s.first.update(e.usage)
	case ContentBlockStart:
		if e.index != len(s.blocks) || e.block != textBlock && e.block != thinkingBlock {
			return false
		}
		s.blocks = append(s.blocks, &seenBlock{kind: e.block, text: e.text})
	case ContentBlockDelta:
		if e.index != len(s.blocks)-1 || e.delta != textDelta && e.delta != thinkingDelta {
			return false
		}
		s.blocks[e.index].text += e.text
	case ContentBlockStop:
		if e.index != len(s.blocks)-1 {
			return false
		}
		s.blocks[e.index].closed = true
	case MessageDelta:
		s.reason = e.stopReason
	case MessageStop, pingType:
	default:
		return false
	}
	return true
}

// Blank reports whether readers have nothing of the answer but that it began, so that any other may take its place.
func (s *Splicer) Blank() bool {
	return s.reason == "" && (len(s.blocks) == 0 || len(s.blocks) == 1 && s.blocks[0].text == "" && !s.blocks[0].closed)
}

// Seen is what readers have, in the terms of chat; false when there is nothing that could be gone on with.
func (s *Splicer) Seen() (openai.Seen, bool) {
	var text strings.Builder
	for _, block := range s.blocks {
		if block.kind != textBlock {
			return openai.Seen{}, false
		}
		text.WriteString(block.text)
	}
	return openai.Seen{Content: text.String(), Finish: finishOf(s.reason)}, len(s.blocks) > 0
}

// GoOn makes the splicer join a run that goes on from the text that readers have, but for the white space at its end. The
// answer so far cost used tokens at least, and the caller's own prompt as many as asked, -1 when nobody has counted them.
func (s *Splicer) GoOn(asked, used int64) {
	seen, _ := s.Seen()
	s.goesOn, s.asked, s.used = true, asked, used
	s.watch = openai.NewWatch(seen.Content)
	s.space = seen.Content[len(openai.Given(seen.Content)):]
	if s.onto = len(s.blocks); s.open() {
		s.onto--
	}
}

// open reports whether the last block that readers have seen goes on.
func (s *Splicer) open() bool { return len(s.blocks) > 0 && !s.blocks[len(s.blocks)-1].closed }

// Next takes an event of the second run and returns what readers have not seen of it, in as many events as it takes. The
// result is valid until the next call. After [openai.ErrDiverged] the answer cannot go on.
func (s *Splicer) Next(data []byte) ([][]byte, error) {
	s.made = s.made[:0]
	e := &s.event
	if err := e.Peek(data); err != nil {
		return nil, fmt.Errorf("%w: %w", openai.ErrDiverged, err)
	}
	if e.usage.Exists() {
		s.usage.update(e.usage)
	}
	var err error
	switch {
	case e.Type == MessageStart:
		if s.goesOn && s.asked >= 0 { // what it was given of the answer counts in its prompt
			s.used = max(s.used, s.usage.prompt()-s.asked)
		}
	case e.Type == MessageDelta:
		err = s.delta(data)
	case e.Type != ContentBlockStart && e.Type != ContentBlockDelta && e.Type != ContentBlockStop:
		s.pass(data)
	case s.goesOn:
		err = s.rest(data)
	default:
		err = s.again(data)
	}
	return s.made, err
}

func (s *Splicer) pass(data []byte) { s.made = append(s.made, data) }

// delta joins the event that tells why the answer ended.
func (s *Splicer) delta(data []byte) error {
	switch {
	case s.reason == "":
		if s.goesOn {
			if held, err := s.watch.Said("", true); err != nil || held != "" {
				return fmt.Errorf("%w: a block does not end", openai.ErrDiverged)
			}
			data = s.summed(data)
		}
		s.pass(data)
		return s.Done()
	case s.reason != s.event.stopReason:
		return fmt.Errorf("%w: it ends elsewhere", openai.ErrDiverged)
	}
	return nil
}

// summed tells the usage of the whole answer in the place of that of a run that went on with it.
func (s *Splicer) summed(data []byte) []byte {
	members := gjson.GetBytes(data, "usage")
	if !members.IsObject() {
		return data
	}
	tell := func(name string, n int64) { data = openai.WithValue(data, "usage."+name, strconv.FormatInt(n, 10)) }
	tell("output_tokens", s.used+s.usage.output)
	if s.asked < 0 {
		tell("input_tokens", max(0, s.usage.input-s.used))
		return data
	}
	tell("input_tokens", s.first.input)
	tell("cache_creation_input_tokens", s.first.cacheWrite)
	tell("cache_read_input_tokens", s.first.cacheRead)
	return data
}

// rest joins an event of a block of a run that goes on. Its first block is the one that was cut, if that is still open.
func (s *Splicer) rest(data []byte) error {
	e := &s.event
	index, joined := s.onto+e.index, e.index == 0 && s.open()
	switch {
	case e.Type == ContentBlockStart && e.block != textBlock, e.Type == ContentBlockDelta && e.delta != textDelta:
		return fmt.Errorf("%w: it says more than text", openai.ErrDiverged)
	case e.Type == ContentBlockStart && !joined:
		s.pass(withIndex(data, index))
		return nil
	}
	said, err := s.watch.Said(e.text, e.Type == ContentBlockStop)
	if err == nil {
		said, err = openai.Beyond(&s.space, said)
	}
	switch {
	case err != nil:
		return err
	case said != "" && said == e.text && e.Type == ContentBlockDelta:
		s.pass(withIndex(data, index))
	case said != "":
		s.pass(textEvent(index, said))
	}
	if e.Type == ContentBlockStop {
		s.space = "" // white space at the end, which nobody misses
		s.pass(withIndex(data, index))
	}
	return nil
}

// again joins an event of a block of a run that begins again.
func (s *Splicer) again(data []byte) error {
	e := &s.event
	if e.index < 0 || e.index >= len(s.blocks) {
		s.pass(data)
		return s.Done()
	}
	seen := s.blocks[e.index]
	said, err := openai.Beyond(&seen.text, e.text)
	switch {
	case err != nil:
		return err
	case e.Type == ContentBlockStop && seen.text != "":
		return fmt.Errorf("%w: it is shorter", openai.ErrDiverged)
	case e.Type == ContentBlockStart && (e.block != seen.kind || said != "" && seen.kind != textBlock):
		return fmt.Errorf("%w: it says something else", openai.ErrDiverged)
	case e.Type == ContentBlockDelta && (said != "" || !e.says()) && (seen.closed || seen.text != ""):
		return fmt.Errorf("%w: it goes on after the end", openai.ErrDiverged)
	case e.Type == ContentBlockStop:
		if !seen.closed {
			s.pass(data)
		}
	case e.Type == ContentBlockDelta && said == e.text:
		s.pass(data)
	case said != "" && seen.kind == textBlock:
		s.pass(textEvent(e.index, said))
	case said != "":
		s.pass(openai.WithValue(data, "delta.thinking", string(appendString(nil, said))))
	}
	return nil
}

// Done reports whether the second run has come past everything that readers have seen.
func (s *Splicer) Done() error {
	for _, block := range s.blocks {
		if !s.goesOn && block.text != "" {
			return fmt.Errorf("%w: it is shorter", openai.ErrDiverged)
		}
	}
	return nil
}

func withIndex(data []byte, index int) []byte {
	return openai.WithValue(data, "index", strconv.Itoa(index))
}

func textEvent(index int, text string) []byte {
	b := strconv.AppendInt([]byte(`{"type":"content_block_delta","index":`), int64(index), 10)
	return append(appendString(append(b, `,"delta":{"type":"text_delta","text":`...), text), "}}"...)
}

// StopEvent is the last event of every answer.
func StopEvent() []byte { return []byte(`{"type":"` + MessageStop + `"}`) }

// Ending is what the last event of an answer tells that readers have but for its end, and whether they have that event
// itself; false when the answer goes on.
func Ending(events iter.Seq2[uint64, []byte]) (c *openai.Chunk, stopped, ok bool) {
	var answer Answer
	var e Event
	for _, data := range events {
		if e.Peek(data) != nil {
			return nil, false, false
		}
		answer.Add(&e)
	}
	c = &openai.Chunk{
		ID: answer.id, Model: answer.model, Usage: answer.usage.encodeOpenAI(), Choices: []openai.Choice{{Finish: finishOf(answer.stopReason)}},
	}
	return c, answer.stopped, answer.started && answer.stopReason != ""
}

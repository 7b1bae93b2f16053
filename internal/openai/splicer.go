package openai

import (
	"errors"
	"fmt"
	"iter"
	"strings"

	"github.com/tidwall/gjson"
)

// Errors of a [Splicer].
var (
	ErrNotSpliceable = errors.New("the answer so far holds more than text")
	ErrDiverged      = errors.New("the second run differs from what readers have seen")
)

// Splicer joins a second run of a deterministic request to what readers have seen of the first: it drops what is equal,
// compared as decoded text per choice, cuts the event that straddles the seam, and lets the rest through under the first
// run's id. It is owned by one goroutine.
type Splicer struct {
	seen   map[int]*seenChoice
	usage  bool
	origin *Origin
	rest   *Watch // the run goes on instead of beginning again
	mender Mender
	chunk  Chunk
}

// seenChoice is what readers have of a choice; the two texts shrink as the second run repeats them.
type seenChoice struct {
	content, reasoning string
	finish             string
}

// NewSplicer reads the events that readers have seen. It returns [ErrNotSpliceable] when they cannot be compared as text.
func NewSplicer(events iter.Seq2[uint64, []byte]) (*Splicer, error) {
	s := &Splicer{seen: map[int]*seenChoice{}}
	for _, event := range events {
		if err := s.chunk.Peek(event); err != nil {
			return nil, fmt.Errorf("%w: %w", ErrNotSpliceable, err)
		}
		if s.origin == nil {
			origin := s.chunk.Origin()
			s.origin = &origin
		}
		s.usage = s.usage || s.chunk.UsageOnly()
		for i := range s.chunk.Choices {
			if err := s.remember(&s.chunk.Choices[i]); err != nil {
				return nil, err
			}
		}
	}
	s.mender.As = s.origin
	return s, nil
}

func (s *Splicer) remember(o *Choice) error {
	if o.ToolCalls != "" || o.FunctionCall != "" || o.Refusal != "" || o.LogProbs != "" || o.other {
		return ErrNotSpliceable
	}
	choice := s.choice(o.Index)
	choice.content += o.Content
	choice.reasoning += o.Reasoning
	if o.Finish != "" {
		choice.finish = o.Finish
	}
	return nil
}

func (s *Splicer) choice(index int) *seenChoice {
	if s.seen[index] == nil {
		s.seen[index] = &seenChoice{}
	}
	return s.seen[index]
}

// Next takes an event of the second run and returns what readers have not seen of it, or false when that is nothing. The
// result is valid until the next call. After [ErrDiverged] the answer cannot go on.
func (s *Splicer) Next(data []byte) ([]byte, bool, error) {
	if err := s.chunk.Peek(data); err != nil {
		return nil, false, fmt.Errorf("%w: %w", ErrDiverged, err)
	}
	switch {
	case s.chunk.UsageOnly() && s.usage:
		return nil, false, nil
	case len(s.chunk.Choices) == 1:
		var keep bool
		var err error
		if data, keep, err = s.cut(data, &s.chunk.Choices[0]); err != nil || !keep {
			return nil, false, err
		}
		if o := &s.chunk.Choices[0]; o.Role != "" && s.seen[o.Index] != nil { // readers were told
			if data = withoutMember(data, "choices.0.delta", "role"); s.chunk.Peek(data) != nil {
				return nil, false, ErrDiverged
			}
		}
	case len(s.chunk.Choices) > 1 && s.pending():
		return nil, false, fmt.Errorf("%w: an event holds several choices", ErrDiverged)
	}
	out, keep := s.mender.Mend(data, &s.chunk)
	return out, keep, nil
}

// Done reports whether the second run has come past everything that readers have seen.
func (s *Splicer) Done() error {
	if s.pending() {
		return fmt.Errorf("%w: it is shorter", ErrDiverged)
	}
	return nil
}

func (s *Splicer) pending() bool {
	for _, choice := range s.seen {
		if choice.content != "" || choice.reasoning != "" {
			return true
		}
	}
	return false
}

// cut removes from an event of one choice what was seen of it.
func (s *Splicer) cut(data []byte, o *Choice) ([]byte, bool, error) {
	seen := s.seen[o.Index]
	if seen == nil {
		return data, true, nil
	}
	said, err := s.rest.choice(o)
	if err != nil {
		return nil, false, err
	}
	if s.rest != nil && o.Finish != "" {
		seen.content = "" // white space at the end, which nobody misses
	}
	content, err1 := Beyond(&seen.content, said)
	reasoning, err2 := Beyond(&seen.reasoning, o.Reasoning)
	if err := errors.Join(err1, err2); err != nil {
		return nil, false, err
	}
	if o.Finish != "" && (seen.content != "" || seen.reasoning != "" || seen.finish != "" && seen.finish != o.Finish) {
		return nil, false, fmt.Errorf("%w: it ends elsewhere", ErrDiverged)
	}
	if seen.finish != "" {
		if content != "" || reasoning != "" {
			return nil, false, fmt.Errorf("%w: it goes on after the end", ErrDiverged)
		}
		return nil, false, nil
	}
	if content == o.Content && reasoning == o.Reasoning {
		return data, !s.chunk.RoleOnly(), nil
	}
	if content == "" && reasoning == "" && o.Finish == "" {
		return nil, false, nil
	}
	path := "choices.0.delta.content"
	if o.text {
		path = "choices.0.text"
	}
	data = replaceText(data, path, o.Content, content)
	data = replaceText(data, "choices.0.delta."+o.reasoningKey, o.Reasoning, reasoning)
	return data, true, s.chunk.Peek(data)
}

// Beyond is what text holds beyond seen, which shrinks by what they share. [ErrDiverged] is a text that does not begin with it.
func Beyond(seen *string, text string) (string, error) {
	if after, ok := strings.CutPrefix(*seen, text); ok {
		*seen = after
		return "", nil
	}
	after, ok := strings.CutPrefix(text, *seen)
	if !ok {
		return "", ErrDiverged
	}
	*seen = ""
	return after, nil
}

// replaceText puts text in the place of a string member that held old.
func replaceText(data []byte, path, old, text string) []byte {
	if old == text {
		return data
	}
	member := gjson.GetBytes(data, path)
	if member.Index == 0 {
		return insertText(data, path, text)
	}
	out := append([]byte(nil), data[:member.Index]...)
	out = appendString(out, text)
	return append(out, data[member.Index+len(member.Raw):]...)
}

// withoutMember removes a member of the object where path leads.
func withoutMember(data []byte, path, name string) []byte {
	object := gjson.GetBytes(data, path)
	out := data
	object.ForEach(func(key, value gjson.Result) bool {
		if key.Str != name {
			return true
		}
		m := memberOf(key, value)
		start, end := memberSpan(data, m)
		out = replace(data, start, end, "")
		return false
	})
	return out
}

// insertText adds a string member to an object that has none of the name.
func insertText(data []byte, path, text string) []byte {
	dot := strings.LastIndexByte(path, '.')
	object := gjson.GetBytes(data, path[:dot])
	if !object.IsObject() {
		return data
	}
	member := appendString(append(appendString(nil, path[dot+1:]), ':'), text)
	inner := prepend([]byte(object.Raw), string(member))
	return replace(data, object.Index, object.Index+len(object.Raw), string(inner))
}

package openai

import (
	"fmt"
	"strings"
	"unicode"
)

// Seen is what readers have of the only choice of an answer.
type Seen struct {
	Content, Reasoning string
	Finish             string // empty while it goes on
	Usage              bool   // they have its usage
	Origin             Origin
}

// Seen reports what readers have; false when there is more than one choice, or none.
func (s *Splicer) Seen() (Seen, bool) {
	choice := s.seen[0]
	if choice == nil || len(s.seen) != 1 {
		return Seen{}, false
	}
	return Seen{choice.content, choice.reasoning, choice.finish, s.usage, *s.origin}, true
}

// Blank reports whether readers have nothing of the answer but that it began, so that any other may take its place.
func (s *Splicer) Blank() bool {
	for _, choice := range s.seen {
		if choice.content != "" || choice.reasoning != "" || choice.finish != "" {
			return false
		}
	}
	return !s.usage
}

// GoOn makes the splicer join a run that goes on from what readers have seen instead of beginning again. The run was
// given all that they have but the white space at the end, which many servers cut off: it may say that again.
//
// With exact the run was given just what readers have. Without, one that begins the answer again is taken for what it
// is: a server that does not know how to go on.
func (s *Splicer) GoOn(exact bool) {
	seen := s.seen[0]
	s.rest = &Watch{}
	if !exact {
		s.rest = NewWatch(seen.content)
	}
	given := Given(seen.content)
	seen.reasoning = ""
	if seen.content = seen.content[len(given):]; exact {
		seen.content = ""
	}
}

// Given is the part of a text that a server can be given to go on from.
func Given(text string) string { return strings.TrimRightFunc(text, unicode.IsSpace) }

// restart is how much of an answer's beginning a run must repeat to count as one that began again. Shorter than that, an
// answer may well come back to its first words.
const restart = 40

// returns reports whether a text has come back to its first words already. It may well do so again, and that would prove
// nothing.
func returns(text string) bool {
	return len(text) > restart && strings.Contains(text[1:], text[:restart])
}

// Watch tells a run that goes on with an answer from one that began it again. The zero value watches nothing.
type Watch struct {
	opening string // of the answer; empty = no longer watched
	held    string // said, but it may be the beginning of the answer
}

// NewWatch watches a run that was given this text to go on from.
func NewWatch(seen string) *Watch {
	if returns(seen) {
		return &Watch{}
	}
	return &Watch{opening: seen}
}

// Said takes what the run says next, and returns what of it is certain to go on. What is held back is said later, with the
// last piece at the latest. [ErrDiverged] is a run that began again.
func (w *Watch) Said(text string, last bool) (string, error) {
	if w.opening == "" {
		return text, nil
	}
	text = w.held + text
	same := 0
	for same < len(text) && same < len(w.opening) && text[same] == w.opening[same] {
		same++
	}
	switch {
	case same >= restart, same == len(w.opening) && len(text) > len(w.opening) && same >= restart/2:
		return "", fmt.Errorf("%w: it began again", ErrDiverged)
	case same == len(text) && same < len(w.opening) && !last:
		w.held = text
		return "", nil
	}
	w.opening, w.held = "", ""
	return text, nil
}

// choice is Said for a choice of a chunk.
func (w *Watch) choice(o *Choice) (string, error) {
	if w == nil {
		return o.Content, nil
	}
	if o.Reasoning != "" || o.ToolCalls != "" || o.FunctionCall != "" {
		return "", fmt.Errorf("%w: it says more than text", ErrDiverged)
	}
	return w.Said(o.Content, o.Finish != "")
}

package schemas

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// scanner cuts the inside of an object or array of valid JSON into its members or values.
type scanner struct {
	data []byte
	at   int // of what comes next, at first behind the opening bracket
}

// more moves to the next member or value; it returns false at the closing bracket.
func (s *scanner) more(closing byte) bool {
	s.space()
	if s.data[s.at] == ',' {
		s.at++
		s.space()
	}
	return s.data[s.at] != closing
}

// member cuts off a name and its value.
func (s *scanner) member() (name, value []byte) {
	quoted := s.value()
	name = quoted[1 : len(quoted)-1]
	if bytes.IndexByte(name, '\\') >= 0 || !utf8.Valid(name) {
		var text string
		_ = json.Unmarshal(quoted, &text) // it is a valid string
		name = []byte(text)
	}
	s.space()
	s.at++ // the colon
	s.space()
	return name, s.value()
}

// value cuts off a value.
func (s *scanner) value() []byte {
	from := s.at
	switch s.data[from] {
	case '"':
		s.at += stringEnd(s.data[from:])
	case '{', '[':
		s.at += nestedEnd(s.data[from:])
	default:
		for c := s.data[from]; c != ',' && c != ']' && c != '}' && c > ' '; c = s.data[s.at] {
			s.at++
		}
	}
	return s.data[from:s.at:s.at]
}

func (s *scanner) space() { s.at = afterSpace(s.data, s.at) }

// stringEnd is the length of the string that data begins with, its quotes included.
func stringEnd(data []byte) int {
	for i := 1; ; i++ {
		i += bytes.IndexByte(data[i:], '"')
		slashes := 0
		for data[i-1-slashes] == '\\' {
			slashes++
		}
		if slashes%2 == 0 {
			return i + 1
		}
	}
}

// nestedEnd is the length of the object or array that data begins with.
func nestedEnd(data []byte) int {
	depth := 0
	for i := 0; ; i++ {
		switch data[i] {
		case '"':
			i += stringEnd(data[i:]) - 1
		case '{', '[':
			depth++
		case '}', ']':
			if depth--; depth == 0 {
				return i + 1
			}
		}
	}
}

package schemas

import (
	"bytes"
	"encoding/json"
	"unicode/utf8"
)

// scanner cuts the inside of an object or array of valid JSON into its members or values.
type scanner struct{ rest []byte }

// more moves to the next member or value; it returns false at the closing bracket.
func (s *scanner) more(closing byte) bool {
	s.space()
	if s.rest[0] == ',' {
		s.rest = s.rest[1:]
		s.space()
	}
	return s.rest[0] != closing
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
	s.rest = s.rest[1:] // the colon
	s.space()
	return name, s.value()
}

// value cuts off a value.
func (s *scanner) value() []byte {
	n := 0
	switch s.rest[0] {
	case '"':
		n = stringEnd(s.rest)
	case '{', '[':
		n = nestedEnd(s.rest)
	default:
		for c := s.rest[0]; c != ',' && c != ']' && c != '}' && c > ' '; c = s.rest[n] {
			n++
		}
	}
	value := s.rest[:n:n]
	s.rest = s.rest[n:]
	return value
}

func (s *scanner) space() {
	for s.rest[0] <= ' ' {
		s.rest = s.rest[1:]
	}
}

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

package openai

import "github.com/go-json-experiment/json/jsontext"

// memberSpan is what to cut out of an object to remove a member together with one comma.
func memberSpan(data []byte, m member) (start, end int) {
	after := m.end
	for after < len(data) && isSpace(data[after]) {
		after++
	}
	if after < len(data) && data[after] == ',' {
		return m.key, after + 1
	}
	before := m.key - 1
	for before >= 0 && isSpace(data[before]) {
		before--
	}
	if before >= 0 && data[before] == ',' {
		return before, m.end
	}
	return m.key, m.end
}

func isSpace(c byte) bool { return c == ' ' || c == '\t' || c == '\r' || c == '\n' }

// appendString appends s as a JSON string.
func appendString[T string | []byte](dst []byte, s T) []byte {
	dst, _ = jsontext.AppendQuote(dst, s) // the error tells of invalid UTF-8, which is replaced
	return dst
}

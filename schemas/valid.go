package schemas

import (
	"encoding/binary"
	"math/bits"
)

// maxNesting is how deep JSON may nest, as in encoding/json: it is walked recursively.
const maxNesting = 10000

// ValidMember reports whether data is JSON that a record can hold as a raw member, such as the response of a result.
func ValidMember(data []byte) bool { return validWithin(data, 1) }

// valid says what encoding/json's Valid says, and costs less, which BenchmarkResultDecode shows: it calls no function for a byte.
func valid(data []byte) bool { return validWithin(data, 0) }

// validWithin is valid for data within so many arrays and objects.
func validWithin(data []byte, depth int) bool {
	end := afterValue(data, afterSpace(data, 0), depth)
	return end != invalid && afterSpace(data, end) == len(data)
}

// invalid is what the functions below return when data does not have at i what they look for. Else they return the index
// after it.
const invalid = -1

func afterSpace(data []byte, i int) int {
	for i < len(data) && (data[i] == ' ' || data[i] == '\n' || data[i] == '\t' || data[i] == '\r') {
		i++
	}
	return i
}

func afterValue(data []byte, i, depth int) int {
	if i >= len(data) {
		return invalid
	}
	switch data[i] {
	case '"':
		return afterString(data, i)
	case '{':
		return afterObject(data, i, depth+1)
	case '[':
		return afterArray(data, i, depth+1)
	case 't':
		return afterWord(data, i, "true")
	case 'f':
		return afterWord(data, i, "false")
	case 'n':
		return afterWord(data, i, "null")
	}
	return afterNumber(data, i)
}

func afterObject(data []byte, i, depth int) int {
	if depth > maxNesting {
		return invalid
	}
	if i = afterSpace(data, i+1); has(data, i, '}') {
		return i + 1
	}
	for {
		if i = afterName(data, i); i == invalid {
			return invalid
		}
		if i = afterValue(data, afterSpace(data, i), depth); i == invalid {
			return invalid
		}
		if i = afterSpace(data, i); !has(data, i, ',') {
			return afterByte(data, i, '}')
		}
		i = afterSpace(data, i+1)
	}
}

// afterName passes a member's name and the colon.
func afterName(data []byte, i int) int {
	if !has(data, i, '"') {
		return invalid
	}
	if i = afterString(data, i); i == invalid {
		return invalid
	}
	return afterByte(data, afterSpace(data, i), ':')
}

func afterArray(data []byte, i, depth int) int {
	if depth > maxNesting {
		return invalid
	}
	if i = afterSpace(data, i+1); has(data, i, ']') {
		return i + 1
	}
	for {
		if i = afterValue(data, i, depth); i == invalid {
			return invalid
		}
		if i = afterSpace(data, i); !has(data, i, ',') {
			return afterByte(data, i, ']')
		}
		i = afterSpace(data, i+1)
	}
}

func afterString(data []byte, i int) int {
	for i = afterText(data, i+1); has(data, i, '\\'); i = afterText(data, i) {
		if i = afterEscape(data, i+1); i == invalid {
			return invalid
		}
	}
	return afterByte(data, i, '"') // and not a control character
}

// afterText passes what stands for itself in a string, eight bytes at a time, for that is most of a long record.
func afterText(data []byte, i int) int {
	for ; len(data)-i >= 8; i += 8 {
		if found := special(binary.LittleEndian.Uint64(data[i:])); found != 0 {
			return i + bits.TrailingZeros64(found)/8
		}
	}
	for i < len(data) && special(uint64(data[i])|padding) == 0 {
		i++
	}
	return i
}

const (
	ones    = 0x0101010101010101
	padding = ' ' * (ones - 1)
)

// special marks the highest bit of the first of eight bytes that is a control character, a quote or a backslash. Bytes after
// it may be marked too.
func special(text uint64) uint64 {
	quotes, slashes := text^'"'*ones, text^'\\'*ones
	return ((text-' '*ones)&^text | (quotes-ones)&^quotes | (slashes-ones)&^slashes) & (0x80 * ones)
}

// afterEscape passes what follows a backslash.
func afterEscape(data []byte, i int) int {
	if i >= len(data) {
		return invalid
	}
	switch data[i] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return i + 1
	case 'u':
		for range 4 {
			if i++; i >= len(data) || !isHex(data[i]) {
				return invalid
			}
		}
		return i + 1
	}
	return invalid
}

func isHex(c byte) bool { return isDigit(c) || 'a' <= c|' ' && c|' ' <= 'f' }

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

func afterNumber(data []byte, i int) int {
	if has(data, i, '-') {
		i++
	}
	if has(data, i, '0') {
		i++
	} else if i = afterDigits(data, i); i == invalid {
		return invalid
	}
	if has(data, i, '.') {
		if i = afterDigits(data, i+1); i == invalid {
			return invalid
		}
	}
	if has(data, i, 'e') || has(data, i, 'E') {
		if i++; has(data, i, '+') || has(data, i, '-') {
			i++
		}
		return afterDigits(data, i)
	}
	return i
}

// afterDigits passes at least one digit.
func afterDigits(data []byte, i int) int {
	from := i
	for i < len(data) && isDigit(data[i]) {
		i++
	}
	if i == from {
		return invalid
	}
	return i
}

func afterWord(data []byte, i int, word string) int {
	if end := i + len(word); end <= len(data) && string(data[i:end]) == word {
		return end
	}
	return invalid
}

func afterByte(data []byte, i int, c byte) int {
	if has(data, i, c) {
		return i + 1
	}
	return invalid
}

func has(data []byte, i int, c byte) bool { return i < len(data) && data[i] == c }

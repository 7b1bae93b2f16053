package schemas

import (
	"bytes"
	"encoding/binary"
	"math/bits"
)

// maxDepth is how deep objects and arrays may lie in each other, as encoding/json has it.
const maxDepth = 10000

// valid reports what json.Valid does, for a fraction of its work: every body and every record is checked.
func valid(data []byte) bool {
	c := checker{data: data}
	return c.value() && c.peek() == 0 && c.at == len(data)
}

// checker walks over JSON. A method returns false where the text is not what it must be.
type checker struct {
	data  []byte
	at    int
	depth int
}

func (c *checker) value() bool {
	switch c.peek() {
	case '{':
		return c.nested(c.members)
	case '[':
		return c.nested(c.items)
	case '"':
		return c.text()
	case 't':
		return c.word("true")
	case 'f':
		return c.word("false")
	case 'n':
		return c.word("null")
	}
	return c.number()
}

// nested walks over an object or array, from its opening bracket.
func (c *checker) nested(inside func() bool) bool {
	c.at++
	c.depth++
	ok := c.depth <= maxDepth && inside()
	c.depth--
	return ok
}

func (c *checker) members() bool {
	for first := true; !c.take('}'); first = false {
		if !first && !c.take(',') || c.peek() != '"' || !c.text() || !c.take(':') || !c.value() {
			return false
		}
	}
	return true
}

func (c *checker) items() bool {
	for first := true; !c.take(']'); first = false {
		if !first && !c.take(',') || !c.value() {
			return false
		}
	}
	return true
}

// text walks over a string, from its opening quote.
func (c *checker) text() bool {
	for i := c.at + 1; i < len(c.data); i++ {
		i += ordinary(c.data[i:])
		switch b := c.data[i]; {
		case b == '"':
			c.at = i + 1
			return true
		case b == '\\':
			n := escapeBytes(c.data[i+1:])
			if n == 0 {
				return false
			}
			i += n
		case b < ' ':
			return false
		}
	}
	return false
}

// ordinary counts bytes that data begins with and that are no quote, backslash or control character. It looks at eight at
// a time and leaves the last ones out.
func ordinary(data []byte) int {
	const each, high = 0x0101010101010101, 0x8080808080808080
	n := 0
	for ; n+8 < len(data); n += 8 {
		b := binary.LittleEndian.Uint64(data[n:])
		quote, slash := b^each*'"', b^each*'\\'
		// The highest bit of a byte is set if it is one of them. A borrow may set that of a later byte too, never of an earlier.
		if found := ((b-each*' ')&^b | (quote-each)&^quote | (slash-each)&^slash) & high; found != 0 {
			return n + bits.TrailingZeros64(found)/8
		}
	}
	return n
}

// escapeBytes is how long the escape is that follows a backslash, or 0.
func escapeBytes(after []byte) int {
	if len(after) == 0 {
		return 0
	}
	switch after[0] {
	case '"', '\\', '/', 'b', 'f', 'n', 'r', 't':
		return 1
	case 'u':
		if len(after) >= 5 && isHex(after[1]) && isHex(after[2]) && isHex(after[3]) && isHex(after[4]) {
			return 5
		}
	}
	return 0
}

func isHex(b byte) bool { return '0' <= b && b <= '9' || 'a' <= b|0x20 && b|0x20 <= 'f' }

func (c *checker) word(word string) bool {
	if !bytes.HasPrefix(c.data[c.at:], []byte(word)) {
		return false
	}
	c.at += len(word)
	return true
}

func (c *checker) number() bool {
	c.skip('-')
	if !c.skip('0') && !c.digits() || c.skip('.') && !c.digits() {
		return false
	}
	if c.skip('e') || c.skip('E') {
		_ = c.skip('+') || c.skip('-')
		return c.digits()
	}
	return true
}

func (c *checker) digits() bool {
	from := c.at
	for c.at < len(c.data) && '0' <= c.data[c.at] && c.data[c.at] <= '9' {
		c.at++
	}
	return c.at > from
}

// take moves over b and the white space before it, if b is next.
func (c *checker) take(b byte) bool {
	if c.peek() != b {
		return false
	}
	c.at++
	return true
}

// peek moves to the next byte that is no white space. At the end it is 0, which is nowhere allowed.
func (c *checker) peek() byte {
	for ; c.at < len(c.data); c.at++ {
		if b := c.data[c.at]; b != ' ' && b != '\n' && b != '\t' && b != '\r' {
			return b
		}
	}
	return 0
}

// skip moves over b if it is the very next byte.
func (c *checker) skip(b byte) bool {
	if c.at == len(c.data) || c.data[c.at] != b {
		return false
	}
	c.at++
	return true
}

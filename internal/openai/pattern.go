package openai

import (
	"bytes"

	"github.com/tidwall/gjson"
)

// maxHoles is how many strings of an event may differ from the one before.
const maxHoles = 8

// pattern is the last event that was read, cut at its content and at the strings that nobody reads, such as a padding. Almost
// every event of a stream is the one before with others in their places, and is known without being parsed.
type pattern struct {
	holes []hole // none = no pattern
	text  []byte // what stands before each hole, and behind the last
	ends  []int  // of these, in text
}

// hole is a place where any string may stand that needs no unescaping.
type hole struct {
	at, length int // in the last event, without the quotes
	next       int // its length in the event that is looked at
	content    bool
}

// forget begins a new event.
func (p *pattern) forget() { p.holes = p.holes[:0] }

// note remembers where the content of a choice stands.
func (p *pattern) note(content gjson.Result) {
	for i := range p.holes {
		if p.holes[i].content { // the later one counts
			p.holes = append(p.holes[:i], p.holes[i+1:]...)
			break
		}
	}
	p.cut(content, true)
}

// ignore remembers where a member stands that nobody reads.
func (p *pattern) ignore(member gjson.Result) {
	if len(p.holes) < maxHoles-1 { // there is always room for the content
		p.cut(member, false)
	}
}

func (p *pattern) cut(value gjson.Result, content bool) {
	if value.Type == gjson.String && value.Index > 0 {
		p.holes = append(p.holes, hole{at: value.Index + len(`"`), length: len(value.Raw) - len(`""`), content: content})
	}
}

// learn keeps data as the pattern when c, which was read from it, is one choice with a content and nothing that counts.
func (p *pattern) learn(data []byte, c *Chunk) {
	contents := 0
	for _, h := range p.holes {
		if h.content {
			contents++
		}
	}
	if contents != 1 || len(c.Choices) != 1 || c.Usage != "" || c.Error != "" || c.prompt.present() || c.Choices[0].tokens.present() {
		p.forget()
		return
	}
	p.text, p.ends = p.text[:0], p.ends[:0]
	from := 0
	for _, h := range p.holes {
		p.text = append(p.text, data[from:h.at]...)
		p.ends = append(p.ends, len(p.text))
		from = h.at + h.length
	}
	p.text = append(p.text, data[from:]...)
	p.ends = append(p.ends, len(p.text))
}

// fits reports whether data is the pattern with other strings in the holes, and notes their lengths.
func (p *pattern) fits(data []byte) bool {
	if len(p.holes) == 0 {
		return false
	}
	from := 0
	for i := range p.holes {
		var found bool
		if data, found = bytes.CutPrefix(data, p.text[from:p.ends[i]]); !found {
			return false
		}
		n := plain(data)
		p.holes[i].next, data, from = n, data[n:], p.ends[i]
	}
	return bytes.Equal(data, p.text[from:])
}

// plain is how many bytes data begins with that may stand in a string as they are.
func plain(data []byte) int {
	for i, b := range data {
		if b < ' ' || b == '"' || b == '\\' {
			return i
		}
	}
	return len(data)
}

// repeats reads data that differs from the event before in its content alone, and in what nobody reads.
func (c *Chunk) repeats(data []byte) bool {
	if !c.pattern.fits(data) {
		return false
	}
	shifted := 0
	for i := range c.pattern.holes {
		h := &c.pattern.holes[i]
		by := h.next - h.length
		h.at, h.length = h.at+shifted, h.next
		if h.content {
			c.Choices[0].Content = string(data[h.at : h.at+h.length])
		}
		if by != 0 {
			for _, m := range [...]*member{&c.id, &c.created, &c.model, &c.error, &c.choices, &c.usage} {
				m.shift(h.at, by)
			}
		}
		shifted += by
	}
	return true
}

// shift moves what stands behind at.
func (m *member) shift(at, by int) {
	for _, offset := range [...]*int{&m.key, &m.value, &m.end} {
		if *offset > at {
			*offset += by
		}
	}
}

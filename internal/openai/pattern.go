package openai

import (
	"bytes"

	"github.com/tidwall/gjson"
)

// pattern is the last event that was read, cut at its content. Almost every event of a stream is the one before with
// another content, and is known without being parsed.
type pattern struct {
	before, after []byte
	at, length    int // of the content in the last event; at 0 = no pattern
}

// note remembers where the content of a choice stands.
func (p *pattern) note(content gjson.Result) {
	if p.at = 0; content.Type == gjson.String && content.Index > 0 {
		p.at, p.length = content.Index+len(`"`), len(content.Raw)-len(`""`)
	}
}

// learn keeps data as the pattern when c, which was read from it, is one choice with a content and nothing that counts.
func (p *pattern) learn(data []byte, c *Chunk) {
	if len(c.Choices) != 1 || c.Usage != "" || c.Error != "" || c.prompt.present() || c.Choices[0].tokens.present() {
		p.at = 0
	}
	if p.at > 0 {
		p.before = append(p.before[:0], data[:p.at]...)
		p.after = append(p.after[:0], data[p.at+p.length:]...)
	}
}

// content cuts the content out of data that is otherwise the pattern.
func (p *pattern) content(data []byte) (content []byte, same bool) {
	if p.at == 0 || len(data) < len(p.before)+len(p.after) || !bytes.HasPrefix(data, p.before) || !bytes.HasSuffix(data, p.after) {
		return nil, false
	}
	content = data[len(p.before) : len(data)-len(p.after)]
	for _, b := range content {
		if b < ' ' || b == '"' || b == '\\' {
			return nil, false
		}
	}
	return content, true
}

// repeats reads data that differs from the event before in its content alone.
func (c *Chunk) repeats(data []byte) bool {
	content, same := c.pattern.content(data)
	if !same {
		return false
	}
	shift := len(content) - c.pattern.length
	c.pattern.length = len(content)
	c.Choices[0].Content = string(content)
	for _, m := range [...]*member{&c.id, &c.created, &c.model, &c.error, &c.choices, &c.usage} {
		m.shift(c.pattern.at, shift)
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

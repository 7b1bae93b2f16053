// Package tokens counts the tokens of requests as OpenAI's text models do, with the vocabulary o200k.
package tokens

import (
	"fmt"
	"strings"
	"unicode/utf8"

	"github.com/tidwall/gjson"
	"github.com/tiktoken-go/tokenizer/codec"
)

const (
	// MaxExact is how many bytes of text of a request are counted. A text that is beyond is taken to have BytesPerToken, because
	// counting takes 0.2 ms per KB, and up to ten times that of text made for it.
	MaxExact = 64 << 10
	// BytesPerToken is how long a token is taken to be that is not counted.
	BytesPerToken = 3.6

	// piece is how much text is split into words at once. The time of that grows with the square for some text, such as blank
	// lines: 64 KiB of those would take 5 s.
	piece = 1 << 10

	perMessage = 3
	perName    = 1
	perReply   = 3
	// perAttachment is what a part that is no text counts for: an image of 1024 by 1024 pixels in high detail.
	perAttachment = 765
)

// Counter counts tokens. It is safe for concurrent use.
type Counter struct{ codec *codec.Codec }

// New reads the vocabulary, which takes about 0.1 s and 7 MB that stay.
func New() (*Counter, error) {
	c := &Counter{codec: codec.NewO200kBase()}
	if _, err := c.codec.Count("warm"); err != nil { // the first match compiles
		return nil, fmt.Errorf("count tokens: %w", err)
	}
	return c, nil
}

// Prompt is how many tokens the prompt of a request has, by its body of any op. It takes time, and so has no place in a
// loop that others wait for.
func (c *Counter) Prompt(body []byte) int64 {
	s := &sum{counter: c, left: MaxExact}
	for key, value := range members(gjson.ParseBytes(body)) {
		switch key {
		case "messages":
			s.tokens += perReply
			s.messages(value)
		case "input": // a text, several, or the items of a response, which are like messages
			s.messages(value)
		case "prompt", "system", "instructions":
			s.content(value)
		case "tools", "functions":
			s.text(value.Raw)
		}
	}
	return s.tokens
}

func members(object gjson.Result) func(func(string, gjson.Result) bool) {
	return func(yield func(string, gjson.Result) bool) {
		object.ForEach(func(key, value gjson.Result) bool { return yield(key.Str, value) })
	}
}

// sum is what has been counted of one request.
type sum struct {
	counter *Counter
	tokens  int64
	left    int // bytes that may still be counted
}

func (s *sum) text(text string) {
	if len(text) > s.left {
		s.tokens += int64(float64(len(text)) / BytesPerToken)
		return
	}
	s.left -= len(text)
	for text != "" {
		end := cut(text)
		n, err := s.counter.codec.Count(text[:end])
		if err != nil {
			n = int(float64(end) / BytesPerToken)
		}
		s.tokens += int64(n)
		text = text[end:]
	}
}

// cut is where the first piece of a text ends: before a space, since a word has the space before it, or else before a rune.
func cut(text string) int {
	if len(text) <= piece {
		return len(text)
	}
	if space := strings.LastIndexByte(text[:piece], ' '); space > 0 {
		return space
	}
	end := piece
	for end > piece-utf8.UTFMax && !utf8.RuneStart(text[end]) {
		end--
	}
	return end
}

func (s *sum) messages(list gjson.Result) {
	if !list.IsArray() {
		s.content(list)
		return
	}
	list.ForEach(func(_, message gjson.Result) bool {
		if !message.IsObject() {
			s.content(message)
			return true
		}
		s.tokens += perMessage
		for key, value := range members(message) {
			switch key {
			case "content", "output":
				s.content(value)
			case "name":
				s.tokens += perName
				s.text(value.String())
			case "role", "refusal", "reasoning_content", "arguments":
				s.text(value.String())
			case "tool_calls", "function_call":
				s.text(value.Raw)
			}
		}
		return true
	})
}

// content is a text, or parts of which some are texts. A list of numbers is one of tokens.
func (s *sum) content(value gjson.Result) {
	switch {
	case value.Type == gjson.String:
		s.text(value.Str)
	case value.Type == gjson.Number:
		s.tokens++
	case value.IsArray():
		value.ForEach(func(_, part gjson.Result) bool {
			s.content(part)
			return true
		})
	case value.IsObject():
		s.part(value)
	}
}

func (s *sum) part(part gjson.Result) {
	if text := part.Get("text"); text.Type == gjson.String {
		s.text(text.Str)
		return
	}
	if inner := part.Get("content"); inner.Exists() { // the result of a tool
		s.content(inner)
		return
	}
	if part.Get("type").Str == "tool_use" {
		s.text(part.Get("name").Str)
		s.text(part.Get("input").Raw)
		return
	}
	s.tokens += perAttachment
}

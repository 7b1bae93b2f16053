package openai

import (
	"unicode/utf8"

	"github.com/tidwall/gjson"
)

// Halves makes the events of one stream UTF-8. A server that cuts its answer between bytes sends the halves of a rune in two
// events: the first half is held back, and goes with the second. It is owned by one goroutine.
type Halves struct{ held []byte }

// ToUTF8 returns the data of an event with what was held back of the one before, and without what is half a rune at its end.
// What is invalid elsewhere is replaced, as every client's decoder would. It returns data itself when there is nothing to do.
func (h *Halves) ToUTF8(data []byte) []byte {
	if len(h.held) == 0 && utf8.Valid(data) {
		return data
	}
	start, end := contentSpan(data)
	if start == 0 {
		return ToUTF8(data)
	}
	text := append(append([]byte(nil), h.held...), data[start:end]...)
	half := len(text) - halfRune(text)
	out := append(append([]byte(nil), data[:start]...), text[:half]...)
	out = append(out, data[end:]...)
	h.held = append(h.held[:0], text[half:]...)
	return ToUTF8(out)
}

// contentSpan is where the text of the only choice stands, between its quotes; 0 when there is none.
func contentSpan(data []byte) (start, end int) {
	for _, path := range [...]string{"choices.0.delta.content", "choices.0.text"} {
		if text := gjson.GetBytes(data, path); text.Type == gjson.String && text.Index > 0 {
			return text.Index + 1, text.Index + len(text.Raw) - 1
		}
	}
	return 0, 0
}

// halfRune is how many bytes at the end of text begin a rune that goes on.
func halfRune(text []byte) int {
	for n := 1; n < utf8.UTFMax && n <= len(text); n++ {
		if last := text[len(text)-n:]; utf8.RuneStart(last[0]) {
			if last[0] >= utf8.RuneSelf && !utf8.FullRune(last) {
				return n
			}
			return 0
		}
	}
	return 0
}

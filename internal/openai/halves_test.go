package openai

import (
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// A rune that a server cuts in two arrives whole, wherever it was cut; what is no rune at all is replaced.
func TestHalvesOfRunes(t *testing.T) {
	t.Parallel()
	for _, shape := range []string{`{"choices":[{"index":0,"delta":{"content":"TEXT"}}]}`, `{"choices":[{"index":0,"text":"TEXT"}]}`} {
		const text = "a\u00fc\u20ac\U0001F600z"
		for cut := range len(text) + 1 {
			var h Halves
			var got strings.Builder
			for _, part := range []string{text[:cut], text[cut:]} {
				data := h.ToUTF8([]byte(strings.Replace(shape, "TEXT", part, 1)))
				if !gjson.ValidBytes(data) {
					t.Fatalf("cut at %d: %q", cut, data)
				}
				got.WriteString(gjson.GetBytes(data, "choices.0.delta.content").Str + gjson.GetBytes(data, "choices.0.text").Str)
			}
			if got.String() != text || len(h.held) > 0 {
				t.Errorf("cut at %d: %q, and %x is held", cut, got.String(), h.held)
			}
		}
	}
	var h Halves
	for data, want := range map[string]string{
		"{\"choices\":[{\"delta\":{\"content\":\"a\xffb\"}}]}": "{\"choices\":[{\"delta\":{\"content\":\"a\uFFFDb\"}}]}", "{\"error\":\"\xc3\"}": "{\"error\":\"\uFFFD\"}",
	} {
		if got := string(h.ToUTF8([]byte(data))); got != want {
			t.Errorf("%q is %q, want %q", data, got, want)
		}
	}
}

package openai

import (
	"fmt"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// checkSame reads the events with one Chunk in turn and each with a fresh one: what came before must make no difference.
func checkSame(t *testing.T, events ...string) {
	t.Helper()
	var reused Chunk
	var mender Mender
	for _, event := range events {
		var fresh Chunk
		got, want := reused.Peek([]byte(event)), fresh.Peek([]byte(event))
		if got != want {
			t.Fatalf("%s after others: %v, alone: %v", event, got, want)
		}
		if got != nil {
			continue
		}
		pattern := cmp.FilterPath(func(p cmp.Path) bool { return p.Last().String() == ".pattern" }, cmp.Ignore())
		raw := cmp.FilterPath(func(p cmp.Path) bool { return p.String() == "choices.raw" }, cmp.Ignore())
		if diff := cmp.Diff(fresh, reused, cmpopts.EquateEmpty(), cmp.AllowUnexported(Chunk{}, Choice{}, member{}), pattern, raw); diff != "" {
			t.Errorf("%s after others (-alone +after others):\n%s", event, diff)
		}
		mender.Model, mender.As = "public", &Origin{ID: `"other"`, Created: "2", Model: `"m2"`}
		a, keepA := mender.Mend([]byte(event), &fresh)
		b, keepB := mender.Mend([]byte(event), &reused)
		if string(a) != string(b) || keepA != keepB {
			t.Errorf("mended to %s after others, %s alone", b, a)
		}
	}
}

func TestPeekAfterOthers(t *testing.T) {
	t.Parallel()
	chunk := func(content string) string {
		return `{"id":"a","choices":[{"index":0,"delta":{"content":"` + content + `"},"finish_reason":null}],"created":1,"model":"m"}`
	}
	padded := func(content, padding string) string {
		return `{"sent":"` + padding + `",` + chunk(content)[1:len(chunk(content))-1] + `,"obfuscation":"` + padding + `"}`
	}
	many := func(content, other string) string {
		var members strings.Builder
		for i := range 2 * maxHoles {
			fmt.Fprintf(&members, `,"m%d":%q`, i, other)
		}
		return `{"first":"` + other + `"` + members.String() + `,` + chunk(content)[1:]
	}
	for name, events := range map[string][]string{
		"contents":          {chunk("one"), chunk(""), chunk(" three times"), chunk("ü😀"), chunk("four")},
		"escapes":           {chunk(`a\n`), chunk("b"), chunk(`\"`), chunk(`\\`), chunk("c"), chunk(`\u0041`)},
		"the end of a name": {chunk("a"), chunk(`b","role":"tool`), chunk("c")},
		"control byte":      {chunk("a"), chunk("b\x01"), chunk("c\n"), chunk("d")},
		"shorter than both": {`{"choices":[{"delta":{"content":"aa"}}]}`, `{"choices":[{"delta":{"content":"a}}]}`, `{"choices":[{"delta":{"content":"a"}}]}`},
		"another choice":    {chunk("a"), `{"choices":[{"index":1,"delta":{"content":"a"}}]}`, chunk("b")},
		"two choices":       {`{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"a"}}]}`, `{"choices":[{"index":0,"delta":{"content":"a"}},{"index":1,"delta":{"content":"b"}}]}`},
		"content twice":     {`{"choices":[{"delta":{"content":"a","content":"b"}}]}`, `{"choices":[{"delta":{"content":"a","content":"c"}}]}`},
		"content in usage":  {`{"usage":{"content":"a"},"choices":[{"delta":{"content":"a"}}]}`, `{"usage":{"content":"a"},"choices":[{"delta":{"content":"b"}}]}`},
		"broken between":    {chunk("a"), `{"choices":`, chunk("b"), `[]`, chunk("c")},
		"null content":      {chunk("a"), `{"choices":[{"delta":{"content":null}}]}`, `{"choices":[{"delta":{"content":"nul"}}]}`},
		"tools":             {`{"choices":[{"delta":{"content":"a","tool_calls":[{"id":"x"}]}}]}`, `{"choices":[{"delta":{"content":"b","tool_calls":[{"id":"x"}]}}]}`},
		"padding":           {padded("a", "xxx"), padded("bcd", "x"), padded("", ""), padded("e", `\"`), padded("f", "xx"), padded("g", `x","model":"n`), padded("h", "y")},
		"padding, no end":   {padded("a", "x"), strings.TrimSuffix(padded("b", "x"), `x"}`), padded("c", "x")},
		"many members":      {many("a", "b"), many("cc", "dd"), many("", "")},
		"error":             {`{"error":{"message":"x"},"choices":[{"delta":{"content":"a"}}]}`, `{"error":{"message":"x"},"choices":[{"delta":{"content":"b"}}]}`},
	} {
		t.Run(name, func(t *testing.T) { t.Parallel(); checkSame(t, events...) })
	}
}

func FuzzPeekAfterOthers(f *testing.F) {
	f.Add(`{"choices":[{"delta":{"content":"a"}}]}`, `{"choices":[{"delta":{"content":"bc"}}]}`, `{"choices":[{"delta":{"content":"d\n"}}],"model":"m"}`)
	f.Add(`{"content":"a","choices":[{"delta":{"content":""}}],"id":"x"}`, `{"content":"b","choices":[{"delta":{"content":"a"}}],"id":"x"}`, ``)
	f.Add(`{"pad":"x","choices":[{"delta":{"content":"a"}}],"sent":"1"}`, `{"pad":"","choices":[{"delta":{"content":"bc"}}],"sent":"23"}`, `{"pad":"\"","choices":[{"delta":{"content":"d"}}],"sent":"23"}`)
	f.Fuzz(func(t *testing.T, a, b, c string) { checkSame(t, a, b, c, a) })
}

package openai

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
)

func TestLines(t *testing.T) {
	t.Parallel()
	long := strings.Repeat("x", 3*ReadBytes)
	for name, test := range map[string]struct {
		in   string
		want []string // with + when more is there, and ! when the line was cut
	}{
		"nothing":     {"", nil},
		"blank":       {"\n \r\n\n", nil},
		"one":         {"a\n", []string{"a"}},
		"two":         {"a\nb\n", []string{"a+", "b"}},
		"CRLF":        {"a\r\n\r\nb\r\n", []string{"a+", "b"}},
		"no end":      {"a\nb", []string{"a", "b!"}},
		"half a line": {"a\n{\"b", []string{"a", "{\"b!"}},
		"only blanks": {"a\n\n \n", []string{"a"}},
		"long":        {long + "\na\n", []string{long + "+", "a"}},
		"mark":        {"\xEF\xBB\xBFa\n", []string{"a"}},
	} {
		var got []string
		for event, err := range NewReader(strings.NewReader(test.in)).Lines() {
			if err != nil {
				t.Fatalf("%s: %v", name, err)
			}
			line := string(event.Data)
			if event.More {
				line += "+"
			}
			if event.Cut {
				line += "!"
			}
			got = append(got, line)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestLinesEnd(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	for name, test := range map[string]struct {
		in    io.Reader
		lines int
		err   error
	}{
		"broken":         {io.MultiReader(strings.NewReader("a\nb"), iotest.ErrReader(broken)), 1, broken},
		"as may be":      {strings.NewReader(strings.Repeat("x", MaxEventBytes) + "\na\n"), 2, nil},
		"too long":       {strings.NewReader(strings.Repeat("x", MaxEventBytes+ReadBytes) + "\na\n"), 0, ErrEventTooLarge},
		"byte by byte":   {iotest.OneByteReader(strings.NewReader("ab\r\ncd\n")), 2, nil},
		"no line at all": {strings.NewReader(strings.Repeat("x", MaxEventBytes+ReadBytes)), 0, ErrEventTooLarge},
	} {
		lines := 0
		var last error
		for _, err := range NewReader(test.in).Lines() {
			if last = err; err == nil {
				lines++
			}
		}
		if lines != test.lines || !errors.Is(last, test.err) {
			t.Errorf("%s: %d lines, then %v; want %d, then %v", name, lines, last, test.lines, test.err)
		}
	}
	for range NewReader(strings.NewReader("a\nb\nc")).Lines() {
		break // which panics if another is yielded
	}
}

func FuzzLines(f *testing.F) {
	f.Add("{\"a\":1}\n{\"b\":2}\r\n\r\n{\"c\"", 3)
	f.Add("\xEF\xBB\xBF\r\r\n", 1)
	f.Fuzz(func(t *testing.T, in string, at int) {
		want := linesOf(strings.NewReader(in))
		cut := min(max(at, 0), len(in))
		if got := linesOf(io.MultiReader(strings.NewReader(in[:cut]), strings.NewReader(in[cut:]))); !cmp.Equal(want, got) {
			t.Errorf("cut at %d: %q, want %q", cut, got, want)
		}
		for _, line := range want {
			if strings.ContainsAny(line, "\r\n") || strings.TrimSpace(line) == "" || !strings.Contains(in, line) {
				t.Errorf("%q is no line of %q", line, in)
			}
		}
	})
}

func linesOf(in io.Reader) (all []string) {
	for event, err := range NewReader(in).Lines() {
		if err != nil {
			return append(all, fmt.Sprint(err))
		}
		all = append(all, string(event.Data))
	}
	return all
}

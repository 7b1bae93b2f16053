package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func scan(pieces ...[]byte) []string {
	var events []string
	scanner := &eventScanner{}
	for _, piece := range pieces {
		scanner.feed(piece, func(data []byte) { events = append(events, string(data)) })
	}
	return events
}

func TestEventScanner(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, body string
		want       []string
	}{
		{"two events", "data: {\"a\":1}\n\ndata: [DONE]\n\n", []string{`{"a":1}`, "[DONE]"}},
		{"no space and CRLF", "data:x\r\n\r\n", []string{"x"}},
		{"comments, ids and retry", "retry: 10\n: hb\nid: r.1\ndata: y\n\n: hb\n", []string{"y"}},
		{"a line that has not ended", "data: z", nil},
	} {
		if diff := cmp.Diff(test.want, scan([]byte(test.body))); diff != "" {
			t.Errorf("%s (-want +got):\n%s", test.name, diff)
		}
	}
}

// FuzzEventScanner: where the body is cut into pieces makes no difference.
func FuzzEventScanner(f *testing.F) {
	f.Add([]byte("id: r.0\ndata: {\"a\":1}\r\n\r\n: hb\ndata:\n\ndata: [DONE]\n\n"), 9)
	f.Fuzz(func(t *testing.T, body []byte, cut int) {
		whole := scan(body)
		var bytewise [][]byte
		for i := range body {
			bytewise = append(bytewise, body[i:i+1])
		}
		if diff := cmp.Diff(whole, scan(bytewise...)); diff != "" {
			t.Errorf("byte by byte (-whole +bytewise):\n%s", diff)
		}
		if cut >= 0 && cut <= len(body) {
			if diff := cmp.Diff(whole, scan(body[:cut], body[cut:])); diff != "" {
				t.Errorf("cut at %d (-whole +cut):\n%s", cut, diff)
			}
		}
	})
}

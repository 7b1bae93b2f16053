package openaitest

import (
	"strings"
	"testing"

	"github.com/tidwall/gjson"
)

// CheckStream fails the test when a stream of events, as callers get it, breaks a rule. Each rule is a client that breaks:
// no named event, no event without data, no chunk without choices, no member error that is no error, a comment of one
// line, and an end that says whether the answer is whole.
func CheckStream(t testing.TB, out string) {
	t.Helper()
	if !strings.HasSuffix(out, "\n\n") || strings.Contains(out, "\r") {
		t.Error("an event is not ended by a blank line, or by more")
	}
	ended := false
	previous := ""
	for line := range strings.Lines(out) {
		line = strings.TrimSuffix(line, "\n")
		data, isData := strings.CutPrefix(line, "data: ")
		switch {
		case line == "" && !strings.HasPrefix(previous, "data: "):
			t.Errorf("a blank line follows %q: some clients take it for an empty event", previous)
		case line == "", strings.HasPrefix(line, ": "), strings.HasPrefix(line, "id: "):
		case !isData:
			t.Errorf("neither an id nor data: %q", line)
		case ended:
			t.Error("there is data after the end")
		case data == "[DONE]", gjson.Get(data, "error").IsObject():
			ended = true
		case !gjson.Valid(data), !gjson.Get(data, "choices").IsArray(), gjson.Get(data, "error").Exists():
			t.Errorf("this is no chunk: %s", data)
		}
		previous = line
	}
	if !ended {
		t.Error("the stream neither says that it is whole nor why it is not")
	}
}

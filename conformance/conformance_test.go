package main

import (
	"strings"
	"testing"
)

func frame(header, data string) message {
	return message{Header: map[string][]string{"Llm-Frame": {header}}, Data: []byte(data)}
}

func chunkOf(content string) string {
	return `{"object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"` + content + `"}}]}`
}

func TestReadChain(t *testing.T) {
	t.Parallel()
	start, first := frame("start 1 w 0 0", ""), frame("delta 1 w 0 2", chunkOf("a")+"\n"+chunkOf("b"))
	second, end := frame("delta 1 w 2 1", chunkOf("c")), frame("end 1 w 3 0", `{"status":"completed"}`)
	text, err := readChain([]message{start, first, second, end})
	if err != nil || text != "abc" {
		t.Errorf("readChain = %q, %v", text, err)
	}
	for name, frames := range map[string][]message{
		"a gap":             {start, first, end},
		"a duplicate":       {start, first, first, second, end},
		"no end":            {start, first, second},
		"an error":          {start, first, second, frame("error 1 w 3 0", "{}")},
		"after the end":     {start, first, second, end, end},
		"a wrong count":     {start, frame("delta 1 w 0 3", chunkOf("a")+"\n"+chunkOf("b")), end},
		"no chunk":          {start, frame("delta 1 w 0 1", "hello"), frame("end 1 w 1 0", "{}")},
		"no event":          {start, frame("end 1 w 0 0", "{}")},
		"nothing of a kind": {frame("", "")},
	} {
		if text, err := readChain(frames); err == nil {
			t.Errorf("%s: readChain = %q", name, text)
		}
	}
}

func TestReadEvents(t *testing.T) {
	t.Parallel()
	const body = "id: r.0\ndata: {\"a\":1}\n\n: hb\nid: r.1\ndata: {}\n\ndata: [DONE]\n\nid: r.9\ndata: not ended\n"
	events, _ := readEvents(strings.NewReader(body), 0)
	if err := wholeStream(events, "r", 0); err != nil {
		t.Errorf("%v: %v", events, err)
	}
	if cut, _ := readEvents(strings.NewReader(body), 2); len(cut) != 2 || cut[1].id != "r.1" {
		t.Errorf("cut after two events: %v", cut)
	}
	for name, events := range map[string][]event{
		"a gap":     {{"r.0", "{}"}, {"r.2", "{}"}, {"", "[DONE]"}},
		"no end":    {{"r.0", "{}"}, {"r.1", "{}"}, {"r.2", "{}"}},
		"another":   {{"x.0", "{}"}, {"x.1", "{}"}, {"", "[DONE]"}},
		"too short": {{"", "[DONE]"}},
		"no JSON":   {{"r.0", "{}"}, {"r.1", "oops"}, {"", "[DONE]"}},
	} {
		if wholeStream(events, "r", 0) == nil {
			t.Errorf("%s: wholeStream finds nothing wrong with %v", name, events)
		}
	}
	if _, rest := readEvents(strings.NewReader(`{"error":{}}`), 0); rest == "" {
		t.Error("what is no event is lost")
	}
}

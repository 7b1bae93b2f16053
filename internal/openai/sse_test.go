package openai

import (
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/schemas"
)

type wireEvent struct{ Type, ID, Data string }

func readAll(t testing.TB, in io.Reader) (events []wireEvent, cut bool, err error) {
	t.Helper()
	for event, err := range NewReader(in).Events() {
		if err != nil {
			return events, cut, err
		}
		cut = event.Cut
		events = append(events, wireEvent{string(event.Type), string(event.ID), string(event.Data)})
	}
	return events, cut, nil
}

func TestReader(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name, in string
		want     []wireEvent
	}{
		{"one", "data: a\n\n", []wireEvent{{Data: "a"}}},
		{"no space", "data:a\n\n", []wireEvent{{Data: "a"}}},
		{"only one space goes", "data:  a\n\n", []wireEvent{{Data: " a"}}},
		{"CRLF", "data: a\r\n\r\ndata: b\r\n\r\n", []wireEvent{{Data: "a"}, {Data: "b"}}},
		{"CR", "data: a\r\rdata: b\r\r", []wireEvent{{Data: "a"}, {Data: "b"}}},
		{"mixed ends", "data: a\r\n\ndata: b\r\r\ndata: c\n\r\n", []wireEvent{{Data: "a"}, {Data: "b"}, {Data: "c"}}},
		{"BOM", "\xEF\xBB\xBFdata: a\n\n", []wireEvent{{Data: "a"}}},
		{"comments", ": hb\n\ndata: a\n: hb\n\n:\n", []wireEvent{{Data: "a"}}},
		{"several lines", "data: a\ndata:\ndata: b\n\n", []wireEvent{{Data: "a\n\nb"}}},
		{"type", "event: error\ndata: a\n\ndata: b\n\n", []wireEvent{{Type: "error", Data: "a"}, {Data: "b"}}},
		{"type without data", "event: ping\n\ndata: b\n\n", []wireEvent{{Data: "b"}}},
		{"empty data", "data:\n\ndata\n\n", nil},
		{"id stays", "id: 1\ndata: a\n\ndata: b\n\nid: 2\n\ndata: c\n\n", []wireEvent{{ID: "1", Data: "a"}, {ID: "1", Data: "b"}, {ID: "2", Data: "c"}}},
		{"id with NUL", "id: 1\x002\ndata: a\n\n", []wireEvent{{Data: "a"}}},
		{"retry and unknown fields", "retry: 10\nfoo: bar\nfoo\ndata: a\n\n", []wireEvent{{Data: "a"}}},
		{"pending at the end", "data: a\n\ndata: b\n", []wireEvent{{Data: "a"}, {Data: "b"}}},
		{"cut line at the end", "data: a\n\ndata: b", []wireEvent{{Data: "a"}, {Data: "b"}}},
		{"nothing", "", nil},
		{"blank lines", "\n\n\r\n\r\r", nil},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			for how, in := range map[string]io.Reader{
				"whole": strings.NewReader(test.in), "bytes": iotest.OneByteReader(strings.NewReader(test.in)),
				"data with EOF": iotest.DataErrReader(strings.NewReader(test.in)),
			} {
				got, cut, err := readAll(t, in)
				if err != nil {
					t.Fatalf("%s: %v", how, err)
				}
				if diff := cmp.Diff(test.want, got); diff != "" {
					t.Errorf("%s: events (-want +got):\n%s", how, diff)
				}
				if want := test.name == "cut line at the end"; cut != want {
					t.Errorf("%s: cut = %v, want %v", how, cut, want)
				}
			}
		})
	}
}

func TestReaderLargeEvents(t *testing.T) {
	t.Parallel()
	large := strings.Repeat("x", 10<<20)
	got, _, err := readAll(t, strings.NewReader("data: "+large+"\n\ndata: b\n\n"))
	if err != nil || len(got) != 2 || got[0].Data != large || got[1].Data != "b" {
		t.Errorf("10 MiB event: %d events, error %v", len(got), err)
	}
	for name, in := range map[string]string{
		"one line":     "data: " + strings.Repeat("x", MaxEventBytes+1) + "\n\n",
		"many lines":   strings.Repeat("data: "+strings.Repeat("x", 1<<20)+"\n", 17) + "\n",
		"endless line": ": " + strings.Repeat("x", MaxEventBytes+1<<20),
	} {
		if _, _, err := readAll(t, strings.NewReader(in)); !errors.Is(err, ErrEventTooLarge) {
			t.Errorf("%s: error = %v, want ErrEventTooLarge", name, err)
		}
	}
}

func TestReaderError(t *testing.T) {
	t.Parallel()
	broken := errors.New("broken")
	got, _, err := readAll(t, io.MultiReader(strings.NewReader("data: a\n\ndata: b\n"), iotest.ErrReader(broken)))
	if !errors.Is(err, broken) || len(got) != 1 {
		t.Errorf("got %v and %v, want the first event and the error, without the pending event", got, err)
	}
}

func TestReaderSniff(t *testing.T) {
	t.Parallel()
	r := NewReader(iotest.OneByteReader(strings.NewReader(" \r\n\n{\"a\":1}")))
	if b, err := r.Sniff(); b != '{' || err != nil {
		t.Fatalf("Sniff = %q, %v", b, err)
	}
	if data, err := r.ReadAll(100); string(data) != `{"a":1}` || err != nil {
		t.Errorf("ReadAll = %q, %v", data, err)
	}
	if _, err := NewReader(strings.NewReader("\n")).Sniff(); !errors.Is(err, io.EOF) {
		t.Errorf("Sniff of nothing: %v, want EOF", err)
	}
}

func TestWriter(t *testing.T) {
	t.Parallel()
	cursor := schemas.Cursor{Request: "req_1", Index: 18}
	b := AppendEvent(nil, cursor, []byte(`{"a":1}`))
	b = append(b, Heartbeat...)
	b = AppendError(b, schemas.Errorf(schemas.CodeUpstreamTimeout, "too slow"))
	b = append(b, Done...)
	want := "id: " + cursor.String() + "\ndata: {\"a\":1}\n\n" +
		": hb\n" +
		"data: {\"error\":{\"message\":\"too slow\",\"type\":\"server_error\",\"param\":null,\"code\":\"upstream_timeout\"}}\n\n" +
		"data: [DONE]\n\n"
	if diff := cmp.Diff(want, string(b)); diff != "" {
		t.Errorf("written (-want +got):\n%s", diff)
	}
	got, _, err := readAll(t, strings.NewReader(string(b)))
	if err != nil || len(got) != 3 || got[0] != (wireEvent{ID: "req_1.18", Data: `{"a":1}`}) {
		t.Errorf("read back %v, %v", got, err)
	}
}

func FuzzReader(f *testing.F) {
	for _, seed := range []string{
		"data: a\n\n", "\xEF\xBB\xBFdata: a\r\n\r\n", "id: 1\rdata: a\rdata: b\r\r", "event: x\n\n: c\ndata\n\n", "data: [DONE]",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, in string) {
		whole, _, err := readAll(t, strings.NewReader(in))
		if err != nil {
			t.Fatalf("error %v", err)
		}
		split, _, err := readAll(t, iotest.OneByteReader(strings.NewReader(in)))
		if err != nil {
			t.Fatalf("error %v", err)
		}
		if diff := cmp.Diff(whole, split); diff != "" {
			t.Errorf("events depend on how the bytes arrive (-whole +split):\n%s", diff)
		}
		for _, event := range whole {
			if event.Data == "" || strings.ContainsRune(event.Data, '\r') {
				t.Errorf("event %q", event)
			}
		}
	})
}

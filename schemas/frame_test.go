package schemas

import (
	"fmt"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

type indexed struct {
	Index uint64
	Event string
}

func events(f *Frame) []indexed {
	var all []indexed
	for i, event := range f.Events() {
		all = append(all, indexed{i, string(event)})
	}
	return all
}

// checkEvents checks, for every place to resume from, that a cut frame yields exactly the tail of the whole one.
func checkEvents(t *testing.T, f *Frame) {
	t.Helper()
	whole := events(f)
	if len(whole) != f.Count {
		t.Fatalf("frame %q yields %d events", f.Header(), len(whole))
	}
	for cut := range min(f.Count+2, 8) {
		index := f.Index + uint64(cut)
		g := *f
		g.From(index)
		want := whole[min(cut, len(whole)):]
		if diff := cmp.Diff(append([]indexed{}, want...), append([]indexed{}, events(&g)...)); diff != "" {
			t.Errorf("%q from %d (-want +got):\n%s", f.Header(), index, diff)
		}
		if g.Next() != f.Next() {
			t.Errorf("%q from %d: next index %d, want %d", f.Header(), index, g.Next(), f.Next())
		}
	}
}

func TestEvents(t *testing.T) {
	for _, f := range []*Frame{
		{Kind: KindDelta, Writer: "w", Index: 5, Count: 3, Data: []byte("a\nb\nc")},
		{Kind: KindDelta, Writer: "w", Count: 1, Data: []byte("a")},
		{Kind: KindDelta, Writer: "w", Count: 2, Data: []byte("\n")},
		{Kind: KindEnd, Writer: "w", Count: 1, Data: []byte(`{"choices":[]}`)},
		{Kind: KindEnd, Writer: "w", Index: 9, Data: []byte(`{"status":"completed"}`)},
	} {
		t.Run(f.Header(), func(t *testing.T) { checkEvents(t, f) })
	}
}

func TestFromKeepsTheSummaryOfAnEnd(t *testing.T) {
	f := &Frame{Kind: KindEnd, Writer: "w", Index: 9, Data: []byte(`{"status":"completed"}`)}
	f.From(20)
	if string(f.Data) != `{"status":"completed"}` || f.Index != 9 {
		t.Errorf("end frame after From = %+v", f)
	}
}

func TestEventsStops(t *testing.T) {
	f := &Frame{Kind: KindDelta, Writer: "w", Count: 3, Data: []byte("a\nb\nc")}
	for i := range f.Events() {
		if i == 1 {
			return
		}
	}
	t.Error("the loop did not stop")
}

func TestSame(t *testing.T) {
	f := Frame{Kind: KindDelta, Attempt: 1, Writer: "w", Index: 3, Count: 2}
	same := f
	same.Sequence, same.Data = 9, []byte("x")
	if !f.Same(&same) {
		t.Error("a frame is not the same write as its committed copy")
	}
	for i, change := range []func(*Frame){
		func(g *Frame) { g.Kind = KindEnd },
		func(g *Frame) { g.Attempt++ },
		func(g *Frame) { g.Writer = "v" },
		func(g *Frame) { g.Index++ },
	} {
		g := f
		change(&g)
		if f.Same(&g) {
			t.Errorf("change %d: %q is the same write as %q", i, g.Header(), f.Header())
		}
	}
}

func TestDecodeFrameRefuses(t *testing.T) {
	for _, line := range []string{
		"", "delta", "delta 1 w 0", "nope 1 w 0 0", "delta x w 0 0", "delta 1  0 0", "delta 1 w -1 0", "delta 1 w 0 -1",
		"delta -1 w 0 1", "delta 1 w 9223372036854775808 1", "delta 1 w 0 3", "delta 1 w 0 2147483647", "start 1 w 0 0",
	} {
		if f, err := DecodeFrame(Header{HeaderFrame: {line}}, []byte("a\nb")); err == nil {
			t.Errorf("DecodeFrame(%q) = %+v, want an error", line, f)
		}
	}
}

func TestCursor(t *testing.T) {
	for _, s := range []string{"", ".", "req_1", "req_1.", ".1", "req_1.x", "req_1.-1", "req_1.+1", "a.b.1", "req 1.1", "req_1.9223372036854775808"} {
		if c, err := ParseCursor(s); err == nil {
			t.Errorf("ParseCursor(%q) = %+v, want an error", s, c)
		}
	}
}

func BenchmarkFrame(b *testing.B) {
	for _, count := range []int{1, 16} {
		b.Run(fmt.Sprintf("events=%d", count), func(b *testing.B) {
			f := &Frame{Kind: KindDelta, Attempt: 1, Writer: "W1", Index: 3, Count: count, Data: make([]byte, 0, count*230)}
			for range count {
				f.Data = append(f.Data, make([]byte, 229)...)
				f.Data = append(f.Data, '\n')
			}
			b.ReportAllocs()
			for b.Loop() {
				if _, err := DecodeFrame(f.Encode(), f.Data); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

func TestStartThatKnowsTheAcceptance(t *testing.T) {
	f := &Frame{Kind: KindStart, Attempt: 1, Writer: "w", Start: &Start{Mode: ModeFresh, Work: 7, Dispatch: 1, Worker: "one", Accepted: time.UnixMilli(1764000000999)}}
	got, err := DecodeFrame(f.Encode(), nil)
	if err != nil || !got.Start.Accepted.Equal(f.Start.Accepted) {
		t.Errorf("read back as %+v, %v", got, err)
	}
	h := f.Encode()
	h[HeaderAccepted] = []string{"soon"}
	if _, err := DecodeFrame(h, nil); err == nil {
		t.Error("a time that is none was read")
	}
}

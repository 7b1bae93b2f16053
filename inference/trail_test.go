package inference

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// writing makes the frames of an attempt, one behind the other.
type writing struct {
	next     uint64
	sequence uint64
	now      time.Time
}

func (w *writing) frame(f schemas.Frame) schemas.Frame {
	w.sequence += 1 + w.sequence%3
	w.now = w.now.Add(time.Duration(w.sequence)*time.Millisecond + 7)
	f.Attempt, f.Writer, f.Index, f.Sequence, f.Time = 1, "w", w.next, w.sequence, w.now
	w.next = f.Next()
	return f
}

func delta(events ...string) schemas.Frame {
	return schemas.Frame{Kind: schemas.KindDelta, Count: len(events), Data: []byte(strings.Join(events, "\n"))}
}

func token(text string) string {
	return fmt.Sprintf(`{"id":"chatcmpl-1","object":"chat.completion.chunk","model":"m","choices":[{"index":0,"delta":{"content":%q},"finish_reason":null}]}`, text)
}

// Whatever a run writes, its trail is what a chain would be, at every length.
func TestTrail(t *testing.T) {
	t.Parallel()
	told := delta(token("a"))
	told.TokenIDs, told.Prompt, told.Usage = "1,2;3", "v 3 1,2,3", `{"prompt_tokens":3}`
	offloaded := delta(token("b"))
	offloaded.Object = &schemas.Object{Name: "n"}
	frames := []schemas.Frame{
		{Kind: schemas.KindStart, Start: &schemas.Start{Mode: schemas.ModeFresh, Work: 7}},
		delta(token("Hello")), delta(token(" you"), token(" and"), token("")), delta(token(" you")), delta(token(" you")),
		told, delta(""), delta("", ""), delta(token("c")), offloaded, delta(token("d")), {Kind: schemas.KindDelta},
		{Kind: schemas.KindStart, Start: &schemas.Start{Mode: schemas.ModeSplice, Work: 8}},
		delta(strings.Repeat("x", maxLikeness+1)), delta(strings.Repeat("x", maxLikeness)), delta("a line\nof two"), delta("y"), delta("xyy"), delta("yy"),
		{Kind: schemas.KindEnd, Data: []byte("{}")},
	}
	for n := range len(frames) + 1 {
		var got trail
		var want bus.Chain
		w := writing{now: time.Unix(1_800_000_000, 123)}
		for _, f := range frames[:n] {
			f = w.frame(f)
			kept := f
			kept.Data = bytes.Clone(f.Data)
			want.Frames = append(want.Frames, &kept)
			got.add(&f)
			if f.Kind == schemas.KindDelta { // its buffer serves the next
				clear(f.Data)
				f = schemas.Frame{}
			}
			if got.Sequence() != want.Sequence() || got.Next() != want.Next() || got.Visible() != want.Visible() {
				t.Fatalf("after %d frames: sequence %d, next %d", len(want.Frames), got.Sequence(), got.Next())
			}
		}
		for range 2 { // it is unpacked once
			if diff := cmp.Diff(want.Frames, got.whole().Frames, cmp.Comparer(time.Time.Equal)); diff != "" {
				t.Fatalf("of %d frames (-want +got)\n%s", n, diff)
			}
		}
	}
}

// A frame with one token takes less than a twentieth of what its event has.
func TestTrailIsSmall(t *testing.T) {
	t.Parallel()
	const tokens = 1000
	var got trail
	w := writing{now: time.Unix(1_800_000_000, 0)}
	for range tokens {
		f := w.frame(delta(token("token")))
		got.add(&f)
	}
	if n := cap(got.packed.data); n > 20*tokens {
		t.Errorf("%d tokens take %d bytes", tokens, n)
	}
}

func FuzzTrail(f *testing.F) {
	f.Add([]byte(token("a") + "\n" + token("b") + "\x00" + token("a")))
	f.Add([]byte("\x00\x00\n\x00abcdefghijk\x00abcdefghixk\x00k"))
	f.Fuzz(func(t *testing.T, data []byte) {
		var got trail
		var want []byte
		var w writing
		n := 0
		for part := range bytes.SplitSeq(data, []byte{0}) {
			frame := w.frame(delta(strings.Split(string(part), "\n")...))
			got.add(&frame)
			want = append(append(want, part...), 0)
			n++
		}
		var have []byte
		for _, frame := range got.whole().Frames {
			have = append(append(have, frame.Data...), 0)
		}
		if len(got.chain.Frames) != n || !bytes.Equal(have, want) {
			t.Errorf("%d frames, want %d:\n%q\n%q", len(got.chain.Frames), n, have, want)
		}
	})
}

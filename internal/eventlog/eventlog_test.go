package eventlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"

	"github.com/weir-llm/weir/schemas"
)

var accepted = time.Date(2026, 11, 24, 17, 0, 0, 0, time.UTC)

func delta(index uint64, attempt int, after time.Duration, events ...string) *schemas.Frame {
	return &schemas.Frame{Kind: schemas.KindDelta, Attempt: attempt, Writer: "w", Index: index, Count: len(events),
		Data: []byte(strings.Join(events, "\n")), Time: accepted.Add(after)}
}

func collect(t *testing.T, log *schemas.EventLog) ([]*schemas.Frame, error) {
	t.Helper()
	var frames []*schemas.Frame
	for f, err := range Frames(log, accepted) {
		if err != nil {
			return frames, err
		}
		frames = append(frames, f)
	}
	return frames, nil
}

func TestRoundTrip(t *testing.T) {
	t.Parallel()
	in := []*schemas.Frame{
		{Kind: schemas.KindStart, Attempt: 1},
		delta(0, 1, 40*time.Millisecond, `{"a":1}`),
		delta(1, 1, 90*time.Millisecond, `{"a":2}`, `{"a":3}`, ``),
		{Kind: schemas.KindStart, Attempt: 2},
		delta(4, 2, time.Second, "{\n\"a\":4}"),
		{Kind: schemas.KindEnd, Attempt: 2, Index: 5},
	}
	log := Pack(accepted, in)
	data, err := json.Marshal(log)
	if err != nil {
		t.Fatal(err)
	}
	back := &schemas.EventLog{}
	if err := json.Unmarshal(data, back); err != nil {
		t.Fatal(err)
	}
	got, err := collect(t, back)
	if err != nil {
		t.Fatal(err)
	}
	want := []*schemas.Frame{in[1], in[2], delta(4, 2, time.Second, `{ "a":4}`)}
	for _, f := range want {
		f.Writer = ""
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("frames (-want +got):\n%s", diff)
	}
}

func TestNothingToPack(t *testing.T) {
	t.Parallel()
	unary := &schemas.Frame{Kind: schemas.KindEnd, Attempt: 1, Count: 1, Data: []byte(`{}`)}
	if log := Pack(accepted, []*schemas.Frame{unary}); log != nil {
		t.Errorf("Pack of a unary answer = %+v, want nil", log)
	}
	if got, err := collect(t, nil); len(got) != 0 || err != nil {
		t.Errorf("Frames(nil) = %v, %v, want nothing", got, err)
	}
}

func TestTooLargeKeepsTheMarks(t *testing.T) {
	t.Parallel()
	log := Pack(accepted, []*schemas.Frame{{Kind: schemas.KindDelta, Count: 1, Data: make([]byte, MaxBytes), Time: accepted}})
	if log.Count != 1 || len(log.Data) != 0 {
		t.Fatalf("got count %d and %d bytes, want the marks alone", log.Count, len(log.Data))
	}
	if Kept(log) || !Kept(nil) || !Kept(Pack(accepted, []*schemas.Frame{delta(0, 1, 0, "a")})) {
		t.Error("Kept does not tell which log holds its events")
	}
	if _, err := collect(t, log); !errors.Is(err, ErrNotKept) {
		t.Errorf("error = %v, want ErrNotKept", err)
	}
}

func TestDamagedLogIsAnError(t *testing.T) {
	t.Parallel()
	good := func() *schemas.EventLog {
		return Pack(accepted, []*schemas.Frame{delta(0, 1, 0, "a", "b"), delta(2, 1, 0, "c")})
	}
	tests := map[string]func(*schemas.EventLog){
		"negative frame":     func(l *schemas.EventLog) { l.Frames[0].Count = -1 },
		"frames count more":  func(l *schemas.EventLog) { l.Frames[0].Count = 1 << 40 },
		"frames count fewer": func(l *schemas.EventLog) { l.Frames = l.Frames[:1] },
		"fewer lines":        func(l *schemas.EventLog) { l.Frames[0].Count, l.Count = 9, 10 },
		"unknown encoding":   func(l *schemas.EventLog) { l.Encoding = "br" },
		"not zstd":           func(l *schemas.EventLog) { l.Data = []byte("a\nb\nc\n") },
		"cut short":          func(l *schemas.EventLog) { l.Data = l.Data[:len(l.Data)-1] },
	}
	for name, damage := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			log := good()
			damage(log)
			if got, err := collect(t, log); err == nil || len(got) != 0 {
				t.Errorf("got %d frames and error %v, want only an error", len(got), err)
			}
		})
	}
}

func TestBombIsRefused(t *testing.T) {
	t.Parallel()
	e, err := zstd.NewWriter(nil, zstd.WithEncoderConcurrency(1))
	if err != nil {
		t.Fatal(err)
	}
	bomb := e.EncodeAll(make([]byte, MaxBytes+1), nil)
	log := &schemas.EventLog{Encoding: encodingZstd, Data: bomb}
	if _, err := collect(t, log); !errors.Is(err, zstd.ErrDecoderSizeExceeded) {
		t.Errorf("%d bytes that unpack to %d: error = %v, want ErrDecoderSizeExceeded", len(bomb), MaxBytes+1, err)
	}
}

// A stage keeps the encoder for its whole life, and the whole of an idle serve has 60 MB.
func TestMemoryIsSmall(t *testing.T) {
	var frames []*schemas.Frame
	for i := range 64 {
		frames = append(frames, delta(uint64(i), 1, 0, fmt.Sprintf(`{"id":"c","choices":[{"delta":{"content":"word%d"}}]}`, i)))
	}
	before := heap()
	var log *schemas.EventLog
	for range 100 {
		log = Pack(accepted, frames)
		if _, err := collect(t, log); err != nil {
			t.Fatal(err)
		}
	}
	if grown := heap() - before; grown > 4<<20 {
		t.Errorf("packing keeps %d KB, want at most 4 MB", grown>>10)
	}
	if raw := len(lines(frames, 0)); len(log.Data)*3 > raw {
		t.Errorf("%d bytes of events take %d, want at most a third", raw, len(log.Data))
	}
}

func heap() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

func FuzzFrames(f *testing.F) {
	good := Pack(accepted, []*schemas.Frame{delta(0, 1, 0, "a", "b"), delta(2, 1, 0, "c")})
	f.Add(good.Data, 3, 2, 1)
	f.Add([]byte{}, 0, 0, 0)
	f.Add(good.Data, -1, 1<<62, 1<<62)
	f.Fuzz(func(t *testing.T, data []byte, count, first, second int) {
		log := &schemas.EventLog{Encoding: encodingZstd, Count: count, Data: data,
			Frames: []schemas.FrameMark{{Count: first}, {Count: second}}}
		var next uint64
		for frame, err := range Frames(log, accepted) {
			if err != nil {
				return
			}
			if frame.Index != next || bytes.Count(frame.Data, lineFeed) > max(0, frame.Count-1) {
				t.Fatalf("frame %+v follows index %d", frame, next)
			}
			next = frame.Next()
		}
		if next != uint64(count) {
			t.Fatalf("got %d events, the log counts %d", next, count)
		}
	})
}

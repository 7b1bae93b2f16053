package openai

import (
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
)

// A stream has a small buffer until it comes fast, and again when it has become slow; no event is lost.
func TestReaderFitsItsBuffer(t *testing.T) {
	t.Parallel()
	for name, event := range map[string]string{"events": "data: %d\n\n", "lines": "%d\n"} {
		source, sink := io.Pipe()
		reader := NewReader(source)
		const slow, burst = 3 * slowReads, 4000
		sizes := make(chan int, 2*slow+2*burst)
		go func() {
			number := 0
			send := func(n int) {
				var text strings.Builder
				for range n {
					fmt.Fprintf(&text, event, number)
					number++
				}
				_, _ = io.WriteString(sink, text.String())
			}
			for range slow {
				send(1)
			}
			send(burst)
			send(burst)
			for range slow {
				send(1)
			}
			_ = sink.Close()
		}()
		events := reader.Events()
		if name == "lines" {
			events = reader.Lines()
		}
		next := 0
		for e, err := range events {
			if err != nil || string(e.Data) != fmt.Sprint(next) {
				t.Fatalf("%s: event %d is %q, %v", name, next, e.Data, err)
			}
			next++
			sizes <- len(reader.in.buffer)
		}
		close(sizes)
		var seen []int
		for size := range sizes {
			if len(seen) == 0 || seen[len(seen)-1] != size {
				seen = append(seen, size)
			}
		}
		if want := []int{slowBytes, ReadBytes, slowBytes}; next != 2*slow+2*burst || fmt.Sprint(seen) != fmt.Sprint(want) {
			t.Errorf("%s: %d events, buffers %v, want %d and %v", name, next, seen, 2*slow+2*burst, want)
		}
		reader.Release()
	}
}

// Whatever the size of the reads, a window gives what the stream brings, and its end when all is read.
func TestWindow(t *testing.T) {
	t.Parallel()
	text := strings.Repeat("0123456789", ReadBytes/5)
	for name, src := range map[string]io.Reader{
		"at once": strings.NewReader(text), "bytes": iotest.OneByteReader(strings.NewReader(text)), "end with data": iotest.DataErrReader(strings.NewReader(text)),
	} {
		w := window{src: src}
		var got strings.Builder
		var err error
		for err == nil {
			if err = w.await(3); err == nil {
				got.Write(w.unread()[:2])
				w.skip(2)
			}
		}
		rest, failed := io.ReadAll(&w)
		if got.Write(rest); err != io.EOF || failed != nil || got.String() != text {
			t.Errorf("%s: %d bytes of %d, %v, %v", name, got.Len(), len(text), err, failed)
		}
		w.release()
	}
	nothing := window{src: iotest.ErrReader(nil)}
	if err := nothing.await(1); err != io.ErrNoProgress {
		t.Errorf("a stream that brings nothing ends with %v", err)
	}
}

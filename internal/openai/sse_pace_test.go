package openai

import (
	"fmt"
	"io"
	"strings"
	"testing"
)

// A stream that brings little at a time has a small buffer, and a large one again once it brings more; no event is lost.
func TestReaderFitsItsBuffer(t *testing.T) {
	t.Parallel()
	for name, event := range map[string]string{"events": "data: %d\n\n", "lines": "%d\n"} {
		source, sink := io.Pipe()
		reader := NewReader(source)
		const slow, burst = 3 * slowReads, 4000
		sizes := make(chan int, slow+3*burst)
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
			sizes <- reader.in.Size()
		}
		close(sizes)
		var seen []int
		for size := range sizes {
			if len(seen) == 0 || seen[len(seen)-1] != size {
				seen = append(seen, size)
			}
		}
		if want := []int{ReadBytes, slowBytes, ReadBytes}; next != slow+2*burst || fmt.Sprint(seen) != fmt.Sprint(want) {
			t.Errorf("%s: %d events, buffers %v, want %d and %v", name, next, seen, slow+2*burst, want)
		}
		reader.Release()
	}
}

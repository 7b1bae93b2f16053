package openai

import (
	"io"
	"sync"
)

const (
	// ReadBytes is how much of a stream that comes fast is read at once.
	ReadBytes = 16 << 10
	// slowBytes is the buffer of a stream that has not begun or comes slowly, of which a worker may have thousands.
	slowBytes = 1 << 10
	// slowReads is after how many reads of less than slowBytes a stream counts as slow again.
	slowReads = 4
	// emptyReads is after how many reads of nothing a stream counts as broken.
	emptyReads = 100
)

// window is what was read of a stream and is not used yet. Its buffer is as large as the stream is fast: [bufio.Reader] with
// 16 KB for each of thousands that bring two hundred bytes a second would hold mostly air.
type window struct {
	src     io.Reader
	buffer  []byte
	at, end int   // buffer[at:end] is unread
	err     error // of src, for when all is read
	fast    bool  // the last read took all the room that there was
	slow    int   // reads in a row of less than slowBytes
}

var (
	largeBuffers = sync.Pool{New: func() any { return new([ReadBytes]byte) }}
	smallBuffers = sync.Pool{New: func() any { return new([slowBytes]byte) }}
)

// unread are the bytes that need not be waited for. They stay where they are until the next [window.await].
func (w *window) unread() []byte { return w.buffer[w.at:w.end] }

func (w *window) skip(n int) { w.at += n }

// await blocks until n bytes are unread, which must be few, or returns why they will never be.
func (w *window) await(n int) error {
	for empty := 0; w.end-w.at < n; empty++ {
		if w.err != nil {
			return w.err
		}
		if empty == emptyReads {
			return io.ErrNoProgress
		}
		w.fit()
		read, err := w.src.Read(w.buffer[w.end:])
		w.fast = read == len(w.buffer)-w.end
		if w.slow++; read >= slowBytes {
			w.slow = 0
		}
		w.end += read
		w.err = err
	}
	return nil
}

// Read takes what is unread, then what the stream brings.
func (w *window) Read(p []byte) (n int, err error) {
	if w.at < w.end {
		n = copy(p, w.unread())
		w.skip(n)
		return n, nil
	}
	if w.err == nil {
		n, w.err = w.src.Read(p)
	}
	return n, w.err
}

// fit makes room for a read, in a buffer that fits the pace.
func (w *window) fit() {
	rest := w.unread()
	switch {
	case w.fast && len(w.buffer) != ReadBytes:
		w.move(largeBuffers.Get().(*[ReadBytes]byte)[:], rest)
	case w.buffer == nil, w.slow >= slowReads && len(w.buffer) == ReadBytes && len(rest) == 0:
		w.move(smallBuffers.Get().(*[slowBytes]byte)[:], rest)
	default:
		copy(w.buffer, rest)
	}
	w.at, w.end = 0, len(rest)
}

// move goes on in another buffer.
func (w *window) move(buffer, rest []byte) {
	copy(buffer, rest)
	w.release()
	w.buffer = buffer
}

// release gives the buffer to another stream.
func (w *window) release() {
	switch len(w.buffer) {
	case ReadBytes:
		largeBuffers.Put((*[ReadBytes]byte)(w.buffer))
	case slowBytes:
		smallBuffers.Put((*[slowBytes]byte)(w.buffer))
	}
	w.buffer = nil
}

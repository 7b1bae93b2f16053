package openai

import "bufio"

const (
	// slowBytes is the buffer of a slow stream, of which a worker may have thousands.
	slowBytes = 2 << 10
	// slowReads is after how many reads of little a stream counts as slow.
	slowReads = 4
)

// pace is how much a stream brings at a time.
type pace struct {
	read   int // since the buffer was last empty
	little int // reads of little in a row
}

// fit gives a slow stream a small buffer, and one that has grown fast a large one again. The read buffer must be empty.
func (r *Reader) fit() {
	read := r.pace.read
	r.pace.read = 0
	if read < slowBytes/2 {
		r.pace.little++
	} else {
		r.pace.little = 0
	}
	switch {
	case r.in.Size() == ReadBytes && r.pace.little == slowReads:
		r.in.Reset(nil)
		readBuffers.Put(r.in)
		r.in = bufio.NewReaderSize(r.src, slowBytes)
	case r.in.Size() != ReadBytes && r.pace.little == 0:
		r.in = readBuffers.Get().(*bufio.Reader)
		r.in.Reset(r.src)
	}
}

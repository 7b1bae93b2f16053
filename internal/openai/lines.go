package openai

import (
	"bytes"
	"errors"
	"io"
	"iter"
)

// Lines yields each line that is not blank as the data of an event, for protocols that send one JSON document a line. An
// error is terminal; what came of a line is not yielded before it, unless the input just ends there.
func (r *Reader) Lines() iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		r.skipBOM()
		for {
			line, err := r.readLine()
			if err != nil && !errors.Is(err, io.EOF) {
				yield(Event{}, err)
				return
			}
			if len(bytes.TrimSpace(line)) > 0 && !yield(Event{Data: line, More: r.hasLine(), Cut: err != nil}, nil) {
				return
			}
			if err != nil {
				return
			}
		}
	}
}

// hasLine reports whether the read buffer holds another whole line.
func (r *Reader) hasLine() bool {
	buffered := r.in.unread()
	end := bytes.LastIndexByte(buffered, '\n')
	return end > 0 && len(bytes.TrimSpace(buffered[:end])) > 0
}

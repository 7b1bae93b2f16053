package openai

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
)

// MaxEventBytes bounds the data of one server-sent event and the body of a unary answer.
const MaxEventBytes = 16 << 20

// ErrEventTooLarge ends a stream whose event is larger than [MaxEventBytes].
var ErrEventTooLarge = fmt.Errorf("server-sent event is larger than %d MiB", MaxEventBytes>>20)

// Event is one server-sent event. Its slices are valid until the loop body that received it returns.
type Event struct {
	Type []byte // the event field; empty for the default type
	ID   []byte // the last id field seen, in this event or before it
	Data []byte // the data lines, joined by newlines

	// More reports that the next event is already in the read buffer, whole.
	More bool

	// Cut reports that the stream ended inside the last line, so that Data may not be whole.
	Cut bool
}

var (
	dataField   = []byte("data:")
	blankLF     = []byte("\n\n")
	blankCRLF   = []byte("\r\n\r\n")
	doneData    = []byte("[DONE]")
	errorType   = []byte("error")
	messageType = []byte("message")
)

// Done reports whether the event is the OpenAI end mark, which proves nothing about the answer before it.
func (e *Event) Done() bool { return bytes.Equal(bytes.TrimSpace(e.Data), doneData) }

// IsError reports whether the event is named as an error.
func (e *Event) IsError() bool { return bytes.Equal(e.Type, errorType) }

// Named reports whether the event has a type of its own.
func (e *Event) Named() bool { return len(e.Type) > 0 && !bytes.Equal(e.Type, messageType) }

// Reader reads server-sent events. It is owned by one goroutine.
type Reader struct {
	in     window
	line   []byte // a line that did not fit the read buffer
	skipLF bool   // the last line ended in CR: an LF that follows belongs to it

	kind    []byte
	id      []byte
	data    []byte
	hasData bool
}

// NewReader reads events from r, which it never closes.
func NewReader(r io.Reader) *Reader { return &Reader{in: window{src: r}} }

// Release gives the reader's buffer to another. Neither the reader nor what it yielded may be used after that. It need
// not be called.
func (r *Reader) Release() {
	r.in.release()
	*r = Reader{}
}

// Sniff waits for the first byte that is not white space and returns it without consuming it. Called before
// [Reader.Events], it tells a stream from a JSON document or a page of HTML, whatever the content type claims.
func (r *Reader) Sniff() (byte, error) {
	for {
		if err := r.in.await(1); err != nil {
			return 0, err
		}
		switch first := r.in.unread()[0]; first {
		case ' ', '\t', '\r', '\n':
			r.in.skip(1)
		default:
			return first, nil
		}
	}
}

// ReadAll returns the rest of the input, at most max bytes of it.
func (r *Reader) ReadAll(max int64) ([]byte, error) { return io.ReadAll(io.LimitReader(&r.in, max)) }

// Events yields each event as soon as its blank line is there, and an event that is pending when the input ends. An
// error is terminal; a pending event is not yielded before it.
func (r *Reader) Events() iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		r.skipBOM()
		for {
			line, err := r.readLine()
			if err != nil && !errors.Is(err, io.EOF) {
				fail(yield, err)
				return
			}
			cut := err != nil && len(line) > 0
			if len(line) > 0 {
				if ferr := r.field(line); ferr != nil {
					fail(yield, ferr)
					return
				}
			}
			if (len(line) == 0 || err != nil) && !r.dispatch(cut, yield) {
				return
			}
			if err != nil {
				return
			}
		}
	}
}

// fail ends the events with an error. It stands apart because an event on the stack would be there while the next is waited
// for, of every stream.
//
//go:noinline
func fail(yield func(Event, error) bool, err error) { yield(Event{}, err) }

// hasNext reports whether the read buffer holds another whole event. Comments are none.
func (r *Reader) hasNext() bool {
	buffered := r.in.unread()
	for len(buffered) > 0 {
		end := bytes.Index(buffered, blankLF)
		if end < 0 {
			end = bytes.Index(buffered, blankCRLF)
		}
		if end < 0 {
			return false
		}
		if bytes.Contains(buffered[:end], dataField) {
			return true
		}
		buffered = buffered[end+len(blankLF):]
	}
	return false
}

// dispatch yields the pending event, if it has data, and starts the next one.
func (r *Reader) dispatch(cut bool, yield func(Event, error) bool) bool {
	more := true
	if r.hasData && len(r.data) > 0 {
		more = yield(Event{Type: r.kind, ID: r.id, Data: r.data, More: r.hasNext(), Cut: cut}, nil)
	}
	r.kind, r.data, r.hasData = r.kind[:0], r.data[:0], false
	return more
}

func (r *Reader) field(line []byte) error {
	name, value, _ := bytes.Cut(line, []byte{':'})
	value = bytes.TrimPrefix(value, []byte{' '})
	switch string(name) {
	case "error": // a field that llama.cpp made up, in builds before October 2025
		r.kind = append(r.kind[:0], errorType...)
		fallthrough
	case "data":
		if len(r.data)+len(value)+1 > MaxEventBytes {
			return ErrEventTooLarge
		}
		if r.hasData {
			r.data = append(r.data, '\n')
		}
		r.data, r.hasData = append(r.data, value...), true
	case "event":
		r.kind = append(r.kind[:0], value...)
	case "id":
		if bytes.IndexByte(value, 0) < 0 {
			r.id = append(r.id[:0], value...)
		}
	}
	return nil
}

// readLine returns the next line without its end, which is CR, LF or CRLF. The line is valid until the next call. At the
// end of the input it returns what is left together with io.EOF.
func (r *Reader) readLine() ([]byte, error) {
	r.line = r.line[:0]
	for {
		if err := r.in.await(1); err != nil {
			return r.line, err
		}
		buffered, skip := r.in.unread(), r.skipLF
		if r.skipLF = false; skip && buffered[0] == '\n' {
			r.in.skip(1)
			continue
		}
		i := lineEnd(buffered)
		if i < 0 {
			if len(r.line)+len(buffered) > MaxEventBytes {
				return nil, ErrEventTooLarge
			}
			r.line = append(r.line, buffered...)
			r.in.skip(len(buffered))
			continue
		}
		r.skipLF = buffered[i] == '\r'
		line := buffered[:i]
		if len(r.line) > 0 {
			r.line = append(r.line, line...)
			line = r.line
		}
		r.in.skip(i + 1) // which keeps the bytes where they are until the next fill
		return line, nil
	}
}

func lineEnd(b []byte) int {
	lf := bytes.IndexByte(b, '\n')
	if lf >= 0 {
		b = b[:lf]
	}
	if cr := bytes.IndexByte(b, '\r'); cr >= 0 {
		return cr
	}
	return lf
}

func (r *Reader) skipBOM() {
	const bom = "\xEF\xBB\xBF"
	if r.in.await(len(bom)) == nil && string(r.in.unread()[:len(bom)]) == bom {
		r.in.skip(len(bom))
	}
}

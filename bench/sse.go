package main

import "bytes"

// eventScanner finds the data lines of server-sent events in a body that arrives in pieces. It knows as much of the format
// as the targets use: one data line per event, comments and other fields ignored.
type eventScanner struct {
	partial []byte // the start of a line whose end has not arrived
}

// feed calls event with the data of each line that piece completes. The slice is valid during the call.
func (s *eventScanner) feed(piece []byte, event func(data []byte)) {
	for {
		end := bytes.IndexByte(piece, '\n')
		if end < 0 {
			s.partial = append(s.partial, piece...)
			return
		}
		line := piece[:end]
		if len(s.partial) > 0 {
			s.partial = append(s.partial, line...)
			line = s.partial
		}
		if data, ok := bytes.CutPrefix(bytes.TrimSuffix(line, []byte{'\r'}), []byte("data:")); ok {
			event(bytes.TrimPrefix(data, []byte{' '}))
		}
		s.partial = s.partial[:0]
		piece = piece[end+1:]
	}
}

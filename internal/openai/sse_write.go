package openai

import (
	"strconv"

	"github.com/weir-llm/weir/schemas"
)

// Heartbeat keeps a silent stream open. It ends in ONE newline: a blank line after a comment makes openai-python
// dispatch an empty event once id lines are present.
const Heartbeat = ": hb\n"

// Done is the end mark of an answer that is whole.
const Done = "data: [DONE]\n\n"

// EventBytes bounds what AppendEvent adds to a request's data.
func EventBytes(request string) int { return len("id: .\ndata: \n\n") + len(request) + 20 }

// AppendEvent appends an event with its cursor to dst, so that one buffer serves a whole stream. The data is one line.
func AppendEvent(dst []byte, cursor schemas.Cursor, data []byte) []byte {
	dst = append(dst, "id: "...)
	dst = append(dst, cursor.Request...)
	dst = append(dst, '.')
	dst = strconv.AppendUint(dst, cursor.Index, 10)
	dst = append(dst, '\n')
	return AppendData(dst, data)
}

// AppendData appends an event without a cursor.
func AppendData(dst, data []byte) []byte {
	dst = append(dst, "data: "...)
	dst = append(dst, data...)
	return append(dst, '\n', '\n')
}

// AppendError appends the in-band form of a failure. The stream is closed after it, without [Done].
func AppendError(dst []byte, e *schemas.Error) []byte { return AppendData(dst, e.Encode()) }

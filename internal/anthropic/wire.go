package anthropic

import (
	"bytes"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// Ping keeps a silent stream open. Unlike a comment it is an event that clients of the dialect know and ignore.
const Ping = "event: ping\ndata: {\"type\":\"ping\"}\n\n"

var typeFirst = []byte(`{"type":"`)

// EventName is the name of an event, which is its member type. It is empty when there is none that fits on the event line.
func EventName(data []byte) []byte {
	if rest, ok := bytes.CutPrefix(data, typeFirst); ok {
		if end := bytes.IndexAny(rest, "\"\\"); end > 0 && rest[end] == '"' {
			return rest[:end]
		}
	}
	name := []byte(gjson.GetBytes(data, "type").Str)
	if bytes.ContainsAny(name, "\r\n") {
		return nil
	}
	return name
}

// EventBytes bounds what AppendEvent adds to a request's data.
func EventBytes(request string) int { return len("id: .\nevent: \ndata: \n\n") + len(request) + 44 }

// AppendEvent appends an event with its name and its cursor to dst. Without the name clients ignore the event; the data is
// one line.
func AppendEvent(dst []byte, cursor schemas.Cursor, data []byte) []byte {
	dst = append(dst, "id: "...)
	dst = append(dst, cursor.Request...)
	dst = append(dst, '.')
	dst = strconv.AppendUint(dst, cursor.Index, 10)
	dst = append(dst, "\nevent: "...)
	dst = append(dst, EventName(data)...)
	dst = append(dst, "\ndata: "...)
	dst = append(dst, data...)
	return append(dst, '\n', '\n')
}

// AppendError appends the in-band form of a failure, after which the stream is closed.
func AppendError(dst []byte, e *schemas.Error, request string) []byte {
	dst = append(dst, "event: error\ndata: "...)
	dst = append(dst, EncodeError(e, request)...)
	return append(dst, '\n', '\n')
}

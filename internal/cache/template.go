package cache

import (
	"bytes"
	"strconv"
	"strings"
	"time"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// Copy is whose a copy of an answer is: what follows from it differs from copy to copy, and nothing else does.
type Copy struct {
	ID      string // of the answer
	Created string // unix seconds
}

// CopyFor is what an answer to a request calls itself. It follows from the request alone, so that a copy that one process
// began can be continued by another.
func CopyFor(op schemas.Op, request string, accepted time.Time) Copy {
	prefix := prefixOf(op)
	if op == schemas.OpMessages {
		prefix = "msg_"
	}
	return Copy{ID: prefix + strings.TrimPrefix(request, "req_"), Created: strconv.FormatInt(accepted.Unix(), 10)}
}

// Template is an event of an answer, or a whole unary one, with the places where a copy says its own id and time. It is read
// once for all copies.
type Template struct {
	data  []byte
	marks []mark // in order
}

type mark struct {
	start, end int
	created    bool // else the id
}

// NewTemplate reads an event of an op. It keeps data, which must not change.
func NewTemplate(op schemas.Op, data []byte) Template {
	t := Template{data: data}
	switch {
	case op == schemas.OpEmbedding:
	case op == schemas.OpMessages && bytes.Contains(data, []byte(`"message_start"`)):
		t.mark(gjson.GetBytes(data, "message.id"), gjson.String, false)
	case op == schemas.OpMessages && !bytes.Contains(data, []byte(`"role"`)): // only a whole message has both
	default:
		t.mark(gjson.GetBytes(data, "id"), gjson.String, false)
		t.mark(gjson.GetBytes(data, "created"), gjson.Number, true)
	}
	if len(t.marks) == 2 && t.marks[1].start < t.marks[0].start {
		t.marks[0], t.marks[1] = t.marks[1], t.marks[0]
	}
	return t
}

func (t *Template) mark(value gjson.Result, kind gjson.Type, created bool) {
	if value.Type != kind || value.Index == 0 || value.Raw == `""` {
		return // it does not say one, or the server leaves it empty
	}
	t.marks = append(t.marks, mark{start: value.Index, end: value.Index + len(value.Raw), created: created})
}

// Size is about how long a copy is.
func (t *Template) Size() int { return len(t.data) + 64 }

// Append appends the event as c says it. Request ids are of plain characters, so that nothing needs an escape.
func (t *Template) Append(b []byte, c Copy) []byte {
	at := 0
	for _, m := range t.marks {
		b = append(b, t.data[at:m.start]...)
		if m.created {
			b = append(b, c.Created...)
		} else {
			b = append(append(append(b, '"'), c.ID...), '"')
		}
		at = m.end
	}
	return append(b, t.data[at:]...)
}

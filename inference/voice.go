package inference

import (
	"bytes"

	"github.com/weir-llm/weir/internal/cache"
	"github.com/weir-llm/weir/schemas"
)

// voice says the events of a run as those of the request that has inherited it. A nil voice leaves them as they are.
type voice struct {
	op   schemas.Op
	copy cache.Copy
	said []byte
}

func voiceOf(heir *schemas.Work) *voice {
	return &voice{op: heir.Op, copy: cache.CopyFor(heir.Op, heir.Request.Request, heir.Accepted)}
}

// say is one event, valid until the next call.
func (v *voice) say(event []byte) []byte {
	if v == nil || len(event) == 0 {
		return event
	}
	t := cache.NewTemplate(v.op, event)
	v.said = t.Append(v.said[:0], v.copy)
	return v.said
}

// sayAll is the events of a frame.
func (v *voice) sayAll(f *schemas.Frame) []byte {
	var all [][]byte
	for _, event := range f.Events() {
		all = append(all, bytes.Clone(v.say(event)))
	}
	return bytes.Join(all, []byte{'\n'})
}

package inference

import (
	"bytes"
	"encoding/binary"
	"math/bits"
	"time"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// trail is the chain of a request as its run knows it. The deltas that the run writes are kept packed until somebody wants to
// read them: an answer lasts for minutes, thousands run at once, and a frame with one token takes some twenty bytes this way
// instead of six hundred. It is not safe for concurrent use.
type trail struct {
	chain  bus.Chain // without what is packed
	packed packed    // what was written behind it
}

// whole is the chain with every frame of it. It unpacks what is packed, once.
func (t *trail) whole() *bus.Chain {
	if t.packed.frames > 0 {
		t.chain.Frames = append(t.chain.Frames, t.packed.unpack()...)
		t.packed = packed{}
	}
	return &t.chain
}

// set replaces the trail by a chain that was read.
func (t *trail) set(chain *bus.Chain) { *t = trail{chain: *chain} }

// add adds a frame that was committed. It keeps no delta's data, which may change afterwards, but that of other frames.
func (t *trail) add(f *schemas.Frame) {
	if t.packed.add(f) {
		return
	}
	if f.Kind == schemas.KindDelta {
		kept := *f
		kept.Data = bytes.Clone(f.Data)
		f = &kept
	}
	chain := t.whole()
	chain.Frames = append(chain.Frames, f)
}

// Sequence of the last frame, 0 without any.
func (t *trail) Sequence() uint64 {
	if t.packed.frames > 0 {
		return t.packed.last.sequence
	}
	return t.chain.Sequence()
}

// Next is the index of the event to come.
func (t *trail) Next() uint64 {
	if t.packed.frames > 0 {
		return t.packed.next
	}
	return t.chain.Next()
}

// Visible reports whether a reader may have seen an event.
func (t *trail) Visible() bool { return t.Next() > 0 }

// packed holds delta frames of one attempt, one behind the other: of each its mark, relative to the one before, and of each
// event what differs from the event before, which is little more than its token.
type packed struct {
	attempt int
	writer  string
	first   uint64 // index of the first event
	next    uint64 // index of the event to come

	frames int
	size   int // of their data
	data   []byte

	last  mark
	event []byte // the last one, unless it is large
}

// mark is where a frame stands in its stream and in time.
type mark struct {
	sequence uint64
	time     int64 // in nanoseconds since 1970
}

var lineFeed = []byte{'\n'}

// maxLikeness is the largest event that the next one is compared to.
const maxLikeness = 4 << 10

// add packs a frame, or reports that it cannot.
func (p *packed) add(f *schemas.Frame) bool {
	switch {
	case f.Kind != schemas.KindDelta, f.Count == 0, f.Object != nil, len(f.Extra) > 0, bytes.Count(f.Data, lineFeed) != f.Count-1:
		return false
	case p.frames == 0:
		p.attempt, p.writer, p.first, p.next = f.Attempt, f.Writer, f.Index, f.Index
	case f.Attempt != p.attempt, f.Writer != p.writer, f.Index != p.next:
		return false
	}
	now := mark{f.Sequence, f.Time.UnixNano()}
	p.data = binary.AppendUvarint(p.data, uint64(f.Count))
	p.data = binary.AppendUvarint(p.data, now.sequence-p.last.sequence)
	p.data = binary.AppendVarint(p.data, now.time-p.last.time)
	for _, told := range [...]string{f.TokenIDs, f.Prompt, f.Usage} {
		p.data = append(binary.AppendUvarint(p.data, uint64(len(told))), told...)
	}
	rest := f.Data
	for range f.Count {
		var event []byte
		event, rest, _ = bytes.Cut(rest, lineFeed)
		p.addEvent(event)
	}
	p.frames, p.size, p.next, p.last = p.frames+1, p.size+len(f.Data), f.Next(), now
	return true
}

func (p *packed) addEvent(event []byte) {
	before := likeness(p.event, event)
	after := likenessBack(p.event[before:], event[before:])
	differs := event[before : len(event)-after]
	p.data = binary.AppendUvarint(p.data, uint64(before))
	p.data = binary.AppendUvarint(p.data, uint64(after))
	p.data = append(binary.AppendUvarint(p.data, uint64(len(differs))), differs...)
	if p.event = p.event[:0]; len(event) <= maxLikeness {
		p.event = append(p.event, event...)
	}
}

// unpack returns the frames as they were written.
func (p *packed) unpack() []*schemas.Frame {
	frames, all := make([]schemas.Frame, p.frames), make([]*schemas.Frame, p.frames)
	u := unpacker{packed: p, rest: p.data, room: make([]byte, 0, p.size), next: p.first}
	for i := range frames {
		u.frame(&frames[i])
		all[i] = &frames[i]
	}
	return all
}

// unpacker reads what packed wrote.
type unpacker struct {
	*packed
	rest  []byte
	room  []byte // for the data of all frames
	next  uint64
	now   mark
	event []byte // the last one
}

func (u *unpacker) frame(f *schemas.Frame) {
	*f = schemas.Frame{Kind: schemas.KindDelta, Attempt: u.attempt, Writer: u.writer, Index: u.next, Count: int(u.number())}
	u.now.sequence += u.number()
	since, n := binary.Varint(u.rest)
	u.rest = u.rest[n:]
	u.now.time += since
	f.Sequence, f.Time = u.now.sequence, time.Unix(0, u.now.time)
	f.TokenIDs, f.Prompt, f.Usage = string(u.text()), string(u.text()), string(u.text())
	begin := len(u.room)
	for i := range f.Count {
		if i > 0 {
			u.room = append(u.room, '\n')
		}
		u.addEvent()
	}
	f.Data = u.room[begin:len(u.room):len(u.room)]
	u.next = f.Next()
}

// addEvent puts the next event behind the others.
func (u *unpacker) addEvent() {
	before, after, differs := int(u.number()), int(u.number()), u.text()
	begin := len(u.room)
	u.room = append(u.room, u.event[:before]...)
	u.room = append(u.room, differs...)
	u.room = append(u.room, u.event[len(u.event)-after:]...)
	if u.event = u.room[begin:]; len(u.event) > maxLikeness {
		u.event = nil
	}
}

func (u *unpacker) number() uint64 {
	value, n := binary.Uvarint(u.rest)
	u.rest = u.rest[n:]
	return value
}

func (u *unpacker) text() (value []byte) {
	n := u.number()
	value, u.rest = u.rest[:n], u.rest[n:]
	return value
}

// likeness is how many bytes a and b have in common at the beginning.
func likeness(a, b []byte) (n int) {
	most := min(len(a), len(b))
	for ; n+8 <= most; n += 8 {
		if differ := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); differ != 0 {
			return n + bits.TrailingZeros64(differ)/8
		}
	}
	for n < most && a[n] == b[n] {
		n++
	}
	return n
}

// likenessBack is how many bytes a and b have in common at the end.
func likenessBack(a, b []byte) (n int) {
	most := min(len(a), len(b))
	for ; n+8 <= most; n += 8 {
		if differ := binary.LittleEndian.Uint64(a[len(a)-n-8:]) ^ binary.LittleEndian.Uint64(b[len(b)-n-8:]); differ != 0 {
			return n + bits.LeadingZeros64(differ)/8
		}
	}
	for n < most && a[len(a)-1-n] == b[len(b)-1-n] {
		n++
	}
	return n
}

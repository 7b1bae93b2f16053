package schemas

import (
	"bytes"
	"cmp"
	"fmt"
	"iter"
	"strconv"
	"strings"
	"time"
)

// Kind is what a frame does to its chain.
type Kind string

// The kinds of frame.
const (
	KindAccepted Kind = "accepted" // the request was accepted; no claim
	KindStart    Kind = "start"    // an attempt opens and claims the chain
	KindDelta    Kind = "delta"    // events
	KindEnd      Kind = "end"      // terminal: the answer is whole
	KindError    Kind = "error"    // terminal: the answer is not whole, and why
)

// Terminal reports whether nobody may write after a frame of this kind.
func (k Kind) Terminal() bool { return k == KindEnd || k == KindError }

// Mode is how an attempt goes on from what is visible.
type Mode string

// The modes of an attempt.
const (
	ModeFresh    Mode = "fresh"    // nothing is visible yet
	ModeContinue Mode = "continue" // the backend goes on from the text so far
	ModeSplice   Mode = "splice"   // the backend runs again, and what is visible is dropped
	ModeFollow   Mode = "follow"   // a router copies the answer of an equal request, event by event (docs/adr/0023)
	ModeInherit  Mode = "inherit"  // the run of an equal request that was cancelled goes on here, without another call (docs/adr/0023)
)

// Frame is one message of LLM_REPLIES. The chain of a request is its frames in stream order.
type Frame struct {
	Kind    Kind
	Attempt int    // number of start frames so far, this one included
	Writer  string // random, one per attempt
	Index   uint64 // of the first event; contiguous over the whole request
	Count   int    // events in Data

	// Data holds the events, newline-separated; or the summary of an end; or the error object.
	Data   []byte
	Object *Object // set instead of Data when the payload is in LLM_OBJECTS

	Start     *Start     // of a start frame
	BodyHash  string     // of an accepted or start frame
	Op        Op         // on every frame but a delta, when it is not chat: which dialect the events are in (docs/adr/0010)
	Summary   []byte     // of an error frame or an end with events: the encoded [Summary]
	Cache     *CacheNote // on a start or terminal frame: what the cache did, if anybody asked for it (docs/adr/0014)
	Allowance string     // on a start or terminal frame of a tenant with limits: the header Llm-Allowance
	Heir      string     // on an error frame: the request of the same tenant in whose chain the run goes on (docs/adr/0023)
	Trace     string     // traceparent, on accepted, start and terminal frames

	// Of a delta frame, where the model server tells them, so that another can go on exactly (docs/adr/0019).
	TokenIDs string // as [ParseTokenIDs] reads them
	Prompt   string // as [ParsePrompt] reads it
	Usage    string // of the answer so far, as JSON

	Extra []string // members of Llm-Frame after the fifth, from a later version

	// Known to a reader only.
	Sequence uint64    // in LLM_REPLIES
	Time     time.Time // when it was committed
}

// Start is what a start frame says of its attempt.
type Start struct {
	Mode        Mode
	Work        uint64 // LLM_WORK sequence of the item being run, of mode inherit that of another request; 0 when not a worker
	Redelivered int    // how often that item had been delivered before
	Dispatch    int
	Worker      string    // or the router, of mode follow
	Leader      string    // of mode follow: the request of the same tenant whose events are copied, each at its own index
	Accepted    time.Time // of the request; only where readers need it (docs/adr/0009)
}

// Streamed reports whether the frame holds events of a stream: a delta, or the one frame of an answer that was whole before
// it was sent (docs/adr/0014).
func (f *Frame) Streamed() bool {
	return f.Kind == KindDelta && f.Count > 0 || f.Kind == KindEnd && f.Count > 1
}

// Next is the index of the first event after the frame.
func (f *Frame) Next() uint64 { return f.Index + uint64(f.Count) }

// Same reports whether f and g are the same write: a frame is committed when the chain's last frame is the same.
func (f *Frame) Same(g *Frame) bool {
	return f.Kind == g.Kind && f.Attempt == g.Attempt && f.Writer == g.Writer && f.Index == g.Index
}

// GivenUp reports whether the frame ends an attempt without ending the request (docs/adr/0005, 0019, 0024).
func (f *Frame) GivenUp() bool { return f.Kind == KindDelta && f.Count == 0 }

// Events yields each event of the frame with its index. An event is one line of JSON; a unary end yields its response.
func (f *Frame) Events() iter.Seq2[uint64, []byte] {
	return func(yield func(uint64, []byte) bool) {
		rest := f.Data
		for i := range f.Count {
			event := rest
			if f.Count > 1 {
				event, rest, _ = bytes.Cut(rest, newline)
			}
			if !yield(f.Index+uint64(i), event) {
				return
			}
		}
	}
}

// From drops the events before index, so that a reader that resumes inside a frame sees none of them twice.
func (f *Frame) From(index uint64) {
	for f.Count > 0 && f.Index < index {
		switch f.Count {
		case 1:
			f.Data = nil
		case 2: // what is behind the last event is no part of it
			_, f.Data, _ = bytes.Cut(f.Data, newline)
			f.Data, _, _ = bytes.Cut(f.Data, newline)
		default:
			_, f.Data, _ = bytes.Cut(f.Data, newline)
		}
		f.Index++
		f.Count--
	}
}

var newline = []byte{'\n'}

// Header is the value of Llm-Frame: `<kind> <attempt> <writer> <index> <count>`.
func (f *Frame) Header() string {
	b := make([]byte, 0, 48)
	b = append(b, f.Kind...)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(f.Attempt), 10)
	b = append(b, ' ')
	b = append(b, f.Writer...)
	b = append(b, ' ')
	b = strconv.AppendUint(b, f.Index, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, int64(f.Count), 10)
	for _, extra := range f.Extra {
		b = append(append(b, ' '), extra...)
	}
	return string(b)
}

// Encode gives the message's headers; the payload is Data.
func (f *Frame) Encode() Header {
	h := make(Header, 2)
	h[HeaderFrame] = []string{f.Header()}
	set(h, HeaderObject, f.Object.String())
	if f.Kind == KindDelta {
		set(h, HeaderTokenIDs, f.TokenIDs)
		set(h, HeaderPrompt, f.Prompt)
		set(h, HeaderUsage, f.Usage)
		return h
	}
	set(h, HeaderBodyHash, f.BodyHash)
	if f.Op != OpChat {
		set(h, HeaderOp, string(f.Op))
	}
	set(h, HeaderSummary, string(f.Summary))
	set(h, HeaderCache, f.Cache.String())
	set(h, HeaderTraceParent, f.Trace)
	set(h, HeaderAllowance, f.Allowance)
	set(h, HeaderHeir, f.Heir)
	if f.Start != nil {
		set(h, HeaderVersion, strconv.Itoa(Version))
		set(h, HeaderMode, string(f.Start.Mode))
		set(h, HeaderWork, strconv.FormatUint(f.Start.Work, 10))
		if f.Start.Redelivered > 0 {
			set(h, HeaderRedelivered, strconv.Itoa(f.Start.Redelivered))
		}
		set(h, HeaderDispatch, strconv.Itoa(f.Start.Dispatch))
		set(h, HeaderWorker, f.Start.Worker)
		set(h, HeaderLeader, f.Start.Leader)
		set(h, HeaderAccepted, encodeTime(f.Start.Accepted))
	}
	return h
}

// DecodeFrame reads a message of LLM_REPLIES. The frame shares data.
func DecodeFrame(h Header, data []byte) (*Frame, error) {
	f := &Frame{Data: data}
	if err := f.decodeLine(get(h, HeaderFrame)); err != nil {
		return nil, err
	}
	var err error
	if f.Object, err = ParseObject(get(h, HeaderObject)); err != nil {
		return nil, fmt.Errorf("decode frame: %w", err)
	}
	if f.Object == nil && f.Count > 1 && f.Count > bytes.Count(data, newline)+1 {
		return nil, fmt.Errorf("decode frame: header %s %q counts more events than the payload has lines", HeaderFrame, f.Header())
	}
	if f.Kind == KindDelta {
		f.TokenIDs, f.Prompt, f.Usage = get(h, HeaderTokenIDs), get(h, HeaderPrompt), get(h, HeaderUsage)
		return f, nil
	}
	f.Cache = ParseCacheNote(get(h, HeaderCache))
	f.BodyHash, f.Trace, f.Op = get(h, HeaderBodyHash), get(h, HeaderTraceParent), Op(get(h, HeaderOp))
	f.Allowance, f.Heir = get(h, HeaderAllowance), get(h, HeaderHeir)
	if s := get(h, HeaderSummary); s != "" {
		f.Summary = []byte(s)
	}
	if f.Kind == KindStart {
		return f, f.decodeStart(h)
	}
	return f, nil
}

func (f *Frame) decodeLine(line string) error {
	words := strings.Split(line, " ")
	if len(words) < 5 {
		return fmt.Errorf("decode frame: header %s is %q: want kind, attempt, writer, index and count", HeaderFrame, line)
	}
	f.Kind, f.Writer = Kind(words[0]), words[2]
	switch f.Kind {
	case KindAccepted, KindStart, KindDelta, KindEnd, KindError:
	default:
		return fmt.Errorf("decode frame: unknown kind %q", words[0])
	}
	attempt, err1 := strconv.ParseUint(words[1], 10, 31)
	index, err2 := strconv.ParseUint(words[3], 10, 63)
	count, err3 := strconv.ParseUint(words[4], 10, 31)
	if err1 != nil || err2 != nil || err3 != nil || f.Writer == "" {
		return fmt.Errorf("decode frame: header %s is %q: attempt, index and count must be numbers", HeaderFrame, line)
	}
	f.Attempt, f.Index, f.Count = int(attempt), index, int(count)
	if len(words) > 5 {
		f.Extra = words[5:]
	}
	return nil
}

func (f *Frame) decodeStart(h Header) error {
	work, err1 := strconv.ParseUint(get(h, HeaderWork), 10, 64)
	dispatch, err2 := strconv.Atoi(get(h, HeaderDispatch))
	if err1 != nil || err2 != nil {
		return fmt.Errorf("decode start frame: %s %q or %s %q is not a number", HeaderWork, get(h, HeaderWork), HeaderDispatch, get(h, HeaderDispatch))
	}
	redelivered, err := strconv.ParseUint(cmp.Or(get(h, HeaderRedelivered), "0"), 10, 31)
	if err != nil {
		return fmt.Errorf("decode start frame: %s: %w", HeaderRedelivered, err)
	}
	accepted, err := ParseDeadline(get(h, HeaderAccepted))
	if err != nil {
		return fmt.Errorf("decode start frame: %w", err)
	}
	f.Start = &Start{Mode: Mode(get(h, HeaderMode)), Work: work, Redelivered: int(redelivered), Dispatch: dispatch, Worker: get(h, HeaderWorker), Leader: get(h, HeaderLeader), Accepted: accepted}
	return nil
}

// Cursor is the position of an event in a stream, the SSE id `<request>.<index>`.
type Cursor struct {
	Request string
	Index   uint64
}

// String is the SSE id.
func (c Cursor) String() string { return c.Request + "." + strconv.FormatUint(c.Index, 10) }

// ParseCursor reads an SSE id, as a client sends it back in Last-Event-ID.
func ParseCursor(s string) (Cursor, error) {
	request, index, ok := strings.Cut(s, ".")
	n, err := strconv.ParseUint(index, 10, 63)
	if !ok || err != nil || ValidateRequestID(request) != nil {
		return Cursor{}, Errorf(CodeInvalidValue, "cursor %q is not <request>.<index>: send back the id of the last event you saw", s)
	}
	return Cursor{Request: request, Index: n}, nil
}

// After is the index of the event that follows the one of the request which an SSE id names.
func After(request, id string) (next uint64, err error) {
	cursor, err := ParseCursor(id)
	if err != nil {
		return 0, err
	}
	if cursor.Request != request {
		return 0, Errorf(CodeInvalidValue, "the cursor belongs to another request: send back the id of the last event of this one")
	}
	return cursor.Index + 1, nil
}

// StartingAfter is After for a cursor that is an index or an SSE id.
func StartingAfter(request, cursor string) (next uint64, err error) {
	if strings.Contains(cursor, ".") {
		return After(request, cursor)
	}
	index, err := strconv.ParseUint(cursor, 10, 63)
	if err != nil {
		return 0, Errorf(CodeInvalidValue, "the cursor is %.100q: give the index or the id of the last event you saw", cursor)
	}
	return index + 1, nil
}

package responses

import (
	"fmt"
	"math"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// Where a reader begins.
const (
	FromStart int64 = -1            // before the first event
	Silent    int64 = math.MaxInt64 // behind the last: no event is written, only the response is followed
)

// Status of a response.
const (
	statusQueued     = "queued"
	statusInProgress = "in_progress"
	statusCompleted  = "completed"
	statusIncomplete = "incomplete"
	statusFailed     = "failed"
	statusCancelled  = "cancelled"
)

// Player turns the frames of one request, from its first on, into the events of its response. The events depend on the
// chunks and the ending alone, not on how chunks are spread over frames and attempts. It is owned by one goroutine.
type Player struct {
	request *Request
	id      string // of the request
	after   int64  // the last event that is not written

	// Of the event that is being written.
	out     []byte
	writing bool
	next    int64 // sequence number

	created int64 // unix seconds; 0 until the first frame
	opened  bool  // response.created is out
	started bool  // response.in_progress is out
	status  string
	failure *schemas.Error
	finish  string // the finish_reason
	usage   string // raw JSON of a chunk

	items   []*item
	text    *item         // the message or reasoning that is open, if one is
	calls   map[int]*item // the last tool call at each place among the chat's
	running []*item       // the tool calls that are open
	chunk   openai.Chunk
}

// NewPlayer follows the response to a request. Events with a sequence number up to after are not written.
func NewPlayer(id string, r *Request, after int64) *Player {
	return &Player{request: r, id: id, after: after, status: statusQueued}
}

// Next is the sequence number of the event to come.
func (p *Player) Next() int64 { return p.next }

// Append writes the events that follow from the next frame to dst, as server-sent events. An error says that the frame
// holds something other than chunks.
func (p *Player) Append(dst []byte, f *schemas.Frame) ([]byte, error) {
	p.out = dst
	err := p.frame(f)
	dst, p.out = p.out, nil
	return dst, err
}

func (p *Player) frame(f *schemas.Frame) error {
	p.Open(f)
	if f.Kind != schemas.KindAccepted {
		p.start()
	}
	for index, event := range f.Events() {
		if err := p.chunk.Peek(event); err != nil {
			return fmt.Errorf("event %d of request %s is no chunk: %w", index, p.id, err)
		}
		p.take(&p.chunk)
	}
	switch f.Kind {
	case schemas.KindEnd:
		p.end()
	case schemas.KindError:
		e, err := schemas.DecodeError(f.Data)
		if err != nil {
			e = schemas.AsError(err)
		}
		p.fail(e)
	}
	return nil
}

// Open follows the first frame no further than that the response exists, with the time of its acceptance.
func (p *Player) Open(f *schemas.Frame) {
	if p.opened {
		return
	}
	p.opened = true
	created := f.Time
	if f.Start != nil && !f.Start.Accepted.IsZero() {
		created = f.Start.Accepted
	}
	p.created = created.Unix()
	if p.request.Background {
		p.lifecycle("response.created")
		p.lifecycle("response.queued")
		return
	}
	p.status = statusInProgress
	p.lifecycle("response.created")
}

// start tells that the response is in progress. One that ended while it was queued goes through it too, so that the
// numbers of the events do not depend on what the log remembers of attempts.
func (p *Player) start() {
	if p.started {
		return
	}
	p.started, p.status = true, statusInProgress
	p.lifecycle("response.in_progress")
}

// take adds a chunk. A response has one answer, so only the first choice counts.
func (p *Player) take(c *openai.Chunk) {
	if c.Usage != "" {
		p.usage = c.Usage
	}
	for i := range c.Choices {
		if o := &c.Choices[i]; o.Index == 0 {
			p.choice(o)
		}
	}
}

func (p *Player) choice(o *openai.Choice) {
	if o.Reasoning != "" {
		kind := partReasoning
		if p.request.summary {
			kind = partSummary
		}
		p.say(kind, o.Reasoning, "")
	}
	if o.Content != "" {
		p.say(partText, o.Content, o.LogProbs)
	}
	if o.Refusal != "" {
		p.say(partRefusal, o.Refusal, "")
	}
	if o.ToolCalls != "" {
		gjson.Parse(o.ToolCalls).ForEach(func(position, call gjson.Result) bool {
			p.call(int(position.Num), call)
			return true
		})
	}
	if o.Finish != "" {
		p.finish = o.Finish
		p.closeAll()
	}
}

// incomplete is why an answer is not whole although it ended, or empty.
func (p *Player) incomplete() string {
	switch p.finish {
	case "length":
		return "max_output_tokens"
	case "content_filter":
		return "content_filter"
	}
	return ""
}

// end finishes the response.
func (p *Player) end() {
	p.closeAll()
	if p.incomplete() != "" {
		p.status = statusIncomplete
		p.lifecycle("response.incomplete")
		return
	}
	p.status = statusCompleted
	p.lifecycle("response.completed")
}

// fail ends a response that did not get to its end. What it said so far stays part of it. There is no event of its own for
// one that was cancelled: its status tells.
func (p *Player) fail(e *schemas.Error) {
	p.status, p.failure = statusFailed, e
	if e.Code == schemas.CodeCancelled {
		p.status, p.failure = statusCancelled, nil
	}
	for _, it := range p.items {
		if !it.closed {
			it.status = statusIncomplete
		}
	}
	p.lifecycle("response.failed")
}

// AppendError writes the event of a failure that is not the response's own, such as a log that cannot be read. The stream
// is closed after it, and the response may go on. The event has no number of its own, but that of the one before it, so
// that a reader who comes back behind the last number it saw misses nothing.
func (p *Player) AppendError(dst []byte, e *schemas.Error) []byte {
	dst = append(dst, "event: error\ndata: {\"type\":\"error\",\"sequence_number\":"...)
	dst = strconv.AppendInt(dst, max(p.next-1, 0), 10)
	dst = appendString(append(dst, `,"code":`...), e.Code)
	dst = appendString(append(dst, `,"message":`...), e.Message)
	dst = append(dst, `,"param":`...)
	if e.Param == "" {
		dst = append(dst, "null"...)
	} else {
		dst = appendString(dst, e.Param)
	}
	return append(dst, "}\n\n"...)
}

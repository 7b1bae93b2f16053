package schemas

import (
	"encoding/json"
	"fmt"
	"strconv"
	"time"
)

// Status is how a request ended.
type Status string

// The endings.
const (
	StatusCompleted Status = "completed" // the answer is whole
	StatusFailed    Status = "failed"    // the model or the pipeline failed
	StatusCancelled Status = "cancelled" // somebody asked for it
	StatusExpired   Status = "expired"   // the deadline passed
	StatusRejected  Status = "rejected"  // it could never run
	StatusDeleted   Status = "deleted"   // erased; a tombstone without payloads
)

// StatusOf is the ending that an error stands for.
func StatusOf(e *Error) Status {
	switch e.Code {
	case CodeCancelled:
		return StatusCancelled
	case CodeDeadline:
		return StatusExpired
	case CodeInvalidJSON, CodeMissingParameter, CodeInvalidValue, CodeModelNotFound, CodeNotCached, CodeModelNotAllowed,
		CodeRequestTooLarge, CodeUnsupported, CodeRateLimit, CodeQuota, CodeSlowDown, CodeOverloaded:
		return StatusRejected
	}
	return StatusFailed
}

// Usage is the OpenAI usage object.
type Usage struct {
	PromptTokens     int64
	CompletionTokens int64
	TotalTokens      int64
	PromptDetails    json.RawMessage
	OutputDetails    json.RawMessage
	Estimated        bool // counted here from what came, because the model server did not tell

	Extra Extra // vendors add members of their own, such as a cost
}

func (u *Usage) extra() *Extra { return &u.Extra }

func (u *Usage) members(m *members) {
	m.count("prompt_tokens", &u.PromptTokens)
	m.count("completion_tokens", &u.CompletionTokens)
	m.count("total_tokens", &u.TotalTokens)
	m.raw("prompt_tokens_details", &u.PromptDetails)
	m.raw("completion_tokens_details", &u.OutputDetails)
	m.flag("estimated", &u.Estimated)
}

// MarshalJSON writes the object with its unknown members.
func (u Usage) MarshalJSON() ([]byte, error) { return appendRecord(nil, &u), nil }

// UnmarshalJSON keeps unknown members. The raw ones share data.
func (u *Usage) UnmarshalJSON(data []byte) error { return decodeRecord(data, u) }

// TryMode is why a call of a backend was made.
type TryMode string

// The modes. The first call of an attempt has none.
const (
	TryRetry    TryMode = "retry"    // of a backend that was called before
	TryFailover TryMode = "failover" // of another backend of the model
	TryFallback TryMode = "fallback" // of another model
	TryHedge    TryMode = "hedge"    // beside a call whose first token is late
)

// Try is one call of a backend.
type Try struct {
	Attempt      int
	Backend      string
	Model        string // when it is a fallback of the one asked for
	Mode         TryMode
	Started      time.Time
	FirstTokenMS float64
	DurationMS   float64
	Outcome      Code // empty: it succeeded
	Cause        string
	HTTPStatus   int
	Usage        *Usage // what the call took, as far as it is known
	Cost         *Cost  // of that, by the price table

	Extra Extra
}

func (t *Try) extra() *Extra { return &t.Extra }

func (t *Try) members(m *members) {
	m.number("attempt", &t.Attempt, always)
	m.text("backend", &t.Backend, always)
	m.text("model", &t.Model, optional)
	m.text("mode", (*string)(&t.Mode), optional)
	m.time("started", &t.Started, always)
	m.milliseconds("first_token_ms", &t.FirstTokenMS, optional)
	m.milliseconds("duration_ms", &t.DurationMS, always)
	m.text("outcome", (*string)(&t.Outcome), optional)
	m.text("cause", &t.Cause, optional)
	m.number("http_status", &t.HTTPStatus, optional)
	m.usage("usage", &t.Usage)
	m.cost("cost", &t.Cost)
}

// Summary is the payload of an end frame: how the answer came about. With the chain and the request it is all that is
// needed to write the result, so that whoever finds a finished chain can finish the request.
type Summary struct {
	Status        Status
	FinishReasons []string // by choice
	Usage         *Usage
	Cost          *Cost // by the price table; nil when the model has no price or the usage is not known
	Attempts      int
	FirstTokenMS  float64
	DurationMS    float64
	Model         string // the model that answered, when it differs
	CancelledBy   CancelledBy
	Malformed     int // events of the model server that could not be read and were left out
	Tries         []Try

	Extra Extra
}

// Encode writes the summary as one line of JSON.
func (s *Summary) Encode() []byte { return appendRecord(make([]byte, 0, summarySize), s) }

const summarySize = 512

func (s *Summary) extra() *Extra { return &s.Extra }

func (s *Summary) members(m *members) {
	m.text("status", (*string)(&s.Status), always)
	m.texts("finish_reasons", &s.FinishReasons)
	m.usage("usage", &s.Usage)
	m.cost("cost", &s.Cost)
	m.number("attempts", &s.Attempts, always)
	m.milliseconds("ttft_ms", &s.FirstTokenMS, optional)
	m.milliseconds("duration_ms", &s.DurationMS, optional)
	m.text("model", &s.Model, optional)
	m.text("cancelled_by", (*string)(&s.CancelledBy), optional)
	m.number("malformed_events", &s.Malformed, optional)
	m.tries("tries", &s.Tries)
}

// DecodeSummary reads what [Summary.Encode] wrote, of any version.
func DecodeSummary(data []byte) (*Summary, error) {
	s := &Summary{}
	if err := decodeRecord(data, s); err != nil {
		return nil, fmt.Errorf("decode summary: %w", err)
	}
	return s, nil
}

// Result is the one final record of a request, in LLM_RESULTS and in the database.
type Result struct {
	V         int
	Tenant    string
	RequestID string
	Model     string
	Op        Op

	Accepted time.Time
	Created  time.Time // of op responses: when the chain began with an accepted frame (docs/adr/0009)
	Started  time.Time // the first attempt
	Finished time.Time // when the terminal frame was committed

	Status        Status
	AnsweredBy    string          // the model that answered, when it is another than Model
	Error         json.RawMessage // the OpenAI error object
	FinishReasons []string
	Usage         *Usage
	Cost          *Cost // by the price table; nil when the model has no price or the usage is not known
	Attempts      int
	FirstTokenMS  float64
	DurationMS    float64
	CancelledBy   CancelledBy // who ended it before its time
	Malformed     int         // events of the model server that could not be read and were left out
	Tries         []Try

	Priority Priority
	Dispatch int
	Worker   string
	Cache    CacheStatus // empty: nobody asked for the cache
	CacheAge int         // seconds, of a hit
	CacheKey string      // of the entry that is, or was to be, the answer

	BodyHash   string
	Request    json.RawMessage // the body, when it is JSON
	RequestRaw []byte          // the body, when it is not
	Response   json.RawMessage // a unary response, or the stream put together
	Events     *EventLog

	// Charge is of a tenant with limits. It is a header of the message, not a member of the record.
	Charge *Charge

	Extra Extra
}

// EventLog is every event of a request with the frame structure it was committed in, compressed.
type EventLog struct {
	Encoding string // zstd
	Count    int
	Frames   []FrameMark
	Data     []byte // the events, newline-separated

	Extra Extra
}

func (l *EventLog) extra() *Extra { return &l.Extra }

func (l *EventLog) members(m *members) {
	m.text("encoding", &l.Encoding, always)
	m.number("count", &l.Count, always)
	m.marks("frames", &l.Frames)
	m.bytes("data", &l.Data, always)
}

// FrameMark is one delta frame: how many events it held and when it was committed, relative to acceptance.
type FrameMark struct {
	Count   int   `json:"n"`
	AfterMS int64 `json:"t"`
	Attempt int   `json:"a"`
}

func appendFrameMark(b []byte, m *FrameMark) []byte {
	b = strconv.AppendInt(append(b, `{"n":`...), int64(m.Count), 10)
	b = strconv.AppendInt(append(b, `,"t":`...), m.AfterMS, 10)
	b = strconv.AppendInt(append(b, `,"a":`...), int64(m.Attempt), 10)
	return append(b, '}')
}

// Identity of the request.
func (r *Result) Identity() Identity { return Identity{Tenant: r.Tenant, Request: r.RequestID} }

// SetRequest stores the request body.
func (r *Result) SetRequest(body []byte) {
	r.BodyHash = BodyHash(body)
	if ValidMember(body) {
		r.Request = body
	} else {
		r.RequestRaw = body
	}
}

// Encode writes the record as JSON.
func (r *Result) Encode() []byte {
	return appendRecord(make([]byte, 0, metadataSize+r.payloadSize()), r)
}

const metadataSize = 768

func (r *Result) extra() *Extra { return &r.Extra }

func (r *Result) members(m *members) {
	r.metadataMembers(m)
	r.payloadMembers(m)
}

func (r *Result) metadataMembers(m *members) {
	m.number("v", &r.V, always)
	m.text("tenant", &r.Tenant, always)
	m.text("request_id", &r.RequestID, always)
	m.text("model", &r.Model, always)
	m.text("op", (*string)(&r.Op), always)
	m.time("accepted", &r.Accepted, always)
	m.time("created", &r.Created, optional)
	m.time("started", &r.Started, optional)
	m.time("finished", &r.Finished, always)
	m.text("status", (*string)(&r.Status), always)
	m.text("answered_by", &r.AnsweredBy, optional)
	m.raw("error", &r.Error)
	m.texts("finish_reasons", &r.FinishReasons)
	m.usage("usage", &r.Usage)
	m.cost("cost", &r.Cost)
	m.number("attempts", &r.Attempts, always)
	m.milliseconds("ttft_ms", &r.FirstTokenMS, optional)
	m.milliseconds("duration_ms", &r.DurationMS, optional)
	m.text("cancelled_by", (*string)(&r.CancelledBy), optional)
	m.number("malformed_events", &r.Malformed, optional)
	m.tries("tries", &r.Tries)
	m.text("priority", (*string)(&r.Priority), optional)
	m.number("dispatch", &r.Dispatch, optional)
	m.text("worker", &r.Worker, optional)
	m.text("cache", (*string)(&r.Cache), optional)
	m.number("cache_age", &r.CacheAge, optional)
	m.text("cache_key", &r.CacheKey, optional)
	m.text("body_hash", &r.BodyHash, optional)
}

func (r *Result) payloadMembers(m *members) {
	m.raw("request", &r.Request)
	m.bytes("request_raw", &r.RequestRaw, optional)
	m.raw("response", &r.Response)
	m.events("events", &r.Events)
}

// metadata is the part of a result that tells what it was and how it went.
type metadata struct{ *Result }

func (d metadata) members(m *members) { d.metadataMembers(m) }

func (d metadata) extra() *Extra { return new(Extra) }

// payload is the part of a result that holds what was said. What a later version added belongs to it, because nobody
// here knows what it holds.
type payload struct{ *Result }

func (p payload) members(m *members) { p.payloadMembers(m) }

// AppendMetadata writes all but the payload to b as JSON, so that a store can keep them apart. [DecodeResult] reads it.
func (r *Result) AppendMetadata(b []byte) []byte { return appendRecord(b, metadata{r}) }

// AppendPayload writes the request, the response and the events to b as JSON.
func (r *Result) AppendPayload(b []byte) []byte { return appendRecord(b, payload{r}) }

// DecodePayload reads what [Result.AppendPayload] wrote into r, which shares data.
func (r *Result) DecodePayload(data []byte) error {
	if err := decodeRecord(data, payload{r}); err != nil {
		return fmt.Errorf("decode payload: %w", err)
	}
	return nil
}

func (r *Result) payloadSize() int {
	size := 128 + len(r.Request) + len(r.Response) + 2*len(r.RequestRaw)
	if r.Events != nil {
		size += 2*len(r.Events.Data) + 24*len(r.Events.Frames)
	}
	return size
}

// DecodeResult reads what [Result.Encode] wrote, of any version.
func DecodeResult(data []byte) (*Result, error) {
	r := &Result{}
	if err := decodeRecord(data, r); err != nil {
		return nil, fmt.Errorf("decode result: %w", err)
	}
	if err := r.Identity().Validate(); err != nil {
		return nil, fmt.Errorf("decode result: %w", err)
	}
	return r, nil
}

package schemas

import (
	"encoding/json"
	"fmt"
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
	case CodeInvalidJSON, CodeMissingParameter, CodeInvalidValue, CodeModelNotFound, CodeModelNotAllowed,
		CodeRequestTooLarge, CodeUnsupported, CodeRateLimit, CodeQuota, CodeSlowDown, CodeOverloaded:
		return StatusRejected
	}
	return StatusFailed
}

// Usage is the OpenAI usage object.
type Usage struct {
	PromptTokens     int64           `json:"prompt_tokens"`
	CompletionTokens int64           `json:"completion_tokens"`
	TotalTokens      int64           `json:"total_tokens"`
	PromptDetails    json.RawMessage `json:"prompt_tokens_details,omitempty"`
	OutputDetails    json.RawMessage `json:"completion_tokens_details,omitempty"`

	Extra Extra `json:"-"` // vendors add members of their own, such as a cost
}

type usage Usage // without methods

// MarshalJSON writes the object with its unknown members.
func (u Usage) MarshalJSON() ([]byte, error) { return encodeKeeping(usage(u), u.Extra), nil }

// UnmarshalJSON keeps unknown members.
func (u *Usage) UnmarshalJSON(data []byte) error { return decodeKeeping(data, (*usage)(u), &u.Extra) }

// Try is one call of a backend.
type Try struct {
	Attempt      int       `json:"attempt"`
	Backend      string    `json:"backend"`
	Started      time.Time `json:"started"`
	FirstTokenMS float64   `json:"first_token_ms,omitzero"`
	DurationMS   float64   `json:"duration_ms"`
	Outcome      Code      `json:"outcome,omitempty"` // empty: it succeeded
	Cause        string    `json:"cause,omitempty"`
	HTTPStatus   int       `json:"http_status,omitempty"`

	Extra Extra `json:"-"`
}

type try Try // without methods

// MarshalJSON writes the object with its unknown members.
func (t Try) MarshalJSON() ([]byte, error) { return encodeKeeping(try(t), t.Extra), nil }

// UnmarshalJSON keeps unknown members.
func (t *Try) UnmarshalJSON(data []byte) error { return decodeKeeping(data, (*try)(t), &t.Extra) }

// Summary is the payload of an end frame: how the answer came about. With the chain and the request it is all that is
// needed to write the result, so that whoever finds a finished chain can finish the request.
type Summary struct {
	Status        Status   `json:"status"`
	FinishReasons []string `json:"finish_reasons,omitempty"` // by choice
	Usage         *Usage   `json:"usage,omitempty"`
	Attempts      int      `json:"attempts"`
	FirstTokenMS  float64  `json:"ttft_ms,omitzero"`
	DurationMS    float64  `json:"duration_ms,omitzero"`
	Model         string   `json:"model,omitempty"` // the model that answered, when it differs
	Tries         []Try    `json:"tries,omitempty"`

	Extra Extra `json:"-"`
}

// Encode writes the summary as one line of JSON.
func (s *Summary) Encode() []byte { return encodeKeeping(s, s.Extra) }

// DecodeSummary reads what [Summary.Encode] wrote, of any version.
func DecodeSummary(data []byte) (*Summary, error) {
	s := &Summary{}
	if err := decodeKeeping(data, s, &s.Extra); err != nil {
		return nil, fmt.Errorf("decode summary: %w", err)
	}
	return s, nil
}

// Result is the one final record of a request, in LLM_RESULTS and in the database.
type Result struct {
	V         int    `json:"v"`
	Tenant    string `json:"tenant"`
	RequestID string `json:"request_id"`
	Model     string `json:"model"`
	Op        Op     `json:"op"`

	Accepted time.Time `json:"accepted"`
	Started  time.Time `json:"started,omitzero"` // the first attempt
	Finished time.Time `json:"finished"`         // when the terminal frame was committed

	Status        Status          `json:"status"`
	Error         json.RawMessage `json:"error,omitempty"` // the OpenAI error object
	FinishReasons []string        `json:"finish_reasons,omitempty"`
	Usage         *Usage          `json:"usage,omitempty"`
	Attempts      int             `json:"attempts"`
	FirstTokenMS  float64         `json:"ttft_ms,omitzero"`
	DurationMS    float64         `json:"duration_ms,omitzero"`
	Tries         []Try           `json:"tries,omitempty"`

	Priority Priority `json:"priority,omitempty"`
	Dispatch int      `json:"dispatch,omitempty"`
	Worker   string   `json:"worker,omitempty"`
	Cache    string   `json:"cache,omitempty"`

	BodyHash   string          `json:"body_hash,omitempty"`
	Request    json.RawMessage `json:"request,omitempty"`     // the body, when it is JSON
	RequestRaw []byte          `json:"request_raw,omitempty"` // the body, when it is not
	Response   json.RawMessage `json:"response,omitempty"`    // a unary response, or the stream put together
	Events     *EventLog       `json:"events,omitempty"`

	Extra Extra `json:"-"`
}

// EventLog is every event of a request with the frame structure it was committed in, compressed.
type EventLog struct {
	Encoding string      `json:"encoding"` // zstd
	Count    int         `json:"count"`
	Frames   []FrameMark `json:"frames"`
	Data     []byte      `json:"data"` // the events, newline-separated
}

// FrameMark is one delta frame: how many events it held and when it was committed, relative to acceptance.
type FrameMark struct {
	Count   int   `json:"n"`
	AfterMS int64 `json:"t"`
	Attempt int   `json:"a"`
}

// Identity of the request.
func (r *Result) Identity() Identity { return Identity{Tenant: r.Tenant, Request: r.RequestID} }

// SetRequest stores the request body.
func (r *Result) SetRequest(body []byte) {
	r.BodyHash = BodyHash(body)
	if json.Valid(body) {
		r.Request = body
	} else {
		r.RequestRaw = body
	}
}

// Encode writes the record as JSON.
func (r *Result) Encode() []byte { return encodeKeeping(r, r.Extra) }

// DecodeResult reads what [Result.Encode] wrote, of any version.
func DecodeResult(data []byte) (*Result, error) {
	r := &Result{}
	if err := decodeKeeping(data, r, &r.Extra); err != nil {
		return nil, fmt.Errorf("decode result: %w", err)
	}
	if err := r.Identity().Validate(); err != nil {
		return nil, fmt.Errorf("decode result: %w", err)
	}
	return r, nil
}

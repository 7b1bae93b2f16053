package schemas

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// Limits of a request's life.
const (
	DefaultDeadline = 10 * time.Minute // after acceptance, when the caller names none
	MaxRunTime      = time.Hour        // a request never runs longer, well inside the age of LLM_REPLIES
)

// InlineBytes is the largest body or frame payload that travels in a message; a larger one goes to LLM_OBJECTS.
const InlineBytes = 256 << 10

// MaxBodyBytes is the largest request body.
const MaxBodyBytes = 10 << 20

// Op is what a request asks for.
type Op string

// The operations.
const (
	OpChat       Op = "chat"
	OpCompletion Op = "completion"
	OpEmbedding  Op = "embedding"
	OpMessages   Op = "messages"
	OpResponses  Op = "responses"

	// OpCountTokens asks how many tokens a messages request has (docs/adr/0010).
	OpCountTokens Op = "count_tokens"
)

// Priority is the class a request is queued in.
type Priority string

// The priority classes.
const (
	PriorityInteractive Priority = "interactive"
	PriorityNormal      Priority = "normal"
	PriorityBatch       Priority = "batch"
)

// OnDisconnect says what becomes of a request whose HTTP caller leaves.
type OnDisconnect string

// The choices of Llm-On-Disconnect.
const (
	DisconnectCancel   OnDisconnect = "cancel"
	DisconnectContinue OnDisconnect = "continue"
)

// Request is a message in LLM_REQUESTS. The body is an OpenAI body, and its model is the truth.
type Request struct {
	Identity
	ModelToken string    // from the subject
	Op         Op        // default chat
	Deadline   time.Time // zero: DefaultDeadline after acceptance
	Priority   Priority  // default normal
	Header     Header    // the caller's RequestHeaders; of a decoded request those but id, op and deadline, and nil when there are none
	Body       []byte    // nil when Object is set
	Object     *Object
}

// Encode gives the message's headers; the payload is the body.
func (r *Request) Encode() Header {
	h := passed(r.Header)
	set(h, HeaderRequestID, r.Request)
	set(h, HeaderOp, string(r.Op))
	if r.Priority != PriorityNormal {
		set(h, HeaderPriority, string(r.Priority))
	}
	set(h, HeaderDeadline, encodeTime(r.Deadline))
	set(h, HeaderObject, r.Object.String())
	return h
}

// DecodeRequest reads a message stored in LLM_REQUESTS under subject with the given stream sequence. A request without an
// id gets [SequenceID]. When the headers are wrong, the Request still holds the identity if there is one to answer to,
// and the error is an [Error].
func DecodeRequest(subject string, sequence uint64, h Header, body []byte) (*Request, error) {
	tenant, token, ok := ParseQueueSubject(subject)
	if !ok {
		return nil, Errorf(CodeInternal, "subject %q is not that of a stored request", subject)
	}
	r := &Request{
		Identity:   Identity{Tenant: tenant, Request: get(h, HeaderRequestID)},
		ModelToken: token, Op: Op(get(h, HeaderOp)), Priority: Priority(get(h, HeaderPriority)),
		Header: otherHeaders(h), Body: body,
	}
	if err := ValidateTenant(tenant); err != nil {
		return nil, err
	}
	if r.Request == "" {
		r.Request = SequenceID(sequence)
	} else if err := ValidateCallerID(r.Request); err != nil {
		r.Request = SequenceID(sequence)
		return r, err
	}
	return r, r.decodeHeaders(h)
}

func (r *Request) decodeHeaders(h Header) (err error) {
	if r.Op == "" {
		r.Op = OpChat
	}
	if r.Priority == "" {
		r.Priority = PriorityNormal
	}
	if _, err := DecodeModel(r.ModelToken); err != nil {
		return err
	}
	if r.Deadline, err = ParseDeadline(get(h, HeaderDeadline)); err != nil {
		return err
	}
	if r.Object, err = ParseObject(get(h, HeaderObject)); err != nil {
		return err
	}
	if r.Object != nil && !r.Object.BelongsTo(r.Identity) {
		return Errorf(CodeInvalidValue, "%s names an object of another request", HeaderObject)
	}
	if r.Object != nil && r.Object.Size > MaxBodyBytes {
		return Errorf(CodeRequestTooLarge, "the request body has %d bytes, more than %d: send less, or reference images by URL", r.Object.Size, MaxBodyBytes)
	}
	return ValidateRequestHeaders(h)
}

// ValidateRequestHeaders checks the values of the headers a caller may send.
func ValidateRequestHeaders(h Header) error {
	switch v := Op(get(h, HeaderOp)); v {
	case "", OpChat, OpCompletion, OpEmbedding, OpMessages, OpResponses, OpCountTokens:
	default:
		return badHeader(HeaderOp, string(v), "chat, completion, embedding, messages, responses or count_tokens")
	}
	switch v := Priority(get(h, HeaderPriority)); v {
	case "", PriorityInteractive, PriorityNormal, PriorityBatch:
	default:
		return badHeader(HeaderPriority, string(v), "interactive, normal or batch")
	}
	switch v := OnDisconnect(get(h, HeaderOnDisconnect)); v {
	case "", DisconnectCancel, DisconnectContinue:
	default:
		return badHeader(HeaderOnDisconnect, string(v), "cancel or continue")
	}
	if v := get(h, HeaderCoalesce); v != "" && v != CoalesceOff {
		return badHeader(HeaderCoalesce, v, "off, or no such header")
	}
	if _, err := ParseCacheDirective(h); err != nil {
		return err
	}
	_, err := ParseDeadline(get(h, HeaderDeadline))
	return err
}

// CoalesceOff is the value of Llm-Coalesce: the request shares no run with another.
const CoalesceOff = "off"

// ParseDeadline reads Llm-Deadline, unix milliseconds; the empty string is the zero time.
func ParseDeadline(s string) (time.Time, error) {
	if s == "" {
		return time.Time{}, nil
	}
	ms, err := strconv.ParseInt(s, 10, 64)
	if err != nil || ms <= 0 {
		return time.Time{}, badHeader(HeaderDeadline, s, "a time in unix milliseconds")
	}
	return time.UnixMilli(ms), nil
}

const bodyHashDigits = 32

// BodyHash identifies a request body: the first 16 bytes of its SHA-256, in hex.
func BodyHash(body []byte) string {
	sum := sha256.Sum256(body)
	return hex.EncodeToString(sum[:bodyHashDigits/2])
}

// BodyHash identifies the request's body, also when that is an object.
func (r *Request) BodyHash() string {
	if r.Object != nil {
		return r.Object.Digest[:min(len(r.Object.Digest), bodyHashDigits)]
	}
	return BodyHash(r.Body)
}

// passed copies the headers that travel with a request from door to worker.
func passed(h Header) Header {
	out := make(Header, 4)
	for key, v := range h {
		if travels(key, v) {
			out[key] = v[:1:1]
		}
	}
	return out
}

// otherHeaders copies all of them but id, op and deadline, which have fields. Most requests have no other, and then it is nil.
func otherHeaders(h Header) (out Header) {
	for key, v := range h {
		switch key {
		case HeaderRequestID, HeaderOp, HeaderDeadline:
			continue
		}
		if !travels(key, v) {
			continue
		}
		if out == nil {
			out = make(Header, 4)
		}
		out[key] = v[:1:1]
	}
	return out
}

func travels(key string, v []string) bool { return isRequestHeader(key) && len(v) > 0 && v[0] != "" }

func encodeTime(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return strconv.FormatInt(t.UnixMilli(), 10)
}

func badHeader(name, value, want string) *Error {
	return Errorf(CodeInvalidValue, "header %s is %q: use %s", name, value, want)
}

// Object points to a body in LLM_OBJECTS.
type Object struct {
	Name   string // <tenant>/<request>/<writer>/<n>
	Size   int64
	Digest string // SHA-256 in hex
}

// BelongsTo reports whether the object is one of the request's own.
func (o *Object) BelongsTo(id Identity) bool {
	prefix := id.String() + "/"
	return len(o.Name) > len(prefix) && strings.HasPrefix(o.Name, prefix)
}

// String is the value of Llm-Object: name, size and digest. It is empty for nil.
func (o *Object) String() string {
	if o == nil {
		return ""
	}
	return fmt.Sprintf("%s %d %s", o.Name, o.Size, o.Digest)
}

// ParseObject reads the value of Llm-Object; the empty string is nil.
func ParseObject(s string) (*Object, error) {
	if s == "" {
		return nil, nil
	}
	words := strings.Split(s, " ")
	if len(words) < 3 {
		return nil, badObject(s)
	}
	size, err1 := strconv.ParseUint(words[1], 10, 63)
	sum, err2 := hex.DecodeString(words[2])
	if err1 != nil || err2 != nil || words[0] == "" || len(sum) != sha256.Size {
		return nil, badObject(s)
	}
	return &Object{Name: words[0], Size: int64(size), Digest: words[2]}, nil
}

func badObject(s string) *Error {
	return badHeader(HeaderObject, s, "name, size and SHA-256 digest")
}

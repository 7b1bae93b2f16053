package schemas

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
)

// Code is the machine-readable reason of an [Error], the `code` of the OpenAI error object. The list is closed.
type Code string

// Codes of errors in what the caller sent.
const (
	CodeInvalidJSON         Code = "invalid_json"
	CodeMissingParameter    Code = "missing_required_parameter"
	CodeInvalidValue        Code = "invalid_value"
	CodeContextLength       Code = "context_length_exceeded"
	CodeInvalidKey          Code = "invalid_api_key"
	CodeScope               Code = "insufficient_scope" // the key may read, but not this
	CodeModelNotAllowed     Code = "model_not_allowed"
	CodeModelNotFound       Code = "model_not_found"
	CodeStreamNotFound      Code = "stream_not_found"
	CodeStreamExpired       Code = "stream_expired"
	CodeRequestTooLarge     Code = "request_too_large"
	CodeIdempotencyMismatch Code = "idempotency_mismatch"
	CodeNotFound            Code = "not_found"
	CodeUnsupported         Code = "unsupported"
	CodePreviousNotFound    Code = "previous_response_not_found" // previous_response_id names no finished response (docs/adr/0009)
	CodeNotCached           Code = "not_cached"                  // only-if-cached, and it is not (docs/adr/0014)
	CodeContentFilter       Code = "content_filter"
	CodeUpstreamRejected    Code = "upstream_rejected" // the model refused the request as invalid
)

// Codes of limits and overload.
const (
	CodeRateLimit   Code = "rate_limit_exceeded"
	CodeQuota       Code = "insufficient_quota"
	CodeSlowDown    Code = "slow_down"
	CodeOverloaded  Code = "server_is_overloaded"
	CodeUnavailable Code = "service_unavailable"
)

// Codes of failures while a request runs.
const (
	CodeUpstreamError       Code = "upstream_error"
	CodeUpstreamTimeout     Code = "upstream_timeout"
	CodeUpstreamAuth        Code = "upstream_auth" // the model refused the operator's credentials
	CodeUpstreamInterrupted Code = "upstream_stream_interrupted"
	CodeStreamDiverged      Code = "stream_diverged"
	CodeCancelled           Code = "request_cancelled"
	CodeDeadline            Code = "deadline_exceeded"
	CodeShutdown            Code = "server_shutdown"
	CodeInternal            Code = "internal_error"
	CodePoison              Code = "request_killed_workers" // three workers vanished while running it
)

// Error is the one error that crosses stages, on the wire the OpenAI error object. The message is shown to the caller and
// says what to do next; it never holds a prompt, an answer or a secret.
type Error struct {
	Code       Code
	Message    string
	Param      string        // the request field at fault, or empty
	RetryAfter time.Duration // when a retry makes sense, or 0 if unknown
	OfTokens   bool          // of CodeRateLimit: the limit is one of tokens, not of requests
	cause      error
}

// Errorf makes an Error. With %w the cause is kept for errors.Is and logs but its text is part of the message.
func Errorf(code Code, format string, args ...any) *Error {
	err := fmt.Errorf(format, args...)
	return &Error{Code: code, Message: err.Error(), cause: errors.Unwrap(err)}
}

// ReusedID says that a request came under an id that was used for another body.
func ReusedID(request string) *Error {
	return Errorf(CodeIdempotencyMismatch, "the request id %q was used for another body: choose another id", request)
}

// Deleted says that what was answered was erased.
func Deleted() *Error {
	return Errorf(CodeStreamExpired, "the answer was deleted: send the request again under another id")
}

// WithParam names the request field at fault.
func (e *Error) WithParam(param string) *Error { e.Param = param; return e }

// WithRetryAfter says when a retry makes sense.
func (e *Error) WithRetryAfter(d time.Duration) *Error { e.RetryAfter = d; return e }

// WithTokens says that the rate limit is one of tokens.
func (e *Error) WithTokens() *Error { e.OfTokens = true; return e }

// WithCause keeps err for logs and errors.Is without showing it to the caller.
func (e *Error) WithCause(err error) *Error { e.cause = err; return e }

func (e *Error) Error() string {
	if e.cause != nil && !strings.Contains(e.Message, e.cause.Error()) {
		return fmt.Sprintf("%s: %s: %v", e.Code, e.Message, e.cause)
	}
	return fmt.Sprintf("%s: %s", e.Code, e.Message)
}

func (e *Error) Unwrap() error { return e.cause }

// AsError returns the Error in err's chain; any other error is an internal one whose text the caller does not see.
func AsError(err error) *Error {
	if e, ok := errors.AsType[*Error](err); ok {
		return e
	}
	return (&Error{Code: CodeInternal, Message: "an internal error occurred; retry, and give the request id to the operator if it persists"}).WithCause(err)
}

// Retryable reports whether the same request may succeed later, so that an idempotency key whose run failed so before
// its first token is free again.
func (e *Error) Retryable() bool {
	switch e.Code {
	case CodeRateLimit, CodeSlowDown, CodeOverloaded, CodeUnavailable, CodeUpstreamError, CodeUpstreamTimeout,
		CodeUpstreamAuth, CodeUpstreamInterrupted, CodeShutdown, CodeInternal, CodeDeadline, CodeCancelled:
		return true
	}
	return false
}

// typeTokens is the type of an error that means a limit of tokens, as OpenAI has it.
const typeTokens = "tokens"

// Type is the `type` member of the OpenAI error object for the code.
func (e *Error) Type() string {
	switch e.Code {
	case CodeModelNotAllowed, CodeScope:
		return "permission_error"
	case CodeRateLimit:
		if e.OfTokens {
			return typeTokens
		}
		return "requests"
	case CodeQuota:
		return "insufficient_quota"
	case CodeSlowDown:
		return "rate_limit_error"
	case CodeOverloaded, CodeUnavailable:
		return "service_unavailable_error"
	case CodeUpstreamError, CodeUpstreamTimeout, CodeUpstreamAuth, CodeUpstreamInterrupted, CodeStreamDiverged,
		CodeDeadline, CodeShutdown, CodeInternal, CodePoison, CodeCancelled:
		return "server_error"
	}
	return "invalid_request_error"
}

type errorBody struct {
	Error errorObject `json:"error"`
}

type errorObject struct {
	Message string  `json:"message"`
	Type    string  `json:"type"`
	Param   *string `json:"param"`
	Code    Code    `json:"code"`
	// RetryAfterMS is ours: it lets the door set Retry-After for an error that was decided in another process.
	RetryAfterMS int64 `json:"retry_after_ms,omitempty"`
}

// Encode writes {"error":{"message","type","param","code"}}, the payload of an error frame and the body of an HTTP error.
func (e *Error) Encode() []byte {
	object := errorObject{Message: e.Message, Type: e.Type(), Code: e.Code, RetryAfterMS: e.RetryAfter.Milliseconds()}
	if e.Param != "" {
		object.Param = &e.Param
	}
	return encodeJSON(errorBody{object})
}

// DecodeError reads what [Error.Encode] wrote, of any version.
func DecodeError(data []byte) (*Error, error) {
	var body errorBody
	if err := json.Unmarshal(data, &body); err != nil {
		return nil, fmt.Errorf("decode error object: %w", err)
	}
	if body.Error.Code == "" {
		return nil, errors.New("decode error object: it has no code")
	}
	e := &Error{Code: body.Error.Code, Message: body.Error.Message, RetryAfter: time.Duration(body.Error.RetryAfterMS) * time.Millisecond}
	e.OfTokens = e.Code == CodeRateLimit && body.Error.Type == typeTokens
	if body.Error.Param != nil {
		e.Param = *body.Error.Param
	}
	return e, nil
}

package anthropic

import (
	"net/http"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/schemas"
)

// statusOverloaded is the dialect's own status for a server that has no room.
const statusOverloaded = 529

// form is how a kind of error is shown.
type form struct {
	status int
	kind   string
}

// EncodeError writes {"type":"error","error":{"type","message","details":{"error_code"}},"request_id"}, the body of an HTTP
// error and the data of an error event.
func EncodeError(e *schemas.Error, request string) []byte {
	o := object{out: []byte(`{"type":"error","error":{`)}
	o.text("type", formOf(e.Code).kind)
	o.text("message", e.Message)
	o.name("details")
	details := object{out: append(o.out, '{')}
	details.text("error_code", string(e.Code))
	if e.Param != "" {
		details.text("param", e.Param)
	}
	o.out = append(details.out, "}}"...)
	o.text("request_id", request)
	return append(o.out, '}')
}

// DecodeError reads what EncodeError wrote, and reports whether data is that.
func DecodeError(data []byte) (e *schemas.Error, ok bool) {
	said := gjson.GetManyBytes(data, "type", "error.details.error_code", "error.message", "error.details.param")
	if said[0].Str != "error" || said[1].Str == "" || !schemas.ValidMember(data) {
		return nil, false
	}
	return &schemas.Error{Code: schemas.Code(said[1].Str), Message: said[2].Str, Param: said[3].Str}, true
}

// Status is the HTTP status of an error code in this dialect.
func Status(code schemas.Code) int { return formOf(code).status }

func formOf(code schemas.Code) form {
	switch code {
	case schemas.CodeInvalidKey:
		return form{http.StatusUnauthorized, "authentication_error"}
	case schemas.CodeQuota:
		return form{http.StatusPaymentRequired, "billing_error"}
	case schemas.CodeModelNotAllowed, schemas.CodeScope:
		return form{http.StatusForbidden, "permission_error"}
	case schemas.CodeModelNotFound, schemas.CodeStreamNotFound, schemas.CodeStreamExpired, schemas.CodeNotFound:
		return form{http.StatusNotFound, "not_found_error"}
	case schemas.CodeRequestTooLarge:
		return form{http.StatusRequestEntityTooLarge, "request_too_large"}
	case schemas.CodeIdempotencyMismatch: // not 409, which clients send again
		return form{http.StatusUnprocessableEntity, "invalid_request_error"}
	case schemas.CodeRateLimit, schemas.CodeSlowDown:
		return form{http.StatusTooManyRequests, "rate_limit_error"}
	case schemas.CodeOverloaded, schemas.CodeUnavailable, schemas.CodeShutdown:
		return form{statusOverloaded, "overloaded_error"}
	case schemas.CodeUpstreamTimeout, schemas.CodeDeadline, schemas.CodeNotCached:
		return form{http.StatusGatewayTimeout, "timeout_error"}
	case schemas.CodeCancelled: // what nginx logs for a caller that left: clients send every 409 and 5xx again
		return form{499, "api_error"}
	case schemas.CodeUpstreamError, schemas.CodeUpstreamAuth, schemas.CodeUpstreamInterrupted, schemas.CodeStreamDiverged,
		schemas.CodeInternal, schemas.CodePoison:
		return form{http.StatusInternalServerError, "api_error"}
	}
	return form{http.StatusBadRequest, "invalid_request_error"}
}

package ingest

import (
	"context"
	"errors"
	"math"
	"net/http"
	"strconv"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// Causes for which the context of an answer ends.
var (
	errDrained = errors.New("the ingest has reached its drain limit")
	errLeft    = errors.New("the caller left")

	errPanicked = errors.New("a handler panicked")
)

// statusClientClosed is what nginx logs for a caller that left; here it also answers a request that was cancelled, because
// SDKs repeat every 409 and 5xx.
const statusClientClosed = 499

// statuses is the HTTP status of each error code.
var statuses = map[schemas.Code]int{
	schemas.CodeInvalidJSON:         http.StatusBadRequest,
	schemas.CodeMissingParameter:    http.StatusBadRequest,
	schemas.CodeInvalidValue:        http.StatusBadRequest,
	schemas.CodeContextLength:       http.StatusBadRequest,
	schemas.CodeUnsupported:         http.StatusBadRequest,
	schemas.CodeContentFilter:       http.StatusBadRequest,
	schemas.CodeUpstreamRejected:    http.StatusBadRequest,
	schemas.CodeInvalidKey:          http.StatusUnauthorized,
	schemas.CodeModelNotAllowed:     http.StatusForbidden,
	schemas.CodeScope:               http.StatusForbidden,
	schemas.CodeModelNotFound:       http.StatusNotFound,
	schemas.CodeStreamNotFound:      http.StatusNotFound,
	schemas.CodeNotFound:            http.StatusNotFound,
	schemas.CodePreviousNotFound:    http.StatusNotFound,
	schemas.CodeStreamExpired:       http.StatusGone,
	schemas.CodeRequestTooLarge:     http.StatusRequestEntityTooLarge,
	schemas.CodeIdempotencyMismatch: http.StatusUnprocessableEntity,
	schemas.CodeRateLimit:           http.StatusTooManyRequests,
	schemas.CodeQuota:               http.StatusTooManyRequests,
	schemas.CodeSlowDown:            http.StatusTooManyRequests,
	schemas.CodeCancelled:           statusClientClosed,
	schemas.CodeInternal:            http.StatusInternalServerError,
	schemas.CodePoison:              http.StatusInternalServerError,
	schemas.CodeUpstreamError:       http.StatusBadGateway,
	schemas.CodeUpstreamAuth:        http.StatusBadGateway,
	schemas.CodeUpstreamInterrupted: http.StatusBadGateway,
	schemas.CodeStreamDiverged:      http.StatusBadGateway,
	schemas.CodeOverloaded:          http.StatusServiceUnavailable,
	schemas.CodeUnavailable:         http.StatusServiceUnavailable,
	schemas.CodeShutdown:            http.StatusServiceUnavailable,
	schemas.CodeUpstreamTimeout:     http.StatusGatewayTimeout,
	schemas.CodeDeadline:            http.StatusGatewayTimeout,
	schemas.CodeNotCached:           http.StatusGatewayTimeout, // as RFC 9111 has it
}

func statusOf(code schemas.Code) int {
	if status, ok := statuses[code]; ok {
		return status
	}
	return http.StatusInternalServerError
}

// setErrorHeaders tells SDKs whether and when to try again.
func setErrorHeaders(h http.Header, e *schemas.Error) {
	switch e.Code {
	case schemas.CodeIdempotencyMismatch, schemas.CodeQuota, schemas.CodePoison, schemas.CodeUpstreamAuth, schemas.CodeDeadline, schemas.CodeNotCached:
		// Not mended in a moment; and to send what was too late once more only makes the queue longer.
		h.Set(schemas.HeaderShouldRetry, "false")
		if e.Code != schemas.CodeQuota || e.RetryAfter <= 0 {
			return
		}
	case schemas.CodeInvalidKey:
		h.Set("WWW-Authenticate", "Bearer")
		return
	}
	wait := e.RetryAfter
	if wait <= 0 {
		switch e.Code {
		case schemas.CodeRateLimit, schemas.CodeSlowDown, schemas.CodeOverloaded, schemas.CodeUnavailable, schemas.CodeShutdown:
			wait = time.Second
		default:
			return
		}
	}
	h.Set(schemas.HeaderRetryAfter, strconv.FormatInt(int64(math.Ceil(wait.Seconds())), 10))
	h.Set(schemas.HeaderRetryAfterMS, strconv.FormatInt(int64((wait+time.Millisecond-1)/time.Millisecond), 10))
}

// asError is the one place where an error of a call becomes what its caller sees. It is nil when the caller is gone.
func asError(ctx context.Context, err error) *schemas.Error {
	if ended, ok := errors.AsType[keyEnded](context.Cause(ctx)); ok {
		return ended.shown
	}
	if e, ok := errors.AsType[*schemas.Error](err); ok {
		return e
	}
	if errors.Is(err, errLeft) {
		return nil
	}
	if ctx.Err() != nil {
		if errors.Is(context.Cause(ctx), errDrained) {
			return schemas.Errorf(schemas.CodeShutdown, "this server is stopping; the request goes on: read on by its id, with GET /v1/streams/<id> or on llm.resume.<tenant>.<id>, or try again").WithCause(errDrained)
		}
		return nil
	}
	return schemas.AsError(err)
}

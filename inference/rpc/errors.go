package rpc

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"google.golang.org/genproto/googleapis/rpc/errdetails"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/weir-llm/weir/inference/upstream"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// serverReceives is the largest message that gRPC servers take when nobody told them otherwise.
const serverReceives = 4 << 20

// failed is the error of a call that ended with a status while nobody on this side wanted it to.
func (c *Call) failed(s *status.Status) *schemas.Error {
	info, wait := details(s)
	code := s.Code()
	switch {
	case info == nil && code == codes.Unavailable && c.events == 0 && c.client.dialer.last() != nil:
		return c.client.bounds.Unreachable(c.client.dialer.last(), "cannot be reached")
	case info == nil && c.events > 0 && (code == codes.Unavailable || code == codes.Canceled):
		return upstream.Broken(openai.RefusalError(refusal(s, info, wait)))
	case info == nil && code == codes.Unimplemented:
		return schemas.Errorf(schemas.CodeUnsupported, "the model server does not have this operation (%s); choose another model, or have the operator check the backend's url and protocol", name(code)).
			WithCause(openai.RefusalError(refusal(s, info, wait)))
	case code == codes.ResourceExhausted && strings.Contains(strings.ToLower(s.Message()), "larger than max"):
		return c.tooLarge()
	}
	return openai.RefusalError(refusal(s, info, wait))
}

// tooLarge tells apart by its size whether the request or the answer was refused: the library reports both in the same
// words, whoever refused it.
func (c *Call) tooLarge() *schemas.Error {
	if len(c.request.Body) > serverReceives-overhead && c.events == 0 {
		return schemas.Errorf(schemas.CodeRequestTooLarge, "the request is too large for the model server; send a smaller one, or have the operator raise the server's limit on messages")
	}
	return upstream.TooLarge(openai.MaxEventBytes)
}

// details reads what a status carries beside its code.
func details(s *status.Status) (info *errdetails.ErrorInfo, wait time.Duration) {
	for _, detail := range s.Details() {
		switch d := detail.(type) {
		case *errdetails.ErrorInfo:
			if d.GetDomain() == schemas.BackendDomain {
				info = d
			}
		case *errdetails.RetryInfo:
			wait = max(d.GetRetryDelay().AsDuration(), 0)
		}
	}
	return info, wait
}

func refusal(s *status.Status, info *errdetails.ErrorInfo, wait time.Duration) openai.Refusal {
	r := openai.Refusal{Status: httpStatus(s.Code()), Said: name(s.Code()), Message: s.Message(), RetryAfter: wait}
	switch {
	case info != nil:
		r.Code, r.Param = info.GetReason(), param(info)
		if meant, ok := statusOf(schemas.Code(r.Code)); ok {
			r.Status = meant
		}
	case s.Code() == codes.NotFound: // a call names nothing else
		r.Code = string(schemas.CodeModelNotFound)
	}
	return r
}

func param(info *errdetails.ErrorInfo) string { return info.GetMetadata()["param"] }

// name is a code as the protocol spells it: gRPC RESOURCE_EXHAUSTED.
func name(c codes.Code) string {
	var text strings.Builder
	for i, r := range c.String() {
		if i > 0 && 'A' <= r && r <= 'Z' {
			text.WriteByte('_')
		}
		text.WriteRune(r)
	}
	return "gRPC " + strings.ToUpper(text.String())
}

// httpStatus is the status of HTTP that says the same; what has none is the server's failure.
func httpStatus(c codes.Code) int {
	switch c {
	case codes.InvalidArgument, codes.FailedPrecondition, codes.OutOfRange:
		return http.StatusBadRequest
	case codes.Unauthenticated:
		return http.StatusUnauthorized
	case codes.PermissionDenied:
		return http.StatusForbidden
	case codes.NotFound:
		return http.StatusNotFound
	case codes.ResourceExhausted:
		return http.StatusTooManyRequests
	case codes.Unimplemented:
		return http.StatusNotImplemented
	case codes.Unavailable, codes.Aborted:
		return http.StatusServiceUnavailable
	case codes.DeadlineExceeded:
		return http.StatusGatewayTimeout
	}
	return http.StatusBadGateway
}

// statusOf is the status that a reason means whatever code it came with.
func statusOf(reason schemas.Code) (int, bool) {
	switch reason {
	case schemas.CodeInvalidJSON, schemas.CodeInvalidValue, schemas.CodeMissingParameter, schemas.CodeUnsupported, schemas.CodeUpstreamRejected:
		return http.StatusBadRequest, true
	case schemas.CodeRequestTooLarge:
		return http.StatusRequestEntityTooLarge, true
	case schemas.CodeRateLimit, schemas.CodeSlowDown:
		return http.StatusTooManyRequests, true
	case schemas.CodeUnavailable:
		return http.StatusServiceUnavailable, true
	case schemas.CodeUpstreamTimeout:
		return http.StatusGatewayTimeout, true
	}
	return 0, false
}

// NotReady is the error of a server that says that it cannot be used.
func NotReady(what string) *schemas.Error {
	return schemas.Errorf(schemas.CodeUnavailable, "the model server says that it is not ready (%s); wait for it, or have the operator look at it", what).
		WithCause(fmt.Errorf("health: %s", what))
}

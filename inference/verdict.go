package inference

import (
	"errors"
	"net"

	"github.com/weir-llm/weir/schemas"
)

// verdict is what an error that came before the first token says about other calls of the same request.
type verdict int

// The verdicts. See [judge] for which error has which.
const (
	stop      verdict = iota // nobody would answer otherwise, or nobody may be asked
	again                    // the same backend may answer in a moment
	elsewhere                // this backend will not answer, another may
	larger                   // only a model with a larger context can answer
)

// judge is the table of what is done about the errors of model servers, whatever their protocol: a protocol's package
// says which code its errors have, and this says what follows.
func judge(e *schemas.Error) verdict {
	switch e.Code {
	case schemas.CodeRateLimit, schemas.CodeSlowDown, schemas.CodeOverloaded, schemas.CodeUnavailable, schemas.CodeUpstreamInterrupted:
		return again
	case schemas.CodeUpstreamTimeout:
		if silent(e) {
			return elsewhere
		}
		return again
	case schemas.CodeUpstreamError:
		if status := httpStatus(e); status >= 300 && status < 500 {
			return elsewhere // a wrong address, which stays wrong
		}
		return again
	case schemas.CodeModelNotFound, schemas.CodeUnsupported:
		return elsewhere
	case schemas.CodeContextLength:
		return larger
	}
	// The request is wrong, the content filter refused it, the operator's account is at its end, or the request has: it was
	// cancelled, is too late, or the worker stops.
	return stop
}

// silent reports whether a timeout is that of a backend which had the request and said nothing, rather than of one that
// could not be connected to or that answered with a timeout of its own.
func silent(e *schemas.Error) bool {
	if httpStatus(e) != 0 {
		return false
	}
	n, ok := errors.AsType[net.Error](e)
	return !ok || !n.Timeout()
}

// refusesOnly reports whether an error of a fallback is about that model, so that the next may do better. What the model
// that was asked for refuses is wrong; what only a stand-in refuses, such as an answer that it is to continue, need not be.
func refusesOnly(e *schemas.Error) bool {
	return e.Code == schemas.CodeUpstreamRejected || e.Code == schemas.CodeRequestTooLarge
}

// statusError is the cause of an error that came as a reply of the model server.
type statusError interface {
	error
	HTTPStatus() int
}

func httpStatus(err error) int {
	if e, ok := errors.AsType[statusError](err); ok {
		return e.HTTPStatus()
	}
	return 0
}

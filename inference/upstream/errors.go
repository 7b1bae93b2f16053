package upstream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"syscall"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/schemas"
)

func timeout(format string, after time.Duration) *schemas.Error {
	return schemas.Errorf(schemas.CodeUpstreamTimeout, "the model server "+format+"; try again, or have the operator allow more time", after)
}

// failed is the error of a call that got no reply.
func (c *Call) failed(err error) *schemas.Error {
	if c.ctx.Err() != nil {
		return inference.ContextError(c.ctx)
	}
	if errors.Is(err, io.EOF) {
		return schemas.Errorf(schemas.CodeUpstreamError, "the model server closed the connection without an answer; try again").WithCause(err)
	}
	return c.bounds.Unreachable(err, "did not answer in HTTP")
}

// Unreachable is the error of a call that found no server: err is what became of the connection, and otherwise what is said
// when that does not tell.
func (b *Bounds) Unreachable(err error, otherwise string) *schemas.Error {
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() {
		return timeout("did not accept a connection within %v (connect timeout)", b.Connect).WithCause(err)
	}
	what := "cannot be reached" + reason(err)
	if _, ok := errors.AsType[*net.OpError](err); !ok && reason(err) == "" {
		what = otherwise
	}
	return schemas.Errorf(schemas.CodeUpstreamError, "the model server %s; try again, and have the operator check the backend's url", what).WithCause(err)
}

// broken is the error of a reply whose body ended in err.
func (c *Call) broken(err error) *schemas.Error {
	if c.ctx.Err() != nil {
		return inference.ContextError(c.ctx)
	}
	return Broken(err)
}

// Broken is the error of an answer whose connection ended in err.
func Broken(err error) *schemas.Error {
	return schemas.Errorf(schemas.CodeUpstreamInterrupted, "the connection to the model server broke%s before the answer was whole; try again", reason(err)).WithCause(err)
}

// reason names a network failure without the address it happened with.
func reason(err error) string {
	if _, ok := errors.AsType[*AddressError](err); ok {
		return " (its address is one that the operator does not allow)"
	}
	if e, ok := errors.AsType[syscall.Errno](err); ok {
		return " (" + e.Error() + ")"
	}
	if _, ok := errors.AsType[*net.DNSError](err); ok {
		return " (its name cannot be resolved)"
	}
	if strings.Contains(err.Error(), "tls:") || strings.Contains(err.Error(), "x509:") {
		return " (TLS failed)"
	}
	return ""
}

// TooLarge is the error of a piece that is larger than any may be.
func TooLarge(limit int64) *schemas.Error {
	return schemas.Errorf(schemas.CodeUpstreamError, "the model server sent more than %d MiB in one piece; ask for a shorter answer, or for fewer at once", limit>>20)
}

// EmptyStream is the error of a stream without events.
func EmptyStream() *schemas.Error {
	return schemas.Errorf(schemas.CodeUpstreamInterrupted, "the model server ended the stream without sending an event; try again")
}

// Interrupted is the error of a stream that lacks what ends an answer.
func Interrupted(lacks string) *schemas.Error {
	return schemas.Errorf(schemas.CodeUpstreamInterrupted, "the model server ended the stream before the answer was whole: no %s; try again", lacks)
}

// errMalformed marks the error of an event that may be left out.
var errMalformed = errors.New("malformed event")

// NotAnEvent is the error of an event whose data cannot be read.
func NotAnEvent(cause error) *schemas.Error {
	return schemas.Errorf(schemas.CodeUpstreamError, "the model server sent an event that is not a JSON object; try again").WithCause(fmt.Errorf("%w: %w", errMalformed, cause))
}

// NotAStream is the error of a document that came in place of a stream and is no error either.
func NotAStream() *schemas.Error {
	return schemas.Errorf(schemas.CodeUpstreamError, "the model server answered with one document instead of a stream; send the request without \"stream\": true, or have the operator check the backend")
}

// NotAnAnswer says what a reply is when it is not what was asked for, without quoting it.
func NotAnAnswer(data []byte, cause error) *schemas.Error {
	what := "something that is not JSON"
	switch trimmed := strings.TrimSpace(string(data[:min(len(data), 64)])); {
	case trimmed == "":
		what = "an empty body"
	case strings.HasPrefix(trimmed, "<"):
		what = "a web page"
	}
	return schemas.Errorf(schemas.CodeUpstreamError, "the model server answered with %s; try again, and have the operator check the backend's url", what).
		WithCause(fmt.Errorf("read reply: %w", cause))
}

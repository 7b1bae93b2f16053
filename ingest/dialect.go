package ingest

import (
	"github.com/weir-llm/weir/internal/anthropic"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// dialect is how a surface says things on the wire: its errors, and the events of a stream. There are two, and neither is
// ever changed.
type dialect struct {
	requestID   string // the header in which clients of the dialect look for the request's id, beside X-Request-Id
	status      func(schemas.Code) int
	encodeError func(e *schemas.Error, request string) []byte

	eventBytes  func(request string) int
	appendEvent func(dst []byte, cursor schemas.Cursor, data []byte) []byte
	appendError func(dst []byte, e *schemas.Error, request string) []byte
	heartbeat   string
	done        string // ends a stream that is whole
}

// The dialects.
var (
	openAI = &dialect{
		status:      statusOf,
		encodeError: func(e *schemas.Error, _ string) []byte { return e.Encode() },
		eventBytes:  openai.EventBytes,
		appendEvent: openai.AppendEvent,
		appendError: func(dst []byte, e *schemas.Error, _ string) []byte { return openai.AppendError(dst, e) },
		heartbeat:   openai.Heartbeat,
		done:        openai.Done,
	}
	messages = &dialect{
		requestID:   "request-id",
		status:      anthropic.Status,
		encodeError: anthropic.EncodeError,
		eventBytes:  anthropic.EventBytes,
		appendEvent: anthropic.AppendEvent,
		appendError: anthropic.AppendError,
		heartbeat:   anthropic.Ping,
	}
)

// dialectOf is that in which the events of an op are.
func dialectOf(op schemas.Op) *dialect {
	switch op {
	case schemas.OpMessages, schemas.OpCountTokens:
		return messages
	}
	return openAI
}

// spoken is the dialect of a caller on a route that has none of its own: clients of the messages dialect say so in a
// header of every request.
func (c *call) spoken() *dialect {
	if c.r.Header.Get(anthropic.HeaderVersion) != "" {
		return messages
	}
	return openAI
}

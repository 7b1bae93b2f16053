package ingest

import (
	"context"
	"crypto/rand"
	"log/slog"
	"net/http"
	"runtime/debug"
	"time"

	"github.com/oklog/ulid/v2"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/schemas"
)

type identity = schemas.Identity

// exchange is one request on its way through a door, whichever it came by. It belongs to the goroutine that serves it.
type exchange struct {
	s     *Ingest
	ctx   context.Context         // ends with the caller, or with the drain limit
	leave context.CancelCauseFunc // ends ctx
	span  trace.Span
	route string
	began time.Time

	id       identity
	status   int   // of HTTP, as the caller was told; 0 before
	onlooker bool  // the caller may only read, so that its leaving ends nothing
	held     int64 // bytes of its body that take up room
	placed   bool  // the request was accepted for this caller just now
}

// way is how the answer of an exchange goes back to its caller.
type way interface {
	// name says which request the exchange turned out to be about.
	name(request string)
	// attached says whether the answer is that of an earlier request with the same id and body.
	attached(earlier bool)
	// answer sends what the frames hold, as events or as one response. The optional held runs when no event came for so
	// long that the caller is told to wait. finished reports whether the request has ended, whatever became of the caller.
	answer(streams bool, all frames, held func()) (finished bool, err error)
	// accepted says that the request is accepted and what its id is, and nothing of its answer.
	accepted() error
}

func newRequestID() string {
	return "req_" + ulid.MustNew(ulid.Now(), rand.Reader).String()
}

func (x *exchange) log(level slog.Level, message string, attrs ...slog.Attr) {
	attrs = append(attrs, slog.String(telemetry.KeyRequest, x.id.Request), slog.String(telemetry.KeyTenant, x.id.Tenant))
	x.s.log.LogAttrs(x.ctx, level, message, attrs...)
}

func (x *exchange) logPanic(reason any) {
	x.log(slog.LevelError, "a handler panicked", slog.Any(telemetry.KeyReason, reason), slog.String("stack", string(debug.Stack())))
}

// record counts the exchange and ends its span and its context.
func (x *exchange) record() {
	x.letGo()
	x.s.meters.open.Dec()
	x.s.meters.answered(x.route, x.status, time.Since(x.began))
	if x.span.IsRecording() {
		x.span.SetAttributes(attribute.String("weir.tenant", x.id.Tenant), attribute.String("weir.request_id", x.id.Request))
	}
	if x.status >= 500 {
		x.span.SetStatus(codes.Error, http.StatusText(x.status))
	}
	x.span.End()
	x.leave(nil)
}

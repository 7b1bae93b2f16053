package ingest

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/netip"
	"time"

	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/propagation"
	"go.opentelemetry.io/otel/trace"

	"github.com/weir-llm/weir/internal/keys"
	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/schemas"
)

// headerRequestID carries the request's id to the caller. What a caller sends in it is logged and nothing else.
const headerRequestID = "X-Request-Id"

const keyClientRequest = "client_request_id"

// call is an exchange over HTTP.
type call struct {
	exchange
	w       http.ResponseWriter
	r       *http.Request
	control *http.ResponseController
	key     keys.Key
	addr    netip.Addr // that it is counted under, once it has a place
	dialect *dialect
	told    *schemas.Allowance // what the router says of the tenant's limits
	broken  bool               // the connection is to be cut, because what was sent must not look whole
}

// newCall begins a call in the dialect of its route; nil is whichever the caller speaks.
func (s *Ingest) newCall(w http.ResponseWriter, r *http.Request, path string, d *dialect) *call {
	route := r.Method + " " + path
	ctx := propagation.TraceContext{}.Extract(r.Context(), propagation.HeaderCarrier(r.Header))
	ctx, span := s.tracer.Start(ctx, route, trace.WithSpanKind(trace.SpanKindServer))
	ctx, leave := context.WithCancelCause(ctx)
	c := &call{
		exchange: exchange{s: s, ctx: ctx, leave: leave, span: span, route: route, began: time.Now()},
		w:        w, r: r, control: http.NewResponseController(w),
	}
	if c.dialect = d; d == nil {
		c.dialect = c.spoken()
	}
	if path == "unknown" {
		c.route = path // a method is the caller's choice, and so is the number of them
	}
	c.name(newRequestID())
	s.meters.open.Inc()
	c.countRetry()
	return c
}

// name gives the call the id of the request that it is about.
func (c *call) name(request string) {
	c.id.Request = request
	c.w.Header().Set(headerRequestID, request)
	if name := c.dialect.requestID; name != "" {
		c.w.Header().Set(name, request)
	}
}

// admit makes the call one of the key's tenant, for as long as the key works and until done is called.
func (c *call) admit(key keys.Key) (done func()) {
	c.key, c.id.Tenant, c.onlooker = key, key.Tenant, !key.MaySend()
	stop := c.key.WhenRevoked(c.onKeyEnd)
	if c.s.log.Enabled(c.ctx, slog.LevelDebug) {
		c.log(slog.LevelDebug, "request arrived", slog.String("route", c.route), slog.String("key", key.ID),
			slog.String(keyClientRequest, c.r.Header.Get(headerRequestID)))
	}
	return func() { stop() }
}

// end records the call. A panic ends here: it costs one caller its answer and is logged with its stack.
func (c *call) end() {
	if reason := recover(); reason != nil {
		c.logPanic(reason)
		c.broken = c.status != 0
		c.fail(schemas.AsError(errPanicked))
	}
	if c.status == 0 {
		c.status = statusClientClosed
		c.broken = true // who closed only the sending half still listens, and would be told 200 with nothing in it
	}
	if c.span.IsRecording() {
		c.span.SetAttributes(attribute.String("http.request.method", c.r.Method), attribute.String("http.route", c.route),
			attribute.Int("http.response.status_code", c.status))
	}
	c.record()
	if c.broken {
		panic(http.ErrAbortHandler) // how net/http is told to cut a connection
	}
}

// fail answers an error with its status, unless an answer is under way or the caller is gone.
func (c *call) fail(err error) {
	e := asError(c.ctx, err)
	if e == nil || c.status != 0 {
		return
	}
	if e.Code == schemas.CodeInternal {
		c.log(slog.LevelError, "a request failed", slog.Any(telemetry.KeyError, err))
	}
	status := c.dialect.status(e.Code)
	if r, ok := errors.AsType[refusal](err); ok {
		status = r.status
	}
	_ = c.writeError(status, e)
}

func (c *call) writeError(status int, e *schemas.Error) error {
	setErrorHeaders(c.w.Header(), e)
	return c.write(status, c.dialect.encodeError(e, c.id.Request))
}

func (c *call) writeJSON(status int, v any) error {
	body, err := json.Marshal(v)
	if err != nil {
		return err
	}
	return c.write(status, body)
}

// write sends a whole JSON answer. A caller that does not take it is gone; there is nobody left to tell.
func (c *call) write(status int, body []byte) error {
	c.w.Header().Set("Content-Type", "application/json")
	_ = c.control.SetWriteDeadline(time.Now().Add(c.s.cfg.WriteTimeout))
	c.sendHeader(status)
	if _, err := c.w.Write(body); err != nil {
		return errLeft
	}
	return nil
}

package openai

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"net"
	"net/http"
	"net/url"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/weir-llm/weir/inference"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/schemas"
)

// tailWait is how long a whole answer waits for its usage and end mark, and drainWait how long a finished one waits for the
// connection to become free for the next call.
const (
	tailWait  = 2 * time.Second
	drainWait = 50 * time.Millisecond
)

// call is one call of the server. It is owned by the goroutine that runs the loop.
type call struct {
	backend *Backend
	request *inference.GenerateRequest
	yield   func(inference.Event, error) bool
	stopped bool // the loop body broke out
	held    bool // the last event was passed on with the promise of more

	ctx     context.Context // of the call: ends when a timeout passes, with that as its cause
	cancel  context.CancelCauseFunc
	release context.CancelFunc

	silence   *time.Timer                   // ends the call when the server stays silent; one for all phases
	listening bool                          // silence is running
	why       atomic.Pointer[schemas.Error] // what silence ends the call with

	choices int // answers asked for
	mender  openai.Mender
	chunk   openai.Chunk
	ending  openai.Endings
	events  int
	done    bool // the end mark came
}

func (b *Backend) newCall(ctx context.Context, r *inference.GenerateRequest, yield func(inference.Event, error) bool) *call {
	c := &call{backend: b, request: r, yield: yield}
	ctx, c.cancel = context.WithCancelCause(ctx)
	end, cause := time.Now().Add(b.config.Timeouts.Total), error(b.overdue.total)
	if !r.Deadline.IsZero() && r.Deadline.Before(end) {
		end, cause = r.Deadline, context.DeadlineExceeded
	}
	c.ctx, c.release = context.WithDeadlineCause(ctx, end, cause)
	return c
}

// close ends the upstream call, if it is still under way.
func (c *call) close() {
	c.hush()
	c.cancel(nil)
	c.release()
}

// overdue are the errors of calls that took too long. They are shared and never changed.
type overdue struct{ first, idle, total *schemas.Error }

func newOverdue(t inference.Timeouts) overdue {
	return overdue{
		first: timeout("sent no first token within %v (first-token timeout)", t.FirstToken),
		idle:  timeout("fell silent for %v (idle timeout)", t.Idle),
		total: timeout("did not finish within %v (total timeout)", t.Total),
	}
}

func timeout(format string, after time.Duration) *schemas.Error {
	return schemas.Errorf(schemas.CodeUpstreamTimeout, "the model server "+format+"; try again, or have the operator allow more time", after)
}

// listen ends the call with err when nothing stops it within d.
func (c *call) listen(d time.Duration, err *schemas.Error) {
	c.why.Store(err)
	c.listening = true
	if c.silence == nil {
		c.silence = time.AfterFunc(d, func() { c.cancel(c.why.Load()) })
		return
	}
	c.silence.Reset(d)
}

// hush stops what listen has started.
func (c *call) hush() {
	if c.listening {
		c.silence.Stop()
		c.listening = false
	}
}

// run makes the call and passes on its answer.
func (c *call) run(path string) error {
	body := c.outgoing()
	if c.request.Stream {
		c.listen(c.backend.config.Timeouts.FirstToken, c.backend.overdue.first)
	}
	reply, err := c.send(http.MethodPost, path, body)
	if err != nil {
		return err
	}
	defer reply.Body.Close()
	if c.request.Stream {
		return c.stream(reply.Body)
	}
	return c.unary(reply)
}

// outgoing is the body for the server, and prepares the way back.
func (c *call) outgoing() []byte {
	body := c.request.Body
	model := c.request.Model
	if model == "" {
		model = c.backend.config.Model
	}
	if model != "" { // else nobody looks for the model in a body that may be large
		if public := openai.Model(body); model != public {
			c.mender.Model = public
			body = openai.WithModel(body, model)
		}
	}
	c.choices = openai.Choices(c.request.Op, body)
	if c.request.Stream {
		body, c.mender.DropUsage = openai.WithUsage(body)
	}
	return body
}

// send makes the HTTP call and returns a reply whose status is success.
func (c *call) send(method, path string, body []byte) (*http.Response, error) {
	request, err := http.NewRequestWithContext(c.ctx, method, c.backend.config.URL+path, bytes.NewReader(body))
	if err != nil {
		return nil, schemas.AsError(err)
	}
	c.setHeaders(request.Header, method)
	reply, err := c.backend.client.Do(request)
	if err != nil {
		return nil, c.failed(err)
	}
	if reply.StatusCode >= 200 && reply.StatusCode < 300 {
		return reply, nil
	}
	defer reply.Body.Close()
	c.listen(c.backend.config.Timeouts.Idle, c.backend.overdue.idle)
	text, _, _ := readAtMost(reply.Body, reply.ContentLength, maxErrorBytes) // the status alone tells enough
	return nil, openai.ReplyError(reply.StatusCode, reply.Header, text)
}

func (c *call) setHeaders(h http.Header, method string) {
	maps.Copy(h, c.backend.header)
	for _, name := range [...]string{schemas.HeaderTraceParent, schemas.HeaderTraceState} {
		if v := c.request.Header[name]; len(v) > 0 {
			h.Set(name, v[0])
		}
	}
	if method == http.MethodPost {
		h.Set("Content-Type", "application/json")
	}
	accept := "application/json"
	if c.request.Stream {
		accept = "text/event-stream"
	}
	h.Set("Accept", accept)
}

// unary passes on a whole response.
func (c *call) unary(reply *http.Response) error {
	data, err := c.readDocument(reply, openai.MaxEventBytes)
	if err != nil {
		return err
	}
	if err := c.chunk.Peek(data); err != nil {
		return notAnAnswer(data, err)
	}
	c.ending.Add(&c.chunk)
	switch {
	case c.chunk.Error != "":
		return openai.EventError([]byte(c.chunk.Error))
	case !c.ending.Started():
		return schemas.Errorf(schemas.CodeUpstreamError, "the model server's answer has no choices; try again, and have the operator check the backend's url")
	case *c.backend.config.RequireFinishReason && !c.ending.Whole(0):
		return schemas.Errorf(schemas.CodeUpstreamInterrupted, "the model server's answer has no finish_reason, so it may be cut; try again")
	}
	data, _ = c.mender.Mend(data, &c.chunk)
	c.pass(data, false)
	return nil
}

// pass hands an event to the loop body, and reports whether to go on.
func (c *call) pass(data []byte, more bool) bool {
	c.hush() // the loop body's time is not the server's
	c.stopped = !c.yield(inference.Event{Data: data, Chunk: &c.chunk, More: more}, nil)
	c.held = more
	return !c.stopped
}

// letGo lets an event go that was passed on with the promise of more, when what followed was not for the caller.
func (c *call) letGo() {
	if c.held && !c.stopped {
		c.chunk = openai.Chunk{}
		c.pass(nil, false)
	}
}

// readDocument reads a body that is not a stream and has at most limit bytes.
func (c *call) readDocument(reply *http.Response, limit int64) ([]byte, error) {
	c.listen(c.backend.config.Timeouts.Idle, c.backend.overdue.idle)
	data, more, err := readAtMost(activity{reply.Body, c}, reply.ContentLength, limit)
	c.hush()
	switch {
	case err != nil:
		return nil, c.broken(err)
	case more:
		return nil, tooLarge(limit)
	}
	return openai.ToUTF8(data), nil
}

// activity postpones the idle timeout with every piece that arrives.
type activity struct {
	io.Reader
	call *call
}

func (a activity) Read(p []byte) (int, error) {
	n, err := a.Reader.Read(p)
	if n > 0 && err == nil {
		a.call.silence.Reset(a.call.backend.config.Timeouts.Idle)
	}
	return n, err
}

func tooLarge(limit int64) *schemas.Error {
	return schemas.Errorf(schemas.CodeUpstreamError, "the model server sent more than %d MiB in one piece; ask for a shorter answer, or for fewer at once", limit>>20)
}

// failed is the error of a call that got no reply.
func (c *call) failed(err error) *schemas.Error {
	if c.ctx.Err() != nil {
		return inference.ContextError(c.ctx)
	}
	if u, ok := errors.AsType[*url.Error](err); ok {
		err = u.Err // without the address, which is the operator's business
	}
	if n, ok := errors.AsType[net.Error](err); ok && n.Timeout() {
		connect := c.backend.config.Timeouts.Connect
		return timeout("did not accept a connection within %v (connect timeout)", connect).WithCause(err)
	}
	if errors.Is(err, io.EOF) {
		return schemas.Errorf(schemas.CodeUpstreamError, "the model server closed the connection without an answer; try again").WithCause(err)
	}
	what := "cannot be reached" + reason(err)
	if _, ok := errors.AsType[*net.OpError](err); !ok && reason(err) == "" {
		what = "did not answer in HTTP"
	}
	return schemas.Errorf(schemas.CodeUpstreamError, "the model server %s; try again, and have the operator check the backend's url", what).WithCause(err)
}

// broken is the error of a reply whose body ended in err.
func (c *call) broken(err error) *schemas.Error {
	if c.ctx.Err() != nil {
		return inference.ContextError(c.ctx)
	}
	return schemas.Errorf(schemas.CodeUpstreamInterrupted, "the connection to the model server broke%s before the answer was whole; try again", reason(err)).WithCause(err)
}

// reason names a network failure without the address it happened with.
func reason(err error) string {
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

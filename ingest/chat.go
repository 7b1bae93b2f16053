package ingest

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/internal/responses"
	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/schemas"
)

// asked is a request as it came by a door.
type asked struct {
	op        schemas.Op
	body      []byte
	header    schemas.Header           // those that travel with a request, by their names on the bus, and no others
	ids, keys []string                 // values of Llm-Request-Id and of Idempotency-Key
	prefer    []string                 // values of Prefer
	control   []string                 // values of Cache-Control
	allow     func(model string) error // optional: whether the caller may use it
}

// submission is a request for an answer that is fit to be accepted.
type submission struct {
	*exchange
	back    way
	request *schemas.Request // until it is accepted
	named   bool             // by its caller: it may have been sent before
	streams bool             // the answer is wanted as events
	keep    bool             // the request goes on when the caller leaves
	async   bool             // the caller wants to know only that the request is accepted

	background bool            // it goes on without any reader, for as long as it takes
	ended      bool            // it had ended before this call
	object     *schemas.Object // where its body is stored, when that is large
}

// chat answers POST /v1/chat/completions.
func (s *Ingest) chat(c *call) error { return s.ask(c, schemas.OpChat) }

// ask answers a request of an op. Whether it streams is for the body to say: SDKs accept application/json even when they
// want a stream. What it takes to read the request is done when its answer begins, because the stack of a stream keeps the
// size of all that is still under way on it.
func (s *Ingest) ask(c *call, op schemas.Op) error {
	release, err := s.take(c)
	if err != nil {
		return err
	}
	defer release()
	n, err := s.read(c, op)
	if err != nil {
		return err
	}
	return s.begin(n)
}

// read reads a request from the call and checks it.
func (s *Ingest) read(c *call, op schemas.Op) (*submission, error) {
	body, err := s.readBody(c)
	if err != nil {
		return nil, err
	}
	return s.prepare(&c.exchange, c, askedOf(c, op, body))
}

// askedOf is a call as what it asks for.
func askedOf(c *call, op schemas.Op, body []byte) asked {
	a := asked{
		op: op, body: body, header: c.travelling(op),
		ids: c.r.Header.Values(schemas.HeaderRequestID), keys: c.r.Header.Values(headerIdempotencyKey), allow: c.allowModel,
		prefer: c.r.Header.Values(schemas.HeaderPrefer), control: c.r.Header[schemas.HeaderCacheControl],
	}
	c.tellKey(a)
	return a
}

// travelling are the headers that travel with the request.
func (c *call) travelling(op schemas.Op) schemas.Header {
	h := passed(c.r.Header, passedOn)
	if dialectOf(op) == messages {
		c.addMessagesHeaders(h)
	}
	return h
}

// place checks a request, has it accepted and answers it.
func (s *Ingest) place(x *exchange, back way, a asked) error {
	n, err := s.prepare(x, back, a)
	if err != nil {
		return err
	}
	return s.begin(n)
}

// begin has a request accepted and answers it.
func (s *Ingest) begin(n *submission) error {
	if n.named {
		return s.join(n)
	}
	return s.submit(n)
}

// prepare checks a request.
func (s *Ingest) prepare(x *exchange, back way, a asked) (*submission, error) {
	parsed, err := openai.ParseRequest(a.op, a.body, openai.Policy{})
	if err != nil {
		return nil, err
	}
	id, err := chosenID(x.id.Tenant, a)
	if err != nil {
		return nil, err
	}
	if id != "" {
		back.name(id)
	}
	request, err := newRequest(x.id, a, parsed)
	if err != nil {
		return nil, err
	}
	n := &submission{
		exchange: x, back: back, request: request, named: id != "",
		streams: parsed.Stream, keep: keeps(request, id != ""), async: prefers(a.prefer, schemas.PreferAsync),
	}
	if a.op == schemas.OpResponses {
		err = n.respond(parsed)
	}
	return n, err
}

// respond checks a request for a response that came by a door which gives the frames themselves: they hold the chunks that
// the response is made of, whether it streams or not.
func (n *submission) respond(parsed *openai.Request) error {
	asked, err := responses.Parse(parsed.Body)
	if err != nil {
		return err
	}
	n.streams, n.background = true, asked.Background
	_, err = responses.ToChat(parsed, openai.Policy{})
	return err
}

// newRequest makes the request that is published.
func newRequest(id identity, a asked, parsed *openai.Request) (*schemas.Request, error) {
	token, err := schemas.EncodeModel(parsed.Model)
	if err != nil {
		return nil, err
	}
	if a.allow != nil {
		if err := a.allow(parsed.Model); err != nil {
			return nil, err
		}
	}
	if err := a.cacheControl(); err != nil {
		return nil, err
	}
	if err := schemas.ValidateRequestHeaders(a.header); err != nil {
		return nil, err
	}
	if dialectOf(a.op) == messages {
		if err := checkMessages(a.header, parsed.Body); err != nil {
			return nil, err
		}
	}
	if v := first(a.header, schemas.HeaderOp); v != "" && schemas.Op(v) != a.op {
		return nil, schemas.Errorf(schemas.CodeInvalidValue, "header %s is %q, but this route is for %q: leave the header out", schemas.HeaderOp, v, a.op)
	}
	deadline, err := schemas.ParseDeadline(first(a.header, schemas.HeaderDeadline))
	return &schemas.Request{
		Identity: id, ModelToken: token, Op: a.op, Deadline: deadline,
		Priority: schemas.Priority(first(a.header, schemas.HeaderPriority)), Header: a.header, Body: parsed.Body,
	}, err
}

func first(h schemas.Header, name string) string {
	if v := h[name]; len(v) > 0 {
		return v[0]
	}
	return ""
}

// passed keeps the headers that names lists, by the names that it gives them.
func passed(from schemas.Header, names map[string]string) schemas.Header {
	h := make(schemas.Header, 4)
	for name, v := range from {
		if to := names[name]; to != "" && len(v) > 0 && v[0] != "" {
			h[to] = v[:1:1]
		}
	}
	return h
}

// passedOn are the headers that travel with a request, by their names in HTTP. The door has its own span and its own id for
// the request; the bus writes both.
var passedOn = travelling(http.CanonicalHeaderKey)

func travelling(spelled func(string) string) map[string]string {
	names := make(map[string]string)
	for _, name := range schemas.RequestHeaders() {
		names[spelled(name)] = name
	}
	for _, own := range []string{schemas.HeaderTraceParent, schemas.HeaderTraceState, schemas.HeaderRequestID} {
		delete(names, spelled(own))
	}
	return names
}

// submit accepts a request that nobody can have sent before and answers it.
func (s *Ingest) submit(n *submission) error {
	return n.attend(false, func() (finished bool, err error) {
		// The reader comes first, so that no frame is missed.
		reader, err := s.cfg.Bus.Open(n.ctx, n.id, bus.ReadOptions{Fresh: true})
		if err != nil {
			return true, unreachable(err)
		}
		defer reader.Close()
		if _, err := s.accept(n); err != nil {
			return !unknownOutcome(err), err
		}
		// A stream may be open for long, and the request is on the bus: what it has is not kept here too.
		var accepted *schemas.Frame
		if n.waits() {
			accepted = n.acceptedFrame()
		}
		n.forget()
		if n.background {
			s.makeFindable(n, accepted)
		}
		return n.answer(reader.Frames(n.ctx), func() { s.makeFindable(n, accepted) })
	})
}

// waits reports whether the request may have to be found before anything has happened to it. A whole answer over HTTP has
// nothing to tell before it is there.
func (n *submission) waits() bool {
	_, overHTTP := n.back.(*call)
	return n.streams || n.async || n.background || !overHTTP
}

// forget lets go of what the bus has.
func (n *submission) forget() {
	n.request = nil
	n.letGo()
}

// accept stores the request. A caller that leaves meanwhile must not leave the outcome open.
func (s *Ingest) accept(n *submission) (bus.Accepted, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.ctx), s.cfg.AcceptTimeout)
	defer cancel()
	accepted, err := s.cfg.Bus.Accept(ctx, n.request)
	n.object, n.placed = accepted.Object, err == nil
	return accepted, err
}

// unknownOutcome reports whether a request may have been accepted although the answer was an error.
func unknownOutcome(err error) bool {
	return errors.Is(err, bus.ErrUnresolved) || errors.Is(err, context.DeadlineExceeded)
}

// answer gives the caller its answer, or tells it that the request is accepted when it asked for no more.
func (n *submission) answer(all frames, held func()) (finished bool, err error) {
	if n.async {
		return n.acknowledge(all, held)
	}
	return n.back.answer(n.streams, all, held)
}

func (c *call) answer(streams bool, all frames, held func()) (finished bool, err error) {
	if streams {
		return c.stream(all, streaming{held: held})
	}
	return c.unary(all)
}

// attend is the call's reading of its own request. Nobody needs to read one in background.
func (n *submission) attend(shared bool, read func() (finished bool, err error)) error {
	if n.background {
		_, err := read()
		return err
	}
	return n.s.attend(n.exchange, n.keep, shared, read)
}

// makeFindable tells every ingest that the request exists although nothing has happened to it yet. It is no claim: when
// somebody has begun, that is as good.
func (s *Ingest) makeFindable(n *submission, accepted *schemas.Frame) {
	ctx := n.ctx
	if n.background { // the caller may leave at once
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, findableTimeout)
	defer cancel()
	_, err := s.cfg.Bus.Append(ctx, n.id, 0, accepted)
	if err != nil && !errors.Is(err, bus.ErrFenced) && n.ctx.Err() == nil {
		n.log(slog.LevelWarn, "a queued request cannot be found until it starts", slog.Any(telemetry.KeyError, err))
	}
}

// acceptedFrame says that the request exists. Of a response it holds the request body, from which a queued response is
// told (docs/adr/0009); a large one is where it is stored already.
func (n *submission) acceptedFrame() *schemas.Frame {
	f := &schemas.Frame{
		Kind: schemas.KindAccepted, Op: n.request.Op, Writer: newWriter(), BodyHash: schemas.BodyHash(n.request.Body), Trace: bus.TraceParent(n.ctx),
	}
	if n.request.Op == schemas.OpResponses {
		if f.Object = n.object; f.Object == nil {
			f.Data = n.request.Body
		}
	}
	return f
}

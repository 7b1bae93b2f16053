package ingest

import (
	"context"
	"errors"
	"log/slog"
	"net/http"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/schemas"
)

// submission is a request for an answer that is fit to be accepted.
type submission struct {
	*call
	request *schemas.Request
	streams bool // the answer is wanted as events
	keep    bool // the request goes on when the caller leaves
}

// chat answers POST /v1/chat/completions.
func (s *Ingest) chat(c *call) error { return s.ask(c, schemas.OpChat) }

// ask answers a request of an op. Whether it streams is for the body to say: SDKs accept application/json even when they
// want a stream.
func (s *Ingest) ask(c *call, op schemas.Op) error {
	release, err := s.take()
	if err != nil {
		return err
	}
	defer release()
	body, err := s.readBody(c)
	if err != nil {
		return err
	}
	parsed, err := openai.ParseRequest(op, body, openai.Policy{})
	if err != nil {
		return err
	}
	named, err := c.chooseID()
	if err != nil {
		return err
	}
	request, err := c.newRequest(op, parsed)
	if err != nil {
		return err
	}
	n := &submission{call: c, request: request, streams: parsed.Stream, keep: keeps(request, named)}
	if named {
		return s.join(n)
	}
	return s.submit(n)
}

// newRequest makes the request that is published, with the headers that travel with one and no others.
func (c *call) newRequest(op schemas.Op, parsed *openai.Request) (*schemas.Request, error) {
	token, err := schemas.EncodeModel(parsed.Model)
	if err != nil {
		return nil, err
	}
	h := make(schemas.Header, 4)
	for name, v := range c.r.Header {
		if to := passedOn[name]; to != "" && len(v) > 0 && v[0] != "" {
			h[to] = v[:1:1]
		}
	}
	if err := schemas.ValidateRequestHeaders(h); err != nil {
		return nil, err
	}
	if dialectOf(op) == messages {
		if err := c.messagesHeaders(h, parsed.Body); err != nil {
			return nil, err
		}
	}
	if v := c.r.Header.Get(schemas.HeaderOp); v != "" && schemas.Op(v) != op {
		return nil, schemas.Errorf(schemas.CodeInvalidValue, "header %s is %q, but this route is for %q: leave the header out", schemas.HeaderOp, v, op)
	}
	deadline, err := schemas.ParseDeadline(c.r.Header.Get(schemas.HeaderDeadline))
	return &schemas.Request{
		Identity: c.id, ModelToken: token, Op: op, Deadline: deadline,
		Priority: schemas.Priority(c.r.Header.Get(schemas.HeaderPriority)), Header: h, Body: parsed.Body,
	}, err
}

// passedOn are the headers that travel with a request, by their names in HTTP. The door has its own span and its own id for
// the request; the bus writes both.
var passedOn = func() map[string]string {
	names := make(map[string]string)
	for _, name := range schemas.RequestHeaders() {
		names[http.CanonicalHeaderKey(name)] = name
	}
	for _, own := range []string{schemas.HeaderTraceParent, schemas.HeaderTraceState, schemas.HeaderRequestID} {
		delete(names, http.CanonicalHeaderKey(own))
	}
	return names
}()

// submit accepts a request that nobody can have sent before and answers it.
func (s *Ingest) submit(n *submission) error {
	return s.attend(n.call, n.keep, false, func() (finished bool, err error) {
		// The reader comes first, so that no frame is missed.
		reader, err := s.cfg.Bus.Open(n.ctx, n.id, bus.ReadOptions{Fresh: true})
		if err != nil {
			return true, unreachable(err)
		}
		defer reader.Close()
		if _, err := s.accept(n); err != nil {
			return !unknownOutcome(err), err
		}
		return n.answer(reader.Frames(n.ctx), func() { s.makeFindable(n) })
	})
}

// accept stores the request. A caller that leaves meanwhile must not leave the outcome open.
func (s *Ingest) accept(n *submission) (bus.Accepted, error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(n.ctx), s.cfg.AcceptTimeout)
	defer cancel()
	return s.cfg.Bus.Accept(ctx, n.request)
}

// unknownOutcome reports whether a request may have been accepted although the answer was an error.
func unknownOutcome(err error) bool {
	return errors.Is(err, bus.ErrUnresolved) || errors.Is(err, context.DeadlineExceeded)
}

// answer gives the caller its answer in the form it asked for. The optional held runs when no event came for so long that
// the status is sent without one.
func (n *submission) answer(all frames, held func()) (finished bool, err error) {
	if n.streams {
		return n.stream(all, streaming{held: held})
	}
	return n.unary(all)
}

// makeFindable tells every ingest that the request exists although nothing has happened to it yet. It is no claim: when
// somebody has begun, that is as good.
func (s *Ingest) makeFindable(n *submission) {
	ctx, cancel := context.WithTimeout(n.ctx, findableTimeout)
	defer cancel()
	_, err := s.cfg.Bus.Append(ctx, n.id, 0, &schemas.Frame{
		Kind: schemas.KindAccepted, Op: n.request.Op, Writer: newWriter(), BodyHash: schemas.BodyHash(n.request.Body), Trace: bus.TraceParent(n.ctx),
	})
	if err != nil && !errors.Is(err, bus.ErrFenced) && n.ctx.Err() == nil {
		n.log(slog.LevelWarn, "a queued request cannot be found until it starts", slog.Any(telemetry.KeyError, err))
	}
}

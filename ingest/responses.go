package ingest

import (
	"bytes"
	"errors"
	"net/http"

	"github.com/weir-llm/weir/internal/openai"
	"github.com/weir-llm/weir/internal/responses"
	"github.com/weir-llm/weir/schemas"
)

// createResponse answers POST /v1/responses.
func (s *Ingest) createResponse(c *call) error {
	release, err := s.take(c)
	if err != nil {
		return err
	}
	defer release()
	n, err := s.readResponse(c)
	if err != nil {
		return err
	}
	return s.begin(n)
}

// readResponse reads a request for a response from the call and checks it.
func (s *Ingest) readResponse(c *call) (*submission, error) {
	body, err := s.readBody(c)
	if err != nil {
		return nil, err
	}
	parsed, asked, err := s.readResponseRequest(c, body)
	if err != nil {
		return nil, err
	}
	a := askedOf(c, schemas.OpResponses, parsed.Body)
	id, err := chosenID(c.id.Tenant, a)
	if err != nil {
		return nil, err
	}
	if id != "" {
		c.name(id)
	}
	request, err := newRequest(c.id, a, parsed)
	if err != nil {
		return nil, err
	}
	back := &responder{call: c, asked: asked}
	n := &submission{
		exchange: &c.exchange, back: back, request: request, named: id != "",
		streams: parsed.Stream, keep: keeps(request, id != ""), background: asked.Background,
	}
	back.submission = n
	return n, nil
}

// responder is the way back of a response.
type responder struct {
	*call
	asked      *responses.Request
	submission *submission
}

// readResponseRequest checks a body for all that would end in an error later, and resolves the response that it goes on
// from.
func (s *Ingest) readResponseRequest(c *call, body []byte) (*openai.Request, *responses.Request, error) {
	parsed, err := openai.ParseRequest(schemas.OpResponses, body, openai.Policy{})
	if err != nil {
		return nil, nil, err
	}
	asked, err := responses.Parse(parsed.Body)
	if err != nil {
		return nil, nil, err
	}
	if asked.Previous != "" {
		if body, err = s.continued(c, asked.Previous, parsed.Body); err != nil {
			return nil, nil, err
		}
		if parsed, err = openai.ParseRequest(schemas.OpResponses, body, openai.Policy{}); err != nil {
			return nil, nil, err
		}
		if asked, err = responses.Parse(parsed.Body); err != nil {
			return nil, nil, err
		}
	}
	if _, err := responses.ToChat(parsed, openai.Policy{}); err != nil {
		return nil, nil, err
	}
	return parsed, asked, nil
}

// continued is the body of a request that goes on from an earlier response, with the whole conversation as its input.
func (s *Ingest) continued(c *call, previous string, body []byte) ([]byte, error) {
	unknown := schemas.Errorf(schemas.CodePreviousNotFound, "there is no response %.100q to go on from: it is unknown, was not stored, or is no longer kept; send the whole conversation as input", previous).
		WithParam(memberPrevious)
	request, ok := responses.RequestID(previous)
	if !ok || schemas.ValidateRequestID(request) != nil {
		return nil, unknown
	}
	earlier, err := s.findResponse(c.ctx, identity{Tenant: c.id.Tenant, Request: request})
	if errors.Is(err, errNoResponse) {
		return nil, unknown
	}
	if err != nil {
		return nil, err
	}
	if !earlier.ended() || earlier.status() != schemas.StatusCompleted {
		return nil, schemas.Errorf(schemas.CodeInvalidValue, "%s names a response that has not ended, or that failed: go on from one that was completed", memberPrevious).
			WithParam(memberPrevious)
	}
	player, err := earlier.play(responses.Silent)
	if err != nil {
		return nil, err
	}
	extended := responses.Continue(earlier.body, player.AppendOutput(nil), body)
	if int64(len(extended)) > s.cfg.MaxBodyBytes {
		return nil, schemas.Errorf(schemas.CodeRequestTooLarge, "the conversation with %s has more than %d bytes: begin a new one with what matters of it", memberPrevious, s.cfg.MaxBodyBytes).
			WithParam(memberPrevious)
	}
	return extended, nil
}

const memberPrevious = "previous_response_id"

// answer answers with the response that follows from the frames of the request.
func (r *responder) answer(streams bool, all frames, held func()) (finished bool, err error) {
	background := r.asked.Background
	if streams {
		player := responses.NewPlayer(r.id.Request, r.asked, responses.FromStart)
		return r.streamResponse(all, player, streaming{held: held}, background)
	}
	player := responses.NewPlayer(r.id.Request, r.asked, responses.Silent)
	for f, err := range all {
		if err != nil {
			return false, err
		}
		r.tellCache(f)
		r.note(f)
		if background && !r.submission.ended { // it is queued, even if a worker was faster than this answer
			player.Open(f)
			return false, r.write(http.StatusOK, player.AppendResponse(nil))
		}
		if _, err := player.Append(nil, f); err != nil {
			return false, err
		}
		switch {
		case f.Kind == schemas.KindError && !background:
			return true, failureOf(f)
		case f.Kind.Terminal():
			return true, r.write(http.StatusOK, player.AppendResponse(nil))
		}
	}
	return false, errEnded
}

// streamResponse answers with the events of a response. Unless they are wanted at once, those before the first chunk are
// held back with the HTTP status.
func (c *call) streamResponse(all frames, player *responses.Player, how streaming, atOnce bool) (finished bool, err error) {
	if how.held == nil {
		how.held = func() {}
	}
	out := newEventStream(c, how.held)
	defer out.close()
	finished, err = out.play(all, player, atOnce)
	if err == nil || !out.opened() {
		return finished, err
	}
	failure := asError(c.ctx, err)
	switch {
	case failure == nil: // as in [call.stream]
		c.broken = true
		return finished, err
	case how.resumable && failure.Code == schemas.CodeShutdown && !finished:
		c.broken = true
		return finished, err
	}
	return finished, errors.Join(err, out.piece(player.AppendError(nil, failure)))
}

// play writes the events that follow from every frame.
func (e *eventStream) play(all frames, player *responses.Player, atOnce bool) (finished bool, err error) {
	var held []byte // what waits for the first chunk
	for f, err := range all {
		if err != nil {
			return false, err
		}
		e.tellCache(f)
		e.c.note(f)
		if f.Start != nil {
			e.begun()
		}
		atOnce = atOnce || e.opened()
		if f.Kind == schemas.KindError && !atOnce {
			return true, failureOf(f)
		}
		buf := e.c.s.buffers.take() // an idle stream holds none
		events, err := player.Append(append((*buf)[:0], held...), f)
		*buf = events
		switch {
		case err != nil || len(events) == 0 && !f.Kind.Terminal(): // at the end nothing is an answer too: that of a reader who has it all
		case atOnce || f.Count > 0 || f.Kind.Terminal():
			held, err = nil, e.piece(events)
		default:
			held = bytes.Clone(events)
		}
		e.c.s.buffers.give(buf)
		if err != nil || f.Kind.Terminal() {
			return f.Kind.Terminal(), err
		}
	}
	return false, errEnded
}

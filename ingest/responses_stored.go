package ingest

import (
	"context"
	"errors"
	"net/http"
	"strconv"

	"github.com/tidwall/gjson"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/eventlog"
	"github.com/weir-llm/weir/internal/responses"
	"github.com/weir-llm/weir/schemas"
)

// errNoResponse says that the tenant has no such response that may be retrieved.
var errNoResponse = errors.New("there is no such response")

// response is a stored response: its run and the request that it answers.
type response struct {
	run
	id    identity
	asked *responses.Request
	body  []byte
}

// frames are all there are, from the first on.
func (r *response) frames() frames {
	switch {
	case r.fromTheStart():
		return chainFrames(r.chain)
	case r.result != nil:
		return resultFrames(r.result)
	}
	return r.replay(0) // which says what is missing
}

// play follows the response as far as it has got.
func (r *response) play(after int64) (*responses.Player, error) {
	player := responses.NewPlayer(r.id.Request, r.asked, after)
	for f, err := range r.frames() {
		if err != nil {
			return nil, err
		}
		if _, err := player.Append(nil, f); err != nil {
			return nil, err
		}
	}
	return player, nil
}

// findResponse looks a response up. For an id that never was, one of another tenant, one of another kind of request and
// one that was not to be stored the error is errNoResponse.
func (s *Ingest) findResponse(ctx context.Context, id identity) (*response, error) {
	there, err := s.findResult(ctx, id)
	if err != nil {
		return nil, err
	}
	if !there.exists() || there.deleted() {
		return nil, errNoResponse
	}
	r := &response{run: there, id: id}
	if r.body, err = s.requestBody(ctx, id, &r.run); err != nil {
		return nil, err
	}
	if r.asked, err = responses.Parse(r.body); err != nil || !r.asked.Store {
		return nil, errNoResponse
	}
	return r, nil
}

// findResult looks for the result first, which is one message where a chain is many, and a response is asked for again
// and again. Only what has none yet, or was too large for it, is read from its chain.
func (s *Ingest) findResult(ctx context.Context, id identity) (run, error) {
	result, err := s.cfg.Bus.Result(ctx, id)
	switch {
	case errors.Is(err, bus.ErrNotFound), err == nil && !eventlog.Kept(result.Events):
		return s.find(ctx, id)
	case err != nil:
		return run{}, unreachable(err)
	}
	return run{chain: &bus.Chain{}, result: result}, nil
}

// requestBody is the body of a Responses request, from wherever it is at the request's stage of life: in the frame that
// says that it was accepted, in the work item of whoever runs it, and in the result in the end. The work item is gone only
// once there is a result.
func (s *Ingest) requestBody(ctx context.Context, id identity, there *run) ([]byte, error) {
	if there.result == nil {
		if body := there.chain.Frames[0].Data; there.chain.Frames[0].Kind == schemas.KindAccepted && len(body) > 0 {
			return body, nil
		}
		if start := there.chain.Start(); start != nil {
			body, err := s.workBody(ctx, id, start.Start.Work)
			if !errors.Is(err, bus.ErrNotFound) {
				return body, err
			}
		}
		result, err := s.cfg.Bus.Result(ctx, id)
		if errors.Is(err, bus.ErrNotFound) {
			return nil, errNoResponse
		}
		if err != nil {
			return nil, unreachable(err)
		}
		there.result = result
	}
	if there.result.Op != schemas.OpResponses || len(there.result.Request) == 0 {
		return nil, errNoResponse
	}
	return there.result.Request, nil
}

// inBackground reports whether a request is a background response, which goes on whoever reads it.
func (s *Ingest) inBackground(ctx context.Context, id identity, there run) bool {
	if !there.exists() || there.op() != schemas.OpResponses {
		return false
	}
	body, err := s.requestBody(ctx, id, &there)
	if err != nil {
		return false
	}
	asked, err := responses.Parse(body)
	return err == nil && asked.Background
}

// workBody is the body of the work item that a request runs as.
func (s *Ingest) workBody(ctx context.Context, id identity, sequence uint64) ([]byte, error) {
	request, err := s.cfg.Bus.WorkRequest(ctx, id, sequence)
	if err == nil && request.Op != schemas.OpResponses {
		return nil, errNoResponse
	}
	var body []byte
	if err == nil {
		body, err = s.cfg.Bus.Body(ctx, request)
	}
	if err != nil && !errors.Is(err, bus.ErrNotFound) {
		return nil, unreachable(err)
	}
	return body, err
}

// lookupResponse finds the response that the path names.
func (s *Ingest) lookupResponse(c *call) (*response, error) {
	unknown := schemas.Errorf(schemas.CodeNotFound, "there is no response %.100q: check the id; a response with \"store\": false is not kept, and others are kept for a limited time", c.r.PathValue("id"))
	request, ok := responses.RequestID(c.r.PathValue("id"))
	if !ok || schemas.ValidateRequestID(request) != nil {
		return nil, unknown
	}
	c.name(request)
	r, err := s.findResponse(c.ctx, c.id)
	if errors.Is(err, errNoResponse) {
		return nil, unknown
	}
	return r, err
}

// retrieveResponse answers GET /v1/responses/{id}: with the response as it stands, or with its events from the beginning or
// from behind one, also of a response that has ended.
func (s *Ingest) retrieveResponse(c *call) error {
	release, err := s.take(c)
	if err != nil {
		return err
	}
	defer release()
	r, err := s.lookupResponse(c)
	if err != nil {
		return err
	}
	streams, err := s.wantsEvents(c)
	if err != nil {
		return err
	}
	if streams {
		return s.replayResponse(c, r)
	}
	return c.writeResponse(r)
}

// wantsEvents reports whether a response is to be read as a stream. The SDK for Go says so in the body of its GET.
func (s *Ingest) wantsEvents(c *call) (bool, error) {
	if query := c.r.URL.Query(); query.Has("stream") {
		switch query.Get("stream") {
		case "true":
			return true, nil
		case "false":
			return false, nil
		}
		return false, schemas.Errorf(schemas.CodeInvalidValue, "stream is %.20q: use true or false", query.Get("stream")).WithParam("stream")
	}
	if c.r.ContentLength == 0 {
		return false, nil
	}
	body, err := s.readBody(c)
	return gjson.GetBytes(body, "stream").Type == gjson.True, err
}

func (c *call) writeResponse(r *response) error {
	player, err := r.play(responses.Silent)
	if err != nil {
		return err
	}
	return c.write(http.StatusOK, player.AppendResponse(nil))
}

func (s *Ingest) replayResponse(c *call, r *response) error {
	after, err := c.startingAfter(r)
	if err != nil {
		return err
	}
	player, how := responses.NewPlayer(c.id.Request, r.asked, after), streaming{resumable: true}
	if r.ended() {
		_, err := c.streamResponse(r.frames(), player, how, true)
		return err
	}
	read := func() (finished bool, err error) {
		reader, err := s.cfg.Bus.Open(c.ctx, c.id, bus.ReadOptions{})
		if err != nil {
			return false, unreachable(err)
		}
		defer reader.Close()
		return c.streamResponse(reader.Frames(c.ctx), player, how, true)
	}
	if r.asked.Background {
		_, err := read()
		return err
	}
	s.announce(c.ctx, c.id)
	return s.attend(&c.exchange, true, true, read)
}

// startingAfter is the sequence number behind which the caller wants the events. One that no event has yet cannot have
// been seen.
func (c *call) startingAfter(r *response) (int64, error) {
	query := c.r.URL.Query()
	if !query.Has(paramStartingAfter) {
		return responses.FromStart, nil
	}
	value := query.Get(paramStartingAfter)
	after, err := strconv.ParseInt(value, 10, 64)
	if err != nil || after < 0 {
		return 0, schemas.Errorf(schemas.CodeInvalidValue, "%s is %.100q: give the sequence_number of the last event you saw", paramStartingAfter, value).WithParam(paramStartingAfter)
	}
	player, err := r.play(responses.Silent)
	if err != nil {
		return 0, err
	}
	if after >= player.Next() {
		return 0, schemas.Errorf(schemas.CodeInvalidValue, "%s is %d, but the response has only %d events so far: give the sequence_number of the last event you saw", paramStartingAfter, after, player.Next()).
			WithParam(paramStartingAfter)
	}
	return after, nil
}

// cancelResponse answers POST /v1/responses/{id}/cancel with the response. It is idempotent, and once it has answered the
// response has ended.
func (s *Ingest) cancelResponse(c *call) error {
	r, err := s.lookupResponse(c)
	if err != nil {
		return err
	}
	if r.run, err = s.stop(&c.exchange, r.run, schemas.CancelledByCaller); err != nil {
		return err
	}
	return c.writeResponse(r)
}

// deleteResponse answers DELETE /v1/responses/{id}: it cancels, removes what was asked and answered, and leaves a tombstone.
func (s *Ingest) deleteResponse(c *call) error {
	r, err := s.lookupResponse(c)
	if err != nil {
		return err
	}
	if err := s.remove(c, r.run); err != nil {
		return err
	}
	return c.writeJSON(http.StatusOK, struct {
		ID      string `json:"id"`
		Object  string `json:"object"`
		Deleted bool   `json:"deleted"`
	}{responses.ID(c.id.Request), "response", true})
}

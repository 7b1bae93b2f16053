package ingest

import (
	"encoding/json"
	"errors"
	"net/http"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// How far a request is that has not ended. The endings are those of [schemas.Status].
const (
	statusQueued  schemas.Status = "queued"
	statusRunning schemas.Status = "running"
)

const (
	headerLastEventID  = "Last-Event-ID"
	paramStartingAfter = "starting_after"
)

// target takes the request id from the path. One that cannot exist is as unknown as any other.
func (c *call) target() error {
	id := c.r.PathValue("id")
	if schemas.ValidateRequestID(id) != nil {
		return unknown()
	}
	c.name(id)
	return nil
}

func unknown() error {
	return schemas.Errorf(schemas.CodeStreamNotFound, "there is no such request: check the id, which is the X-Request-Id of the answer; results are kept for a limited time")
}

// lookup finds the request that the path names.
func (s *Ingest) lookup(c *call) (run, error) {
	if err := c.target(); err != nil {
		return run{}, err
	}
	return s.existing(&c.exchange)
}

// existing finds the exchange's request, which may be accepted and not yet begun.
func (s *Ingest) existing(x *exchange) (run, error) {
	there, err := s.find(x.ctx, x.id)
	if err != nil {
		return run{}, err
	}
	if !there.exists() && !s.readers.known(x.id) {
		return run{}, unknown()
	}
	return there, nil
}

// stream answers GET /v1/streams/{id}: the events of a request from the beginning or from behind a cursor, whether the
// request runs or has ended, for any number of readers.
func (s *Ingest) stream(c *call) error {
	release, err := s.take(c)
	if err != nil {
		return err
	}
	defer release()
	there, err := s.lookup(c)
	if err != nil {
		return err
	}
	if there.exists() {
		c.dialect = dialectOf(there.op())
		c.name(c.id.Request) // whose header depends on it
	}
	from, err := c.cursor()
	if err != nil {
		return err
	}
	return s.readOn(&c.exchange, there, from, func(all frames) (finished bool, err error) {
		return c.stream(all, streaming{resumable: true})
	})
}

// readOn answers with the events of a request from one on, as they are kept or as they come.
func (s *Ingest) readOn(x *exchange, there run, from uint64, answer func(frames) (finished bool, err error)) error {
	if from > there.events() {
		return schemas.Errorf(schemas.CodeInvalidValue, "the cursor names event %d, but the stream has only %d so far: send the id of the last event you saw", from-1, there.events())
	}
	if there.ended() {
		_, err := answer(there.replay(from))
		return err
	}
	read := func() (finished bool, err error) {
		reader, err := s.cfg.Bus.Open(x.ctx, x.id, bus.ReadOptions{From: from})
		if err != nil {
			return false, unreachable(err)
		}
		defer reader.Close()
		return answer(reader.Frames(x.ctx))
	}
	if s.inBackground(x.ctx, x.id, there) {
		_, err := read()
		return err
	}
	s.announce(x.ctx, x.id)
	return s.attend(x, true, true, read)
}

// cursor is the index of the first event that the caller wants. A browser that reconnects repeats the URL and adds the
// header, so the header is the newer of the two.
func (c *call) cursor() (from uint64, err error) {
	if id := c.r.Header.Get(headerLastEventID); id != "" {
		return schemas.After(c.id.Request, id)
	}
	query := c.r.URL.Query()
	if !query.Has(paramStartingAfter) {
		return 0, nil
	}
	from, err = schemas.StartingAfter(c.id.Request, query.Get(paramStartingAfter))
	if e, ok := errors.AsType[*schemas.Error](err); ok {
		return 0, e.WithParam(paramStartingAfter)
	}
	return from, nil
}

// result answers GET /v1/streams/{id}/result: the final record, or 202 while there is none.
func (s *Ingest) result(c *call) error {
	if err := c.target(); err != nil {
		return err
	}
	o, ended, err := s.outcome(&c.exchange)
	if err != nil {
		return err
	}
	if !ended {
		c.w.Header().Set("Retry-After", "1")
		if o.Status == statusQueued {
			tellWaiting(c.w.Header(), c.waiting())
		}
		return c.writeJSON(http.StatusAccepted, o)
	}
	return c.writeJSON(http.StatusOK, o)
}

// outcome is the final record of the exchange's request, or how far it is.
func (s *Ingest) outcome(x *exchange) (o schemas.Outcome, ended bool, err error) {
	record, err := s.cfg.Bus.Result(x.ctx, x.id)
	if err == nil {
		return recorded(record), true, nil
	}
	if !errors.Is(err, bus.ErrNotFound) {
		return o, false, unreachable(err)
	}
	there, err := s.existing(x)
	if err != nil {
		return o, false, err
	}
	status := there.status()
	if there.ended() {
		status = statusRunning // the result follows from whoever holds the request
	}
	return schemas.Outcome{ID: x.id.Request, Status: status}, false, nil
}

func recorded(r *schemas.Result) schemas.Outcome {
	o := schemas.Outcome{
		ID: r.RequestID, Status: r.Status, Model: r.Model, Usage: r.Usage, Cost: r.Cost, FinishReasons: r.FinishReasons,
		Response: r.Response, Attempts: r.Attempts, FirstTokenMS: r.FirstTokenMS, DurationMS: r.DurationMS,
		Deleted: r.Status == schemas.StatusDeleted,
	}
	if !r.Accepted.IsZero() {
		o.Accepted = r.Accepted.Unix()
	}
	if !r.Finished.IsZero() {
		o.Finished = r.Finished.Unix()
	}
	var wrapped struct {
		Error json.RawMessage `json:"error"`
	}
	if json.Unmarshal(r.Error, &wrapped) == nil {
		o.Error = wrapped.Error
	}
	return o
}

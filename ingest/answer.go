package ingest

import (
	"errors"
	"iter"
	"net/http"

	"github.com/weir-llm/weir/schemas"
)

// frames are those of one request in order, up to the terminal one or an error.
type frames = iter.Seq2[*schemas.Frame, error]

// errEnded says that the frames ended without a terminal one, which no source of them does.
var errEnded = errors.New("the frames ended before the request did")

// unary answers with the whole response, or with an error and its true status. finished reports whether the request has
// ended, whatever became of the caller.
func (c *call) unary(all frames) (finished bool, err error) {
	stop := c.tellProcessing()
	defer stop()
	for f, err := range all {
		if err != nil || f.Kind != schemas.KindAccepted {
			stop()
		}
		if err == nil {
			c.note(f)
		}
		switch {
		case err != nil:
			return false, err
		}
		c.tellCache(f)
		switch {
		case f.Kind == schemas.KindError:
			return true, failureOf(f)
		case f.Kind == schemas.KindEnd && f.Count == 0:
			return true, schemas.AsError(errors.New("a unary request ended without a response"))
		case f.Kind == schemas.KindEnd:
			return true, c.write(http.StatusOK, f.Data)
		}
	}
	return false, errEnded
}

// streaming is how a stream of events is answered.
type streaming struct {
	held      func() // optional: runs before the status is sent for want of an event
	resumable bool   // the caller reads by cursor: it comes back after a broken connection, but not after an error
}

// stream answers with server-sent events.
func (c *call) stream(all frames, how streaming) (finished bool, err error) {
	if how.held == nil {
		how.held = func() {}
	}
	out := newEventStream(c, how.held)
	defer out.close()
	finished, err = out.copy(all, how)
	if err == nil || !out.opened() {
		return finished, err
	}
	failure := asError(c.ctx, err)
	switch {
	case failure == nil: // the caller is gone, or has closed only the sending half and still listens
		c.broken = true
		return finished, err
	case how.resumable && failure.Code == schemas.CodeShutdown && !finished:
		c.broken = true
		return finished, err
	}
	return finished, errors.Join(err, out.fail(failure))
}

// copy writes every frame. It returns the error that the request, or the reading of it, ended in.
func (e *eventStream) copy(all frames, how streaming) (finished bool, err error) {
	for f, err := range all {
		if err != nil {
			return false, err
		}
		e.c.note(f)
		if !how.resumable {
			e.tellCache(f)
		}
		if f.Start != nil {
			e.begun()
		}
		if how.resumable && f.Start != nil {
			e.speak(dialectOf(opOf(f)))
		}
		switch f.Kind {
		case schemas.KindError:
			return true, failureOf(f)
		case schemas.KindDelta:
			if f.Count > 0 { // a worker that hands a request back says nothing to the caller (docs/adr/0005)
				err = e.events(f)
			}
		case schemas.KindEnd:
			return true, e.end(f, how)
		}
		if err != nil {
			return false, err
		}
	}
	return false, errEnded
}

// end finishes a whole answer. A unary one is a single event. A stream that is read by cursor has an end mark in every
// dialect, because nothing else tells its reader that a unary answer was all.
func (e *eventStream) end(f *schemas.Frame, how streaming) error {
	if f.Count > 0 {
		return e.whole(f, how.resumable)
	}
	return e.done(how.resumable)
}

// note takes from a frame what the router says of the tenant's limits. That of another caller's request is old.
func (c *call) note(f *schemas.Frame) {
	if f.Allowance != "" && c.placed {
		c.told = schemas.ParseAllowance(f.Allowance)
	}
}

// failureOf is the error that an error frame holds.
func failureOf(f *schemas.Frame) *schemas.Error {
	e, err := schemas.DecodeError(f.Data)
	if err != nil {
		return schemas.AsError(err)
	}
	return e
}

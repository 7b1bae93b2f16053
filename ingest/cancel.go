package ingest

import (
	"context"
	"net/http"

	"github.com/weir-llm/weir/schemas"
)

// cancel answers POST /v1/streams/{id}/cancel. It is idempotent, and once it has answered the request has ended.
func (s *Ingest) cancel(c *call) error {
	there, err := s.lookup(c)
	if err != nil {
		return err
	}
	if there, err = s.stop(&c.exchange, there, schemas.CancelledByCaller); err != nil {
		return err
	}
	return c.writeJSON(http.StatusOK, schemas.Outcome{ID: c.id.Request, Status: there.status(), Deleted: there.status() == schemas.StatusDeleted})
}

// erase answers DELETE /v1/streams/{id}: it cancels, removes what was asked and answered, and leaves a tombstone.
func (s *Ingest) erase(c *call) error {
	there, err := s.lookup(c)
	if err != nil {
		return err
	}
	if err := s.remove(c, there); err != nil {
		return err
	}
	return c.writeJSON(http.StatusOK, schemas.Outcome{ID: c.id.Request, Status: schemas.StatusDeleted, Deleted: true})
}

// remove cancels a request and erases what was asked and answered.
func (s *Ingest) remove(c *call, there run) error {
	if there.deleted() {
		return nil
	}
	if _, err := s.stop(&c.exchange, there, schemas.CancelledByErasure); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(c.ctx), cancelTimeout)
	defer cancel()
	if err := s.cfg.Bus.Erase(ctx, c.id); err != nil {
		return unreachable(err)
	}
	return nil
}

// stop ends the request unless it has ended, and tells how. A caller that leaves meanwhile does not undo it.
func (s *Ingest) stop(x *exchange, there run, by schemas.CancelledBy) (run, error) {
	if there.ended() {
		return there, nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(x.ctx), cancelTimeout)
	defer cancel()
	if err := s.cfg.Bus.CancelRequest(ctx, x.id, schemas.Cancelled(by)); err != nil {
		return there, unreachable(err)
	}
	return s.find(ctx, x.id)
}

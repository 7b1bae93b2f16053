package client

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"net/http"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// How far a request is that has not ended, as a door tells it.
const (
	statusQueued  schemas.Status = "queued"
	statusRunning schemas.Status = "running"
)

func (t *overHTTP) result(ctx context.Context, id schemas.Identity) (*schemas.Result, error) {
	status, body, err := t.call(ctx, http.MethodGet, "/v1/streams/"+id.Request+"/result")
	if e, ok := errors.AsType[*schemas.Error](err); ok && e.Code == schemas.CodeStreamNotFound || err == nil && status == http.StatusAccepted {
		return nil, fmt.Errorf("%s: %w", id, ErrNotFound)
	}
	if err != nil {
		return nil, err
	}
	var o schemas.Outcome
	if err := json.Unmarshal(body, &o); err != nil {
		return nil, schemas.AsError(fmt.Errorf("decode the result of %s: %w", id, err))
	}
	return recordOf(&o, id), nil
}

// recordOf is the outcome as a record, without what a door does not tell.
func recordOf(o *schemas.Outcome, id schemas.Identity) *schemas.Result {
	r := &schemas.Result{
		V: schemas.Version, Tenant: id.Tenant, RequestID: id.Request, Model: o.Model, Status: o.Status, Usage: o.Usage,
		FinishReasons: o.FinishReasons, Response: o.Response, Attempts: o.Attempts, FirstTokenMS: o.FirstTokenMS, DurationMS: o.DurationMS,
	}
	if o.Accepted > 0 {
		r.Accepted = time.Unix(o.Accepted, 0)
	}
	if o.Finished > 0 {
		r.Finished = time.Unix(o.Finished, 0)
	}
	if len(o.Error) > 0 {
		r.Error = fmt.Appendf(nil, `{"error":%s}`, o.Error)
	}
	return r
}

func (t *overHTTP) await(ctx context.Context, id schemas.Identity) error {
	return ended(ctx, id, t.resume(ctx, id, 0))
}

// ended reads a stream to its end. What it ends in is for the result to tell.
func ended(ctx context.Context, id schemas.Identity, stream iter.Seq2[Event, error]) error {
	for _, err := range stream {
		if e, ok := errors.AsType[*schemas.Error](err); ok && e.Code == schemas.CodeStreamNotFound {
			return fmt.Errorf("%s: %w", id, ErrNotFound)
		}
		if err != nil && ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	return nil
}

func (t *overHTTP) cancel(ctx context.Context, id schemas.Identity) error {
	_, _, err := t.call(ctx, http.MethodPost, "/v1/streams/"+id.Request+"/cancel")
	return err
}

// call does what may be done twice, until a door has answered. One that cannot now is asked again.
func (t *overHTTP) call(ctx context.Context, method, path string) (status int, body []byte, err error) {
	err = t.retry(ctx, func() error {
		response, err := t.do(ctx, method, path, nil, nil)
		if err != nil {
			return later(err)
		}
		defer response.Body.Close()
		status = response.StatusCode
		if body, err = io.ReadAll(io.LimitReader(response.Body, maxAnswer)); err != nil {
			return &broken{cause: err}
		}
		return nil
	})
	return status, body, err
}

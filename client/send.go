package client

import (
	"context"
	"crypto/rand"
	"errors"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// Send hands a request to the pipeline and returns its id once it is stored durably; the answer is to be had with
// [Client.Resume], [Client.Wait] or over HTTP. On an error the request may have been stored all the same: send it again
// with the id, which is returned in any case.
func (c *Client) Send(ctx context.Context, request Request) (id string, err error) {
	r, chosen, err := request.prepare()
	if err != nil {
		return "", err
	}
	if chosen {
		if ended, err := c.known(ctx, r); err != nil || ended {
			return r.Identity.Request, err
		}
	}
	if err := c.accept(ctx, r, true); err != nil {
		return r.Identity.Request, err
	}
	return r.Identity.Request, nil
}

// accept stores the request. With findable it leaves a first frame, so that whoever asks for the request while it is
// queued learns that there is one.
func (c *Client) accept(ctx context.Context, r *schemas.Request, findable bool) error {
	accepted, err := c.bus.Accept(ctx, r)
	if err != nil {
		return err
	}
	if accepted.Duplicate {
		_, err := c.known(ctx, r)
		return err
	}
	if !findable {
		return nil
	}
	frame := &schemas.Frame{Kind: schemas.KindAccepted, Op: r.Op, Writer: rand.Text()[:12], BodyHash: schemas.BodyHash(r.Body), Trace: bus.TraceParent(ctx)}
	// The request is accepted whatever becomes of the frame, and a fence only means that it has begun.
	_, _ = c.bus.Append(ctx, r.Identity, 0, frame)
	return nil
}

// known looks for an earlier request with the same id. It reports whether that one has ended; an error says that its body
// was another.
func (c *Client) known(ctx context.Context, r *schemas.Request) (ended bool, err error) {
	result, err := c.bus.Result(ctx, r.Identity)
	if err == nil {
		return true, sameBody(r, result.BodyHash)
	}
	if !errors.Is(err, bus.ErrNotFound) {
		return false, err
	}
	chain, err := c.bus.Chain(ctx, r.Identity)
	if err != nil {
		return false, err
	}
	return false, sameBody(r, chain.BodyHash())
}

func sameBody(r *schemas.Request, hash string) error {
	if hash == "" || hash == schemas.BodyHash(r.Body) {
		return nil
	}
	return schemas.ReusedID(r.Identity.Request)
}

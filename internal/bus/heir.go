package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/schemas"
)

// heirTimeout is how long a router has to tell who inherits a run. It writes at most one frame before.
const heirTimeout = 500 * time.Millisecond

// ErrUnanswered says that no router knows the answer at the moment, although one may soon.
var ErrUnanswered = errors.New("no router answers")

// Heir asks who inherits the run of a request that is about to end without it: an equal request, as work for the model, or
// nil when nobody shares the run. It is [ErrUnanswered] after half a second without a word.
func (b *Bus) Heir(ctx context.Context, modelToken string, id schemas.Identity) (*schemas.Work, error) {
	waiting, cancel := context.WithTimeout(ctx, heirTimeout)
	defer cancel()
	reply, err := b.control.RequestWithContext(waiting, id.Heir(), nil)
	switch {
	case errors.Is(err, nats.ErrNoResponders), errors.Is(err, context.DeadlineExceeded) && ctx.Err() == nil:
		return nil, ErrUnanswered
	case err != nil:
		return nil, wrap("ask who inherits the run of "+id.String(), err)
	case len(reply.Header) == 0 && len(reply.Data) == 0:
		return nil, nil
	}
	return schemas.DecodeWork(modelToken, schemas.Header(reply.Header), reply.Data)
}

// OnHeir calls fn for every question who inherits a run until stop is called. Calls do not overlap; fn must not block. The
// answer is given later, or not at all; nil says that nobody does.
func (b *Bus) OnHeir(fn func(id schemas.Identity, answer func(*schemas.Work))) (stop func(), err error) {
	return b.listen(schemas.HeirsAll, func(msg *nats.Msg) {
		id, ok := schemas.ParseIdentity(msg.Subject)
		if !ok || msg.Reply == "" {
			return
		}
		fn(id, func(heir *schemas.Work) {
			out := &nats.Msg{Subject: msg.Reply}
			if heir != nil {
				out.Header, out.Data = nats.Header(heir.Encode()), heir.Body
			}
			if err := b.control.PublishMsg(out); err != nil {
				b.log.Warn("who inherits a run was not told; the worker asks again", "request_id", id.Request, "tenant", id.Tenant, "error", err)
			}
		})
	})
}

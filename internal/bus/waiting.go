package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go"

	"github.com/weir-llm/weir/schemas"
)

// waitingTimeout is how long a router has to tell where a request stands. It is told from memory.
const waitingTimeout = 500 * time.Millisecond

// Waiting asks where a request stands in the queue. It is nil when no router says that the request waits, which takes
// half a second to find out; nothing is known for certain either way.
func (b *Bus) Waiting(ctx context.Context, id schemas.Identity) (*schemas.Waiting, error) {
	ctx, cancel := context.WithTimeout(ctx, waitingTimeout)
	defer cancel()
	reply, err := b.control.RequestWithContext(ctx, id.Position(), nil)
	if errors.Is(err, nats.ErrNoResponders) || errors.Is(err, context.DeadlineExceeded) {
		return nil, nil
	}
	if err != nil {
		return nil, wrap("ask where "+id.String()+" stands", err)
	}
	return schemas.DecodeWaiting(reply.Data)
}

// OnWaiting calls fn for every question about a request that may wait until stop is called. Calls do not overlap; fn must
// not block. The answer is given later, or not at all.
func (b *Bus) OnWaiting(fn func(id schemas.Identity, answer func(*schemas.Waiting))) (stop func(), err error) {
	return b.listen(schemas.PositionsAll, func(msg *nats.Msg) {
		id, ok := schemas.ParseIdentity(msg.Subject)
		if !ok || msg.Reply == "" {
			return
		}
		fn(id, func(w *schemas.Waiting) {
			if err := b.control.Publish(msg.Reply, w.Encode()); err != nil {
				b.log.Debug("the place of a request was not told", "request_id", id.Request, "tenant", id.Tenant, "error", err)
			}
		})
	})
}

package bus

import (
	"cmp"
	"context"
	"errors"
	"fmt"

	"github.com/weir-llm/weir/schemas"
)

// repeated looks at what JetStream took a request for a copy of, since it compares ids alone, and completes the receipt. The
// error is [schemas.ReusedID] when another request waits under the id.
func (b *Bus) repeated(ctx context.Context, receipt Accepted, r *schemas.Request) (Accepted, error) {
	var earlier *schemas.Request
	err := surely(ctx, func() (err error) {
		earlier, err = b.waiting(ctx, r.Identity, receipt.Sequence)
		return err
	})
	switch {
	case errors.Is(err, ErrNotFound):
		receipt.Waits = false
		return receipt, nil
	case err != nil:
		return Accepted{}, unavailable(fmt.Errorf("look for the request that %s repeats: %w: %w", r.Identity, ErrUnresolved, err))
	case !sameRequest(earlier, r):
		return Accepted{}, schemas.ReusedID(r.Request)
	}
	receipt.Object = earlier.Object
	return receipt, nil
}

// waiting is what waits under a sequence of LLM_REQUESTS or, when a router has put the request off, in LLM_RETRY, by the
// word of the streams' leaders. The error is [ErrNotFound] when neither has it.
func (b *Bus) waiting(ctx context.Context, id schemas.Identity, sequence uint64) (*schemas.Request, error) {
	m, err := b.getMessage(ctx, schemas.StreamRequests, map[string]any{"seq": sequence})
	if errors.Is(err, ErrNotFound) {
		held, err := b.Held(ctx, id)
		if err != nil {
			return nil, err
		}
		return &held.Request, nil
	}
	if err != nil {
		return nil, err
	}
	r, err := schemas.DecodeRequest(m.Subject, m.Sequence, m.Header, m.Data)
	if err != nil {
		return &schemas.Request{}, nil // nobody's: what a door has stored can be read
	}
	return r, nil
}

// sameRequest reports whether two requests are one, as far as a caller can tell.
func sameRequest(a, b *schemas.Request) bool {
	return a.Identity == b.Identity && a.BodyHash() == b.BodyHash() && cmp.Or(a.Op, schemas.OpChat) == cmp.Or(b.Op, schemas.OpChat)
}

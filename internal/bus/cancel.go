package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/weir-llm/weir/schemas"
)

// cancelGrace is how long the owner of a request has to end it by itself after a hint.
const cancelGrace = time.Second

// CancelRequest ends a request that was accepted, whoever is down: it sends the hint, and if the owner has not ended the
// request within a second it writes the terminal frame itself through the fence. It returns nil when the request has
// ended, be it by this call or before. The result follows from whoever holds the request.
func (b *Bus) CancelRequest(ctx context.Context, id schemas.Identity, reason *schemas.Error) error {
	if _, err := b.Result(ctx, id); err == nil {
		return nil
	}
	reader, err := b.Open(ctx, id, ReadOptions{Tail: true})
	if err != nil {
		return err
	}
	defer reader.Close()
	if err := b.Cancel(id, reason.CancelledBy()); err != nil {
		return err
	}
	waiting, stop := context.WithTimeout(ctx, cancelGrace)
	defer stop()
	for f, err := range reader.frames(waiting) {
		if err == nil && f.Kind.Terminal() {
			return nil
		}
	}
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	return b.writeCancel(ctx, id, reason)
}

// writeCancel appends the terminal frame behind whatever is last. A live owner may win a few rounds.
func (b *Bus) writeCancel(ctx context.Context, id schemas.Identity, reason *schemas.Error) error {
	for range 100 {
		last, err := b.lastFrame(ctx, id)
		if err != nil && !errors.Is(err, ErrNotFound) {
			return err
		}
		if last == nil {
			if _, err := b.getLast(ctx, schemas.StreamResults, id.Result()); !errors.Is(err, ErrNotFound) {
				return err // it has ended, and its frames are erased
			}
			last = &schemas.Frame{}
		}
		if last.Kind.Terminal() {
			return nil
		}
		_, err = b.Append(ctx, id, last.Sequence, &schemas.Frame{
			Kind: schemas.KindError, Attempt: last.Attempt, Writer: rand.Text()[:12], Index: last.Next(), Data: reason.Encode(),
			Trace:   TraceParent(ctx),
			Summary: (&schemas.Summary{Status: schemas.StatusOf(reason), Attempts: last.Attempt, CancelledBy: reason.CancelledBy()}).Encode(),
		})
		if !errors.Is(err, ErrFenced) {
			return err
		}
	}
	return fmt.Errorf("cancel %s: its owner keeps writing; the hint was sent: %w", id, ErrUnresolved)
}

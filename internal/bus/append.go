package bus

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/schemas"
)

// Append writes the next frame of a request and blocks until it is committed. The write succeeds only if the chain's last
// frame has the sequence expect, 0 for an empty chain. At most one Append per request may be under way in a process.
//
// It returns the frame's sequence, or [ErrFenced] when the chain went on without the caller, or [ErrUnresolved] when the
// outcome was still unknown after 30 s, or the cause of ctx, which leaves the outcome unknown too. Payload and
// expectation stay the same over all tries, so that a try whose answer was lost is recognised in the chain (docs/adr/0001).
func (b *Bus) Append(ctx context.Context, id schemas.Identity, expect uint64, f *schemas.Frame) (uint64, error) {
	if err := b.offloadFrame(ctx, id, f); err != nil {
		return 0, err
	}
	msg := &nats.Msg{Subject: id.Chunks(), Header: f.Encode(), Data: f.Data}
	if f.Object != nil {
		msg.Data = nil
	}
	msg.Header[schemas.HeaderExpectedSeq] = []string{strconv.FormatUint(expect, 10)}
	acked, err := publish(ctx, b.frames, msg)
	if err == nil {
		b.meters.ok.Inc()
		return acked.Sequence, nil
	}
	began := time.Now()
	sequence, outcome, err := b.resolve(ctx, id, msg, f, err)
	outcome.Inc()
	b.meters.stalled.Observe(time.Since(began).Seconds())
	return sequence, err
}

// resolve goes on until it is certain whether the frame is committed.
func (b *Bus) resolve(ctx context.Context, id schemas.Identity, msg *nats.Msg, f *schemas.Frame, err error) (uint64, prometheus.Counter, error) {
	deadline := time.Now().Add(resolveTimeout)
	for {
		if ctx.Err() != nil {
			return 0, b.meters.unresolved, context.Cause(ctx)
		}
		if time.Now().After(deadline) || hopeless(err) {
			return 0, b.meters.unresolved, fmt.Errorf("append a frame of %s: %w: %w", id, ErrUnresolved, err)
		}
		answer, _ := errors.AsType[*jsError](err)
		if answer != nil && answer.ErrCode == codeWrongLastSequence {
			// A leader that does not answer is asked again; the expectation keeps a repeated write harmless.
			if sequence, known := b.ownsLast(ctx, id, f); known && sequence > 0 {
				return sequence, b.meters.committed, nil
			} else if known {
				return 0, b.meters.fenced, ErrFenced
			}
		}
		if waitErr := sleep(ctx, retryWait(answer)); waitErr != nil {
			return 0, b.meters.unresolved, waitErr
		}
		acked, tryErr := publish(ctx, b.frames, msg)
		if tryErr == nil {
			return acked.Sequence, b.meters.retried, nil
		}
		err = tryErr
	}
}

// ownsLast asks the leader whether the chain's last frame is f. Sequence 0 says that it is not; known is false when the
// leader could not be asked.
func (b *Bus) ownsLast(ctx context.Context, id schemas.Identity, f *schemas.Frame) (sequence uint64, known bool) {
	last, err := b.lastFrame(ctx, id)
	switch {
	case errors.Is(err, ErrNotFound), errors.Is(err, ErrDamaged):
		return 0, true
	case err != nil:
		return 0, false
	case last.Same(f):
		return last.Sequence, true
	}
	return 0, true
}

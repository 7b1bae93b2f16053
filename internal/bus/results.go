package bus

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/schemas"
)

// PutResult stores the final record of a request. The first writer wins; it returns nil when there was a record already.
func (b *Bus) PutResult(ctx context.Context, r *schemas.Result) error {
	_, err := b.putResult(ctx, r)
	return err
}

// putResult reports whether r is the record now. A store without room is waited for: the request has ended, and giving
// its result up would lose it.
func (b *Bus) putResult(ctx context.Context, r *schemas.Result) (won bool, err error) {
	id := r.Identity()
	ctx, span := b.startSend(ctx, "llm.results.{tenant}.{request}", id)
	defer span.End()
	msg := nats.NewMsg(id.Result())
	msg.Data = r.Encode()
	var object *schemas.Object
	if len(msg.Data) > schemas.InlineBytes {
		if object, err = b.putObject(ctx, id, msg.Data); err != nil {
			return false, err
		}
		msg.Header[schemas.HeaderObject] = []string{object.String()}
		msg.Data = nil
	}
	if r.Charge != nil {
		msg.Header[schemas.HeaderCharge] = []string{r.Charge.String()}
	}
	msg.Header[schemas.HeaderExpectedSeq] = []string{"0"}
	inject(ctx, msg.Header)
	_, err = b.publishStored(ctx, msg, func(e *jsError) bool { return transient(e) || e.ErrCode == codeStoreFailed })
	if answered(err, codeWrongLastSequence) {
		return false, b.dropPayload(ctx, id, object)
	}
	return err == nil, wrap("store the result of "+id.String(), err)
}

// dropPayload removes the payload of a record that was not the first, which would outlive the erasure of the request. The
// record that is stored may be this very one, when only the answer to an earlier try was lost.
func (b *Bus) dropPayload(ctx context.Context, id schemas.Identity, object *schemas.Object) error {
	if object == nil {
		return nil
	}
	stored, err := b.getLast(ctx, schemas.StreamResults, id.Result())
	if err != nil && !errors.Is(err, ErrNotFound) {
		return wrap("look for the result of "+id.String(), err)
	}
	if stored != nil && header(stored.Header, schemas.HeaderObject) == object.String() {
		return nil
	}
	return b.eraseObject(ctx, object.Name)
}

// Result is the final record of a request, or [ErrNotFound].
func (b *Bus) Result(ctx context.Context, id schemas.Identity) (*schemas.Result, error) {
	m, err := b.getLast(ctx, schemas.StreamResults, id.Result())
	if err != nil {
		return nil, err
	}
	r, err := b.decodeResult(ctx, m.Header, m.Data)
	if errors.Is(err, ErrNotFound) {
		return nil, fmt.Errorf("the result of %s is stored, but not its payload: %v", id, err) // there is one, so not ErrNotFound
	}
	return r, err
}

// DecodeResult reads a delivery of LLM_RESULTS.
func (b *Bus) DecodeResult(ctx context.Context, d *Delivery) (*schemas.Result, error) {
	return b.decodeResult(ctx, d.Header, d.Data)
}

func (b *Bus) decodeResult(ctx context.Context, h schemas.Header, data []byte) (*schemas.Result, error) {
	object, err := schemas.ParseObject(header(h, schemas.HeaderObject))
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	if object != nil {
		if data, err = b.getObject(ctx, object); err != nil {
			return nil, err
		}
	}
	r, err := schemas.DecodeResult(data)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return r, nil
}

// Erase removes the payloads of a finished request from the log and leaves a tombstone as its result. Of the chain an error
// stays, so that an item that is still queued, and a worker that has it and was asleep, find the request ended.
func (b *Bus) Erase(ctx context.Context, id schemas.Identity) error {
	b.awaitResult(ctx, id)
	cacheKey, err := b.bury(ctx, id)
	if err != nil {
		return err
	}
	if err := b.forgetAnswer(ctx, id.Tenant, cacheKey); err != nil {
		return err
	}
	if err := b.seal(ctx, id); err != nil {
		return err
	}
	return b.eraseObjects(ctx, id)
}

// seal leaves nothing of a chain but an error at its end. One that ended otherwise is given the error first, and the rest is
// removed then: an empty chain could be claimed by a worker that slept since before its first claim. Readers stop at the first
// end, so that they do not see two.
func (b *Bus) seal(ctx context.Context, id schemas.Identity) error {
	for {
		last, err := b.lastFrame(ctx, id)
		switch {
		case errors.Is(err, ErrDamaged):
			if err := b.purge(ctx, schemas.StreamReplies, id.Replies(), 0); err != nil {
				return err
			}
			continue
		case errors.Is(err, ErrNotFound):
			last = &schemas.Frame{}
		case err != nil:
			return err
		case last.Kind == schemas.KindError:
			return b.purge(ctx, schemas.StreamReplies, id.Replies(), 1)
		}
		reason := schemas.Deleted()
		_, err = b.Append(ctx, id, last.Sequence, &schemas.Frame{
			Kind: schemas.KindError, Attempt: last.Attempt, Writer: rand.Text()[:12], Index: last.Next(), Op: last.Op, Data: reason.Encode(),
			Summary: (&schemas.Summary{Status: schemas.StatusOf(reason), Attempts: last.Attempt}).Encode(),
		})
		if err != nil && !errors.Is(err, ErrFenced) {
			return err
		}
	}
}

// awaitResult gives whoever ends the request a moment to store its record, from which the tombstone takes what the request
// was.
func (b *Bus) awaitResult(ctx context.Context, id schemas.Identity) {
	for deadline := time.Now().Add(eraseWait); time.Now().Before(deadline); {
		if _, err := b.getLast(ctx, schemas.StreamResults, id.Result()); !errors.Is(err, ErrNotFound) || sleep(ctx, 20*time.Millisecond) != nil {
			return
		}
	}
}

// eraseWait is how long an erasure waits for the record of a request that has just ended.
const eraseWait = 2 * time.Second

// bury puts a tombstone in the place of a result. Whoever finishes the request meanwhile may be faster with a record that
// has payloads, which goes the same way. It returns the key of the cache entry that the request had to do with.
func (b *Bus) bury(ctx context.Context, id schemas.Identity) (cacheKey string, err error) {
	tombstone := &schemas.Result{V: schemas.Version, Tenant: id.Tenant, RequestID: id.Request, Status: schemas.StatusDeleted, Finished: time.Now()}
	for {
		last, err := b.getLast(ctx, schemas.StreamResults, id.Result())
		if err != nil && !errors.Is(err, ErrNotFound) {
			return "", err
		}
		if last != nil {
			old, err := b.decodeResult(ctx, last.Header, last.Data)
			if err == nil {
				tombstone.Accepted, tombstone.Model, tombstone.Op, tombstone.CacheKey = old.Accepted, old.Model, old.Op, old.CacheKey
				tombstone.Usage, tombstone.Cost, tombstone.Cache = old.Usage, old.Cost, old.Cache
			}
			tombstone.Charge = chargeOf(last)
			if err == nil && old.Status == schemas.StatusDeleted {
				return old.CacheKey, nil
			}
			if err := b.purge(ctx, schemas.StreamResults, id.Result(), 0); err != nil {
				return "", err
			}
		}
		if won, err := b.putResult(ctx, tombstone); won || err != nil {
			return tombstone.CacheKey, err
		}
	}
}

// chargeOf is the charge of a record that is about to go, so that what was used stays in the log.
func chargeOf(m *message) *schemas.Charge {
	charge, err := schemas.ParseCharge(header(m.Header, schemas.HeaderCharge))
	if err != nil || charge == nil {
		return nil
	}
	charge.Of = m.Sequence
	return charge
}

func (b *Bus) purge(ctx context.Context, stream, subject string, keep uint64) error {
	s, err := b.js.Stream(ctx, stream)
	if err != nil {
		return fmt.Errorf("look up stream %s: %w", stream, err)
	}
	options := []jetstream.StreamPurgeOpt{jetstream.WithPurgeSubject(subject)}
	if keep > 0 {
		options = append(options, jetstream.WithPurgeKeep(keep))
	}
	return wrap("erase from "+stream, s.Purge(ctx, options...))
}

package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/schemas"
)

// PutResult stores the final record of a request. The first writer wins; it returns nil when there was a record already.
func (b *Bus) PutResult(ctx context.Context, r *schemas.Result) error {
	id := r.Identity()
	ctx, span := b.startSend(ctx, "llm.results.{tenant}.{request}", id)
	defer span.End()
	msg := nats.NewMsg(id.Result())
	msg.Data = r.Encode()
	if len(msg.Data) > schemas.InlineBytes {
		object, err := b.putObject(ctx, id, msg.Data)
		if err != nil {
			return err
		}
		msg.Header[schemas.HeaderObject] = []string{object.String()}
		msg.Data = nil
	}
	msg.Header[schemas.HeaderExpectedSeq] = []string{strconv.Itoa(0)}
	inject(ctx, msg.Header)
	_, err := b.publishStored(ctx, msg)
	if answer, ok := errors.AsType[*jsError](err); ok && (answer.ErrCode == codeWrongLastSequence || answer.ErrCode == codeMaxPerSubject) {
		return nil
	}
	return wrap("store the result of "+id.String(), err)
}

// Result is the final record of a request, or [ErrNotFound].
func (b *Bus) Result(ctx context.Context, id schemas.Identity) (*schemas.Result, error) {
	m, err := b.getLast(ctx, schemas.StreamResults, id.Result())
	if err != nil {
		return nil, err
	}
	return b.decodeResult(ctx, m.Header, m.Data)
}

// DecodeResult reads a delivery of LLM_RESULTS.
func (b *Bus) DecodeResult(ctx context.Context, d *Delivery) (*schemas.Result, error) {
	return b.decodeResult(ctx, d.Header, d.Data)
}

func (b *Bus) decodeResult(ctx context.Context, h schemas.Header, data []byte) (*schemas.Result, error) {
	object, err := schemas.ParseObject(header(h, schemas.HeaderObject))
	if err != nil {
		return nil, err
	}
	if object != nil {
		if data, err = b.getObject(ctx, object); err != nil {
			return nil, err
		}
	}
	return schemas.DecodeResult(data)
}

// TailResults yields the results of a tenant, or of all when tenant is empty, that landed since a time, the zero time
// standing for now. With follow it goes on until ctx ends; without, it ends after the last one that is stored.
func (b *Bus) TailResults(ctx context.Context, tenant string, since time.Time, follow bool) iter.Seq2[*schemas.Result, error] {
	return func(yield func(*schemas.Result, error) bool) {
		consumer, err := b.resultsConsumer(ctx, tenant, since)
		if err != nil {
			yield(nil, err)
			return
		}
		name := consumer.CachedInfo().Name
		defer func() { _ = b.js.DeleteConsumer(context.WithoutCancel(ctx), schemas.StreamResults, name) }()
		if !follow && consumer.CachedInfo().NumPending == 0 {
			return
		}
		puller := b.puller(schemas.StreamResults, name, "")
		defer puller.Close()
		for {
			batch, err := puller.Fetch(ctx, 64)
			if err != nil {
				if !errors.Is(err, context.Canceled) {
					yield(nil, err)
				}
				return
			}
			for _, d := range batch {
				result, err := b.DecodeResult(ctx, d)
				d.Settle(Ack)
				if !yield(result, err) || !follow && d.Pending == 0 {
					return
				}
			}
		}
	}
}

func (b *Bus) resultsConsumer(ctx context.Context, tenant string, since time.Time) (jetstream.Consumer, error) {
	cfg := jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckExplicitPolicy, InactiveThreshold: 30 * time.Second, MemoryStorage: true,
		DeliverPolicy: jetstream.DeliverNewPolicy,
	}
	if tenant != "" {
		if err := schemas.ValidateTenant(tenant); err != nil {
			return nil, err
		}
		cfg.FilterSubject = schemas.TenantResults(tenant)
	}
	if !since.IsZero() {
		cfg.DeliverPolicy, cfg.OptStartTime = jetstream.DeliverByStartTimePolicy, &since
	}
	consumer, err := b.js.CreateConsumer(ctx, schemas.StreamResults, cfg)
	if err != nil {
		return nil, fmt.Errorf("follow results: %w", err)
	}
	return consumer, nil
}

// Erase removes the payloads of a finished request from the log and leaves a tombstone as its result. The terminal frame
// of an unfinished answer stays, so that an item that is still queued finds the request ended.
func (b *Bus) Erase(ctx context.Context, id schemas.Identity) error {
	chain, err := b.Chain(ctx, id)
	if err != nil {
		return err
	}
	tombstone := &schemas.Result{V: schemas.Version, Tenant: id.Tenant, RequestID: id.Request, Status: schemas.StatusDeleted, Finished: time.Now()}
	last, err := b.getLast(ctx, schemas.StreamResults, id.Result())
	if err != nil && !errors.Is(err, ErrNotFound) {
		return err
	}
	objects := chainObjects(chain)
	if last != nil {
		old, err := b.decodeResult(ctx, last.Header, last.Data)
		if err == nil {
			tombstone.Accepted, tombstone.Model, tombstone.Op = old.Accepted, old.Model, old.Op
		}
		if object, err := schemas.ParseObject(header(last.Header, schemas.HeaderObject)); err == nil {
			objects = append(objects, object)
		}
		if err := b.purge(ctx, schemas.StreamResults, id.Result(), 0); err != nil {
			return err
		}
	}
	if err := b.PutResult(ctx, tombstone); err != nil {
		return err
	}
	keep := uint64(0)
	if terminal := chain.Terminal(); terminal != nil && terminal.Kind == schemas.KindError {
		keep = 1
	}
	if err := b.purge(ctx, schemas.StreamReplies, id.Replies(), keep); err != nil {
		return err
	}
	return b.eraseObjects(ctx, objects...)
}

func chainObjects(chain *Chain) (objects []*schemas.Object) {
	for _, f := range chain.Frames {
		objects = append(objects, f.Object)
	}
	return objects
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

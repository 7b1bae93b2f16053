package bus

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/schemas"
)

const tailBatch = 64

// TailResults yields the results of a tenant, or of all when tenant is empty, that landed since a time, the zero time
// standing for now. With follow it goes on until ctx ends; without, it ends after the last one that is stored. An error
// is the last thing yielded: why there is nothing to follow, or the cause of ctx.
//
// A record that cannot be read is logged and left out, so that it does not hide those behind it. The caller may take
// its time, and the server may restart meanwhile; a result may then come twice.
func (b *Bus) TailResults(ctx context.Context, tenant string, since time.Time, follow bool) iter.Seq2[*schemas.Result, error] {
	return func(yield func(*schemas.Result, error) bool) {
		t, err := b.openTail(ctx, tenant, since)
		if err != nil {
			yield(nil, err)
			return
		}
		defer func() { t.close(ctx) }()
		for follow || !t.done {
			batch, err := t.next(ctx)
			if err != nil {
				yield(nil, err)
				return
			}
			for _, d := range batch {
				result, err := t.read(ctx, d)
				if err != nil {
					yield(nil, err)
					return
				}
				if result != nil && !yield(result, nil) {
					return
				}
			}
		}
	}
}

// tail follows LLM_RESULTS with a consumer of its own, which the server forgets when it restarts, or when nobody has
// asked for a while.
type tail struct {
	bus      *Bus
	config   jetstream.ConsumerConfig
	consumer jetstream.Consumer
	puller   *Puller
	last     uint64 // sequence of the last result that was delivered
	done     bool   // nothing more was stored when the server last said so
}

func (b *Bus) openTail(ctx context.Context, tenant string, since time.Time) (*tail, error) {
	t := &tail{bus: b, config: jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckExplicitPolicy, InactiveThreshold: 30 * time.Second, MemoryStorage: true,
		DeliverPolicy: jetstream.DeliverNewPolicy,
	}}
	if tenant != "" {
		if err := schemas.ValidateTenant(tenant); err != nil {
			return nil, err
		}
		t.config.FilterSubject = schemas.TenantResults(tenant)
	}
	if !since.IsZero() {
		t.config.DeliverPolicy, t.config.OptStartTime = jetstream.DeliverByStartTimePolicy, &since
	}
	return t, t.open(ctx)
}

func (t *tail) open(ctx context.Context) error {
	consumer, err := t.bus.js.CreateConsumer(ctx, schemas.StreamResults, t.config)
	if err != nil {
		return fmt.Errorf("follow results: %w", err)
	}
	t.consumer = consumer
	info := consumer.CachedInfo()
	t.last = max(t.last, info.Delivered.Stream)
	t.done = info.NumPending == 0
	t.puller = t.bus.puller(schemas.StreamResults, info.Name, "")
	return nil
}

func (t *tail) close(ctx context.Context) {
	t.puller.Close()
	_ = t.bus.js.DeleteConsumer(context.WithoutCancel(ctx), schemas.StreamResults, t.consumer.CachedInfo().Name)
}

// next blocks for results, or until the server was asked, after a silence, whether there are more. It acknowledges what
// it returns: the lease must not run while the caller looks at the results.
func (t *tail) next(ctx context.Context) ([]*Delivery, error) {
	waiting, stop := context.WithTimeout(ctx, tailCheck)
	batch, err := t.puller.Fetch(waiting, tailBatch)
	stop()
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if len(batch) == 0 && err != nil {
		return nil, t.check(ctx)
	}
	for _, d := range batch {
		d.Settle(Ack)
		t.last = max(t.last, d.Sequence)
		t.done = d.Pending == 0
	}
	return batch, nil
}

// check makes the consumer anew when the server has forgotten it, or does not answer: it has no replicas, and may be on a server
// that is lost. While that cannot be done it is asked again later.
func (t *tail) check(ctx context.Context) error {
	info, err := t.consumer.Info(ctx)
	if err == nil {
		t.done = info.NumPending+uint64(info.NumAckPending) == 0
		return nil
	}
	before := t.puller
	t.config.DeliverPolicy, t.config.OptStartTime, t.config.OptStartSeq = jetstream.DeliverByStartSequencePolicy, nil, t.last+1
	failed := t.open(ctx)
	if failed == nil {
		before.Close()
	}
	if errors.Is(err, jetstream.ErrConsumerNotFound) {
		return failed
	}
	return nil
}

// read decodes a delivery, or returns nil for one that never can be.
func (t *tail) read(ctx context.Context, d *Delivery) (r *schemas.Result, err error) {
	err = surely(ctx, func() error {
		r, err = t.bus.DecodeResult(ctx, d)
		return err
	})
	if err == nil {
		return r, nil
	}
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	t.bus.log.Warn("a result cannot be read and is left out", "subject", d.Subject, "sequence", d.Sequence, "error", err)
	return nil, nil
}

package bus

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/schemas"
)

func (b *Bus) routerConsumer(partition int) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: schemas.RouterConsumer(partition), FilterSubject: schemas.QueueFilter(partition),
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: b.cfg.Lease, MaxDeliver: -1,
		MaxAckPending:  requestsAckPending / schemas.Partitions,
		PriorityPolicy: jetstream.PriorityPolicyPinned, PinnedTTL: pinnedTTL, PriorityGroups: []string{schemas.RouterGroup},
	}
}

func (b *Bus) workConsumer(modelToken string) jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: schemas.WorkConsumer(modelToken), FilterSubject: schemas.WorkSubject(modelToken),
		AckPolicy: jetstream.AckExplicitPolicy, AckWait: b.cfg.Lease, MaxDeliver: -1,
		MaxAckPending: workWaiting, MaxWaiting: workWaiting,
	}
}

func (b *Bus) sinkConsumer() jetstream.ConsumerConfig {
	return jetstream.ConsumerConfig{
		Durable: schemas.ConsumerSink, AckPolicy: jetstream.AckExplicitPolicy, AckWait: b.cfg.Lease, MaxDeliver: -1,
		MaxAckPending: 20_000,
	}
}

// EnsureWorkConsumer creates the consumer of a model that a worker is about to serve. A cluster that is electing its leaders
// is asked again for 30 s, as by [Bus.Setup].
func (b *Bus) EnsureWorkConsumer(ctx context.Context, modelToken string) error {
	return b.patiently(ctx, func() error { return b.ensureConsumer(ctx, schemas.StreamWork, b.workConsumer(modelToken)) })
}

// ensureConsumer creates a consumer, or updates the lease of the one that is there.
func (b *Bus) ensureConsumer(ctx context.Context, stream string, want jetstream.ConsumerConfig) error {
	live, err := b.js.Consumer(ctx, stream, want.Durable)
	if err == nil && live.CachedInfo().Config.AckWait == want.AckWait {
		return nil
	}
	if err != nil && !errors.Is(err, jetstream.ErrConsumerNotFound) {
		return fmt.Errorf("look up consumer %s of %s: %w", want.Durable, stream, err)
	}
	if _, err := b.js.CreateOrUpdateConsumer(ctx, stream, want); err != nil {
		return fmt.Errorf("create consumer %s of %s: %w", want.Durable, stream, err)
	}
	return nil
}

// ResetConsumers makes everything that was delivered and not settled available again at once. It may be called only
// while nobody else works on the store: `serve` calls it when it starts over its own.
func (b *Bus) ResetConsumers(ctx context.Context) error {
	for _, stream := range []string{schemas.StreamRequests, schemas.StreamWork, schemas.StreamRetry, schemas.StreamResults} {
		s, err := b.js.Stream(ctx, stream)
		if err != nil {
			return fmt.Errorf("look up stream %s: %w", stream, err)
		}
		names := s.ConsumerNames(ctx)
		for name := range names.Name() {
			if err := b.callConsumer(ctx, "RESET", stream, name, nil); err != nil {
				return err
			}
		}
		if err := names.Err(); err != nil {
			return fmt.Errorf("list consumers of %s: %w", stream, err)
		}
	}
	return nil
}

func (b *Bus) callConsumer(ctx context.Context, verb, stream, consumer string, body []byte) error {
	reply, err := b.control.RequestWithContext(ctx, "$JS.API.CONSUMER."+verb+"."+stream+"."+consumer, body)
	if err == nil {
		if e := apiError(reply.Data); e != nil {
			err = e
		}
	}
	return wrap(strings.ToLower(verb)+" consumer "+consumer+" of "+stream, err)
}

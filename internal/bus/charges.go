package bus

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"github.com/weir-llm/weir/schemas"
)

// Charged is what a record of LLM_RESULTS says of the use of limits.
type Charged struct {
	schemas.Identity
	Sequence uint64
	Time     time.Time       // when it was stored, by the stream's clock
	Charge   *schemas.Charge // nil when it says nothing
}

// Charges yields what every result behind a sequence says of the use of limits, in the order of the log and each once, until
// fn returns false or ctx ends, whose cause it returns. Only headers are read. caught is called once, when all that was
// stored before the call has been told.
func (b *Bus) Charges(ctx context.Context, behind uint64, caught func(), fn func(Charged) bool) error {
	for {
		c := &charges{bus: b, last: behind, caught: caught}
		err := c.follow(ctx, fn)
		if behind, caught = c.last, c.caught; c.stopped {
			return nil
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if err != nil {
			b.log.Warn("following what requests have used failed; it is tried again", "error", err)
			if err := sleep(ctx, time.Second); err != nil {
				return err
			}
		}
	}
}

// LastResult is the last sequence of LLM_RESULTS.
func (b *Bus) LastResult(ctx context.Context) (uint64, error) {
	stream, err := b.js.Stream(ctx, schemas.StreamResults)
	if err != nil {
		return 0, fmt.Errorf("look up stream %s: %w", schemas.StreamResults, err)
	}
	return stream.CachedInfo().State.LastSeq, nil
}

// charges follows LLM_RESULTS with a consumer of its own, which acknowledges nothing: a delivery that is missed shows as a
// gap in the consumer's own count, and then a new consumer begins behind the last one that came.
type charges struct {
	bus      *Bus
	consumer jetstream.Consumer
	last     uint64 // in the stream
	order    uint64 // in the consumer
	caught   func()
	stopped  bool
}

// follow returns when the consumer has to be made anew, with an error when that should wait.
func (c *charges) follow(ctx context.Context, fn func(Charged) bool) (err error) {
	c.consumer, err = c.bus.js.CreateConsumer(ctx, schemas.StreamResults, jetstream.ConsumerConfig{
		AckPolicy: jetstream.AckNonePolicy, HeadersOnly: true, MemoryStorage: true, Replicas: 1, InactiveThreshold: 30 * time.Second,
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: c.last + 1,
	})
	if err != nil {
		return fmt.Errorf("follow results: %w", err)
	}
	info := c.consumer.CachedInfo()
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), tryTimeout)
		defer cancel()
		_ = c.bus.js.DeleteConsumer(ctx, schemas.StreamResults, info.Name)
	}()
	puller := c.bus.puller(schemas.StreamResults, info.Name, "")
	defer puller.Close()
	if info.NumPending == 0 {
		c.upToDate()
	}
	for {
		waiting, stop := context.WithTimeout(ctx, tailCheck)
		batch, err := puller.Fetch(waiting, maxPull)
		stop()
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if len(batch) == 0 && err != nil {
			if again, err := c.check(ctx); again || err != nil {
				return err
			}
		}
		for _, d := range batch {
			if d.Order != c.order+1 {
				return nil
			}
			c.order, c.last = d.Order, d.Sequence
			if id, ok := schemas.ParseIdentity(d.Subject); ok && !fn(charged(id, d)) {
				c.stopped = true
				return nil
			}
			if d.Pending == 0 {
				c.upToDate()
			}
		}
	}
}

func (c *charges) upToDate() {
	if c.caught != nil {
		c.caught()
		c.caught = nil
	}
}

// check reports whether the consumer is gone, or has delivered what never came. One that does not answer may be on a server that
// is lost, since it has no replicas, and is made anew.
func (c *charges) check(ctx context.Context) (again bool, err error) {
	info, err := c.consumer.Info(ctx)
	switch {
	case errors.Is(err, jetstream.ErrConsumerNotFound):
		return true, nil
	case err != nil:
		return false, err
	case info.Delivered.Consumer != c.order:
		return true, nil
	case info.NumPending == 0:
		c.upToDate()
	}
	return false, nil
}

func charged(id schemas.Identity, d *Delivery) Charged {
	charge, err := schemas.ParseCharge(header(d.Header, schemas.HeaderCharge))
	if err != nil {
		charge = nil // anyone in the account can write a result
	}
	return Charged{Identity: id, Sequence: d.Sequence, Time: d.Time, Charge: charge}
}

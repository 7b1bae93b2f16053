// Package sink keeps the result of every request for good. It takes results from LLM_RESULTS in batches, commits a batch
// to a [Store] and only then acknowledges it.
//
// **Every result that the bus has stored is in the store in the end, once.** What makes it so:
//
//  1. A result is acknowledged after the commit. A sink that dies before leaves it on the bus, and it is delivered again.
//  2. The store knows a record by identity and time of acceptance, so that one delivered again changes nothing.
//  3. When the store fails, the batch at hand is held and tried again until it succeeds; what comes after waits on the
//     bus. [Sink.Ready] says so meanwhile. Nothing is dropped for it.
//  4. A record that cannot be read, or that the store can never keep, goes to the DLQ with the reason, and the rest of
//     its batch is kept without it.
//
// A request with "store": false in its body leaves metadata alone.
package sink

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cenkalti/backoff/v4"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/telemetry"
)

// Config of a [Sink].
type Config struct {
	Bus   *bus.Bus // required
	Store Store    // required; the caller closes it after Run has returned

	BatchSize  int // records in a commit; default 512
	BatchBytes int // bytes of records in a commit, exceeded by at most one record; default 16 MiB

	RetryWait    time.Duration // after the first failure; it doubles up to RetryMax. Default 100 ms
	RetryMax     time.Duration // default 5 s
	DrainTimeout time.Duration // how long Run goes on after its context is done to keep what is there; default 10 s

	Logger     *slog.Logger          // optional
	Registerer prometheus.Registerer // optional
}

func (c *Config) setDefaults() error {
	if c.Bus == nil || c.Store == nil {
		return errors.New("sink: it needs a bus and a store")
	}
	if c.BatchSize < 0 || c.BatchBytes < 0 {
		return fmt.Errorf("sink: a batch of %d records and %d bytes: use positive numbers, or 0 for the default", c.BatchSize, c.BatchBytes)
	}
	orDefault(&c.BatchSize, 512)
	orDefault(&c.BatchBytes, 16<<20)
	orDefault(&c.RetryWait, 100*time.Millisecond)
	orDefault(&c.RetryMax, 5*time.Second)
	orDefault(&c.DrainTimeout, 10*time.Second)
	if c.Logger == nil {
		c.Logger = telemetry.Discard()
	}
	return nil
}

func orDefault[T int | time.Duration](v *T, value T) {
	if *v == 0 {
		*v = value
	}
}

// Sink is the stage. Several may run on one bus with stores of their own process or a shared database; each result goes
// to one of them.
type Sink struct {
	cfg    Config
	bus    *bus.Bus
	store  Store
	log    *slog.Logger
	meters *metrics
	health health
}

// New checks the configuration. It starts nothing.
func New(cfg Config) (*Sink, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	meters, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	s := &Sink{cfg: cfg, bus: cfg.Bus, store: cfg.Store, log: cfg.Logger, meters: meters}
	s.health.log, s.health.meters = s.log, meters
	return s, nil
}

// Run keeps results until ctx is done, then those that are already on the bus, for DrainTimeout at most. It returns nil
// after a drain. It may be called once.
func (s *Sink) Run(ctx context.Context) error {
	// Writes go on when ctx is done, which only says that nothing new is wanted.
	work, stop := drainContext(ctx, s.cfg.DrainTimeout)
	defer stop()
	puller := s.bus.Results()
	defer puller.Close()
	s.take(ctx, work, puller)
	s.flush(ctx, work, puller)
	return nil
}

// gather is how long results pile up between two batches that are not full. The first result after a pause is kept at
// once, and under load a commit serves many.
const gather = 100 * time.Millisecond

// take handles batches until ctx is done.
func (s *Sink) take(ctx, work context.Context, puller *bus.Puller) {
	retry := s.retry()
	for ctx.Err() == nil {
		deliveries, err := puller.Fetch(ctx, s.cfg.BatchSize)
		s.handle(ctx, work, deliveries)
		if ctx.Err() != nil {
			return
		}
		s.health.set(fetching, err)
		if err == nil {
			retry.Reset()
			if len(deliveries) < s.cfg.BatchSize {
				wait(ctx, gather)
			}
			continue
		}
		wait(ctx, retry.NextBackOff())
	}
}

const (
	// flushPatience is how long a flush waits for a next result, of which the server may have none. The stages before this one
	// have stopped by then.
	flushPatience = 300 * time.Millisecond
	// flushAsk is how long the server is given to say what is left. A cluster that is electing a leader says nothing, and is
	// asked again.
	flushAsk = 2 * time.Second
)

// flush handles what is on the bus already. If the store fails now, the rest stays on the bus for the next start.
func (s *Sink) flush(ctx, work context.Context, puller *bus.Puller) {
	for work.Err() == nil && s.health.get(storing) == nil {
		// Asked first: what the server has sent before it says that nothing is left is there before its answer is.
		left, failed := s.left(work, puller)
		patience, cancel := context.WithTimeout(work, flushPatience)
		deliveries, _ := puller.Fetch(patience, s.cfg.BatchSize)
		cancel()
		s.handle(ctx, work, deliveries)
		if len(deliveries) == 0 && left == 0 && failed == nil {
			return
		}
	}
}

// left is how many results the server has that came to nobody yet.
func (s *Sink) left(ctx context.Context, puller *bus.Puller) (uint64, error) {
	ctx, cancel := context.WithTimeout(ctx, flushAsk)
	defer cancel()
	return puller.Undelivered(ctx)
}

// Ready reports why results are not being kept now.
func (s *Sink) Ready(context.Context) error { return s.health.err() }

func (s *Sink) retry() backoff.BackOff {
	return backoff.NewExponentialBackOff(backoff.WithInitialInterval(s.cfg.RetryWait), backoff.WithMultiplier(2),
		backoff.WithMaxInterval(s.cfg.RetryMax), backoff.WithMaxElapsedTime(0))
}

// drainContext ends a time after ctx does.
func drainContext(ctx context.Context, after time.Duration) (context.Context, context.CancelFunc) {
	work, cancel := context.WithCancelCause(context.WithoutCancel(ctx))
	unwatch := context.AfterFunc(ctx, func() {
		timer := time.AfterFunc(after, func() { cancel(errDrainTimeout) })
		context.AfterFunc(work, func() { timer.Stop() })
	})
	return work, func() { unwatch(); cancel(nil) }
}

var errDrainTimeout = errors.New("the time to drain is over")

// wait returns after d, or when ctx is done.
func wait(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
	case <-ctx.Done():
	}
}

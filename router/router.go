// Package router decides whether a request runs and when. It takes requests from LLM_REQUESTS, answers those that can
// never run, and holds the others until a worker has room; only then does it write them to LLM_WORK. Binding a request to
// a worker this late keeps every decision about order and fairness open until the last moment.
//
// One goroutine, the loop, owns all state. Around it, fetchers bring in deliveries that are decoded and checked, and two
// lanes of short jobs wait for the bus, so that the loop never does:
//
//	fetch (one per partition) ──► loop ──► queue ──► dispatch lane ──► LLM_WORK, then ack
//	          heartbeats, cancels ──►  └───────────► answer lane ────► error frame, result, DLQ, then ack
//
// Requests that wait for one model go by priority class and, within a class, by start-time fair queueing over
// tenants (docs/adr/0013).
//
// **A request is settled only after the step that makes it safe to forget: its work item is stored, or its answer and its
// result are.** Whatever dies before that leaves the request in LLM_REQUESTS, and deciding it again is harmless: a second
// dispatch carries the message id of the first, and a second answer meets the fence of the first. Correctness does not
// depend on there being one router, only fairness does.
package router

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/internal/telemetry"
	"github.com/weir-llm/weir/schemas"
)

// Defaults of [Config].
const (
	DefaultMaxQueued      = 20_000
	DefaultMaxQueuedBytes = 256 << 20
)

// drainTimeout bounds the publishes that are in flight when the router stops. Unfinished ones are done again by the next.
const drainTimeout = 10 * time.Second

// Keys of log records.
const (
	keyRequest   = telemetry.KeyRequest
	keyTenant    = telemetry.KeyTenant
	keyModel     = telemetry.KeyModel
	keyWorker    = telemetry.KeyWorker
	keyPartition = telemetry.KeyPartition
	keyRouter    = telemetry.KeyRouter
	keyCode      = telemetry.KeyCode
	keyCount     = telemetry.KeyCount
	keyError     = telemetry.KeyError
)

// Config of a [Router].
type Config struct {
	Bus  *bus.Bus // required
	Name string   // required: of this router, in its heartbeat; letters, digits, _ and -

	// Models names the configured models, as requests name them. It is asked again every few seconds and before a request
	// is refused, so that a reload takes effect. Optional: without it only models that a worker advertises are known.
	Models     func() []string
	Partitions []int // of LLM_REQUESTS that it may serve; default all
	// Active is how many routers serve at once, the partitions spread over them; the others stand by. All routers must have the
	// same. Requests of one model share it fairly within a router only. Default 1, at most [schemas.Partitions].
	Active int
	// Weight is the share of a tenant in relation to those of others, from 1 to [MaxWeight], when several wait for one model. It is
	// asked for every request that waits. Optional: without it all are equal.
	Weight func(tenant string) int

	Cache CacheConfig
	// Limits are those of a tenant, or nil; the same pointer until they change, and never changed themselves. Price is that of a
	// model, or nil. Both are asked for every request, so that a change takes effect at once, also for what waits. Optional: without Limits no tenant has any, and requests cost nothing for it.
	Limits func(tenant string) *Limits
	Price  func(model string) *schemas.Price

	// Count gives what counts the tokens of a prompt for a model, by the body, or nil when they are estimated by its length.
	// Both are called by the goroutines that fetch requests, which may take the time. Optional: all are estimated.
	Count func(model string) func(body []byte) int64

	// The router stops fetching while it holds this much; the rest waits in LLM_REQUESTS.
	MaxQueued      int   // requests; default DefaultMaxQueued
	MaxQueuedBytes int64 // of their bodies; default DefaultMaxQueuedBytes

	Logger     *slog.Logger          // optional
	Registerer prometheus.Registerer // optional
}

func (c *Config) validate() error {
	if c.Bus == nil {
		return errors.New("router: no bus given")
	}
	if err := schemas.ValidateRequestID(c.Name); err != nil {
		return fmt.Errorf("router: name %q: use 1 to %d characters of A-Z a-z 0-9 _ -", c.Name, schemas.MaxTokenBytes)
	}
	for _, p := range c.Partitions {
		if p < 0 || p >= schemas.Partitions {
			return fmt.Errorf("router: partition %d does not exist: use 0 to %d", p, schemas.Partitions-1)
		}
	}
	if c.Active < 0 || c.Active > schemas.Partitions {
		return fmt.Errorf("router: %d routers active at once: use 1 to %d", c.Active, schemas.Partitions)
	}
	if c.MaxQueued < 0 || c.MaxQueuedBytes < 0 {
		return errors.New("router: the bounds of the queue cannot be negative")
	}
	return nil
}

func (c *Config) setDefaults() {
	if c.Models == nil {
		c.Models = func() []string { return nil }
	}
	if c.Weight == nil {
		c.Weight = func(string) int { return 1 }
	}
	if c.Price == nil {
		c.Price = func(string) *schemas.Price { return nil }
	}
	if c.Partitions == nil {
		for p := range schemas.Partitions {
			c.Partitions = append(c.Partitions, p)
		}
	}
	c.Active = max(c.Active, 1)
	c.Partitions = slices.Compact(slices.Sorted(slices.Values(c.Partitions)))
	if c.MaxQueued == 0 {
		c.MaxQueued = DefaultMaxQueued
	}
	if c.MaxQueuedBytes == 0 {
		c.MaxQueuedBytes = DefaultMaxQueuedBytes
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
}

// Router is the router stage.
type Router struct {
	cfg     Config
	caching *caching
	meters  *metrics
}

// New checks the configuration. It starts nothing.
func New(cfg Config) (*Router, error) {
	if err := cfg.validate(); err != nil {
		return nil, err
	}
	cfg.setDefaults()
	caching, err := newCaching(cfg.Cache, cfg.Logger, cfg.Registerer)
	if err != nil {
		return nil, err
	}
	meters, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	return &Router{cfg: cfg, caching: caching, meters: meters}, nil
}

// Run routes until ctx ends, and then drains: it stops fetching, finishes the publishes in flight and gives back what is
// queued, so that another router has it at once. Call it once.
func (r *Router) Run(ctx context.Context) error {
	work, stopWork := context.WithCancel(context.WithoutCancel(ctx))
	defer stopWork()
	defer context.AfterFunc(ctx, func() {
		pause(work, drainTimeout)
		stopWork()
	})()

	l := newLoop(r.cfg, r.cfg.Bus.Lease(), r.cfg.Bus, &clerk{bus: r.cfg.Bus, log: r.cfg.Logger}, r.caching, r.meters)
	l.coalesce(work, r.cfg.Bus)
	if r.cfg.Limits != nil {
		l.keepBooks(work, r.cfg.Bus)
		defer l.books.close()
	}
	unsubscribe, err := subscribe(r.cfg.Bus, l)
	if err != nil {
		return fmt.Errorf("run router: %w", err)
	}
	defer unsubscribe()
	unfollow, err := r.caching.follow(r.cfg.Bus)
	if err != nil {
		return fmt.Errorf("run router: %w", err)
	}
	defer unfollow()

	var fetchers sync.WaitGroup
	l.start = func(partition int) (stop func()) {
		fetching, stop := context.WithCancel(work)
		fetchers.Go(func() {
			var due sync.WaitGroup
			due.Go(func() { r.fetchDue(fetching, work, partition, l) })
			r.fetch(fetching, work, partition, l)
			due.Wait()
			l.arrivals <- batch{partition: partition, ended: true}
		})
		return stop
	}
	l.run(ctx, work)
	fetchers.Wait()
	return nil
}

// subscribe leads the hints of the bus into the loop. One that finds the loop far behind is dropped, as any hint may be.
func subscribe(b *bus.Bus, l *loop) (unsubscribe func(), err error) {
	stopBeats, err := b.OnBeat(func(h *schemas.Heartbeat) {
		select {
		case l.beats <- h:
		default:
		}
	})
	if err != nil {
		return nil, err
	}
	stopRouters, err := b.OnRouterBeat(func(beat *schemas.RouterBeat) {
		select {
		case l.routers <- beat:
		default:
		}
	})
	if err != nil {
		stopBeats()
		return nil, err
	}
	stopCancels, err := b.OnCancel(func(id schemas.Identity, by schemas.CancelledBy) {
		select {
		case l.cancels <- hint{id, by}:
		default:
		}
	})
	if err != nil {
		stopBeats()
		stopRouters()
		return nil, err
	}
	stopQuestions, err := b.OnWaiting(func(id schemas.Identity, answer func(*schemas.Waiting)) {
		select {
		case l.asked <- question{id, answer}:
		default:
		}
	})
	if err != nil {
		stopBeats()
		stopRouters()
		stopCancels()
		return nil, err
	}
	stopHeirs, err := b.OnHeir(func(id schemas.Identity, answer func(*schemas.Work)) {
		select {
		case l.heirs <- heirQuestion{id, answer}:
		default:
		}
	})
	if err != nil {
		stopBeats()
		stopRouters()
		stopCancels()
		stopQuestions()
		return nil, err
	}
	stopHeld, err := b.OnHeld(func(e *schemas.RetryEvent) {
		select {
		case l.retries <- e:
		default:
		}
		l.due.wake(schemas.PartitionOf(e.Tenant))
	})
	if err != nil {
		stopBeats()
		stopRouters()
		stopCancels()
		stopQuestions()
		stopHeirs()
		return nil, err
	}
	return func() {
		stopBeats()
		stopRouters()
		stopCancels()
		stopQuestions()
		stopHeirs()
		stopHeld()
	}, nil
}

// Package inference is the stage that runs requests: it takes work items when it has room, calls a model and writes what
// the model says into the request's chain.
//
// **Each token a reader sees is committed before it is seen, and a worker that was thought dead writes nothing into a
// chain that another has taken over.** A run goes through these steps; every effect is keyed by the request, so that
// each may be repeated by whoever gets the item after a crash:
//
//  1. claim: append `start` behind the frames that are known, while the model call is already under way;
//  2. pump: append what the model says, one write at a time, everything that arrived during a write in the next;
//  3. commit: append `end` or `error`, after which nobody writes;
//  4. keep: store the result, then the DLQ record if the request is dead, then acknowledge the item.
//
// A worker that loses a fence cancels its call and goes silent (docs/adr/0001).
package inference

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.opentelemetry.io/otel/trace"
	"go.opentelemetry.io/otel/trace/noop"

	"github.com/weir-llm/weir/inference/balance"
	"github.com/weir-llm/weir/internal/bus"
	"github.com/weir-llm/weir/schemas"
)

// Config of the stage.
type Config struct {
	Bus    *bus.Bus         // required
	Name   string           // required: unique among live workers, a subject token
	Models map[string]Model // required: by public name

	// DrainTimeout is how long running requests may go on after the stage is told to stop; default 30 s.
	DrainTimeout time.Duration

	Logger         *slog.Logger          // optional
	TracerProvider trace.TracerProvider  // optional
	Registerer     prometheus.Registerer // optional
}

// Model is a model that the worker serves.
type Model struct {
	Backends  []Slot                // required: one at least
	Retry     Retry                 // of calls that failed before their first event
	Hedge     Hedge                 // of streams whose first token is late
	Fallback  []string              // models of this worker that stand in when this one does not answer, in order
	Context   int                   // tokens that the model takes, so that a longer request goes to a larger fallback; 0 = unknown
	Price     func() *schemas.Price // by which results say what an answer cost, or nil; asked when a call ends; optional
	Balance   Balance               // of calls over the backends
	Total     time.Duration         // running time of a request; default and maximum schemas.MaxRunTime
	Midstream Midstream             // what happens when an answer is cut after readers have seen some of it
}

// Slot is a backend with the number of calls it may have at once.
type Slot struct {
	Backend     Backend
	MaxInFlight int // at least 1
	Weight      int // share of the work in relation to the other backends; default 1
}

// Balance says how the calls of a model are spread over its backends, and when one gets fewer or none. The zero value is
// the default.
type Balance struct {
	Affinity  bool              // requests that begin alike go to the same backend if they can
	SlowStart time.Duration     // of a backend that was out of service; default balance.DefaultSlowStart
	Breaker   balance.Breaker   // when one is out of service because its calls fail
	Adaptive  *balance.Adaptive // nil: MaxInFlight alone bounds the calls that run at once
}

func (c *Config) setDefaults() error {
	if c.Bus == nil {
		return errors.New("inference: Bus is missing")
	}
	if err := schemas.ValidateRequestID(c.Name); err != nil {
		return fmt.Errorf("inference: worker name: %w", err)
	}
	if len(c.Models) == 0 {
		return errors.New("inference: no models; configure at least one under models")
	}
	if c.DrainTimeout == 0 {
		c.DrainTimeout = 30 * time.Second
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	if c.TracerProvider == nil {
		c.TracerProvider = noop.NewTracerProvider()
	}
	return nil
}

// Worker runs requests for its models.
type Worker struct {
	cfg      Config
	bus      *bus.Bus
	log      *slog.Logger
	tracer   trace.Tracer
	meters   *metrics
	models   []*model
	beats    *beats
	health   *health
	usage    *usage
	solitude *solitude
	runs     *runs
	frames   sync.Pool // of frameData
	crew     *crew     // for what runs beside the loops that take work
}

// New checks the configuration. It starts nothing.
func New(cfg Config) (*Worker, error) {
	if err := cfg.setDefaults(); err != nil {
		return nil, err
	}
	meters, err := newMetrics(cfg.Registerer)
	if err != nil {
		return nil, err
	}
	w := &Worker{
		cfg: cfg, bus: cfg.Bus, log: cfg.Logger, meters: meters, runs: newRuns(), usage: newUsage(), crew: newCrew(),
		tracer: cfg.TracerProvider.Tracer("github.com/weir-llm/weir/inference"),
	}
	w.solitude = newSolitude(func() { w.beats.soon() })
	w.health = newHealth(w)
	if w.models, err = newModels(cfg.Models); err != nil {
		return nil, err
	}
	for _, m := range w.models {
		m.notify, m.closed = w.health.changed, w.solitude.wantedNow
	}
	if err := meters.watch(cfg.Registerer, w.models); err != nil {
		return nil, err
	}
	w.beats = newBeats(cfg.Bus, cfg.Name, cfg.Logger, w.models, w.usage)
	return w, nil
}

// Run serves until ctx ends, then takes nothing new, lets what runs finish for DrainTimeout, ends what is left by handing
// it back or with an in-band error, and returns when nothing runs.
func (w *Worker) Run(ctx context.Context) error {
	for _, m := range w.models {
		if err := w.bus.EnsureWorkConsumer(ctx, m.token); err != nil {
			return err
		}
	}
	stopCancels, err := w.bus.OnCancel(w.runs.cancel)
	if err != nil {
		return err
	}
	defer stopCancels()
	work, stopWork := context.WithCancelCause(context.WithoutCancel(ctx))
	defer stopWork(nil)
	beating, stopBeats := context.WithCancel(context.WithoutCancel(ctx))
	var background, serving sync.WaitGroup
	background.Go(func() { w.beats.run(beating) })
	background.Go(func() { w.health.run(beating) })
	defer w.crew.close()
	for _, m := range w.models {
		serving.Go(func() { w.serve(ctx, work, m) })
	}
	<-ctx.Done()
	w.beats.drain()
	w.solitude.drain()
	timer := time.AfterFunc(w.cfg.DrainTimeout, func() {
		stopWork(schemas.Errorf(schemas.CodeShutdown, "the server is shutting down; send the request again"))
	})
	defer timer.Stop()
	serving.Wait()
	stopBeats()
	background.Wait()
	return nil
}

package inference

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/schemas"
)

type metrics struct {
	requests  *prometheus.CounterVec // by model and status
	duration  *prometheus.HistogramVec
	frames    prometheus.Counter
	events    prometheus.Counter
	lost      prometheus.Counter
	inherited prometheus.Counter
	isolated  prometheus.Counter
	held      *prometheus.CounterVec // by model
	cached    *prometheus.CounterVec // by outcome
	extra     *prometheus.CounterVec // by model and mode
	breakers  *prometheus.CounterVec // by model, backend and state
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_inference_requests_total", Help: "Finished requests by model and status."}, []string{"model", "status"}),
		duration:  prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: "weir_inference_request_seconds", Help: "Time from acceptance to the terminal frame.", Buckets: prometheus.ExponentialBuckets(0.005, 2.5, 12)}, []string{"model"}),
		frames:    prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_inference_frames_total", Help: "Frames committed."}),
		events:    prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_inference_events_total", Help: "Events committed."}),
		lost:      prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_inference_lost_runs_total", Help: "Runs that ended because another writer had the chain or a write stayed unresolved."}),
		inherited: prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_inference_inherited_runs_total", Help: "Runs that went on for an equal request, because the one they were for was cancelled or late."}),
		held:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_inference_held_total", Help: "Times that a batch request was put off because no model could answer it, by model."}, []string{"model"}),
		isolated:  prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_inference_isolated_runs_total", Help: "Requests that ran alone in the worker, because two workers were lost with them before."}),
		cached:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_inference_cache_writes_total", Help: "Answers that were to be kept in the cache, by outcome: kept, failed, or why they were not fit."}, []string{"outcome"}),
		extra:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_inference_extra_calls_total", Help: "Calls of backends beyond the first of each attempt, by the model asked for and why they were made."}, []string{"model", "mode"}),
		breakers:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_inference_breaker_changes_total", Help: "Circuit breakers that opened or closed, by model, backend and new state."}, []string{"model", "backend", "state"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.requests, m.duration, m.frames, m.events, m.lost, m.inherited, m.isolated, m.held, m.cached, m.extra, m.breakers} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register inference metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) finished(model string, result *schemas.Result) {
	m.requests.WithLabelValues(model, string(result.Status)).Inc()
	m.duration.WithLabelValues(model).Observe(result.DurationMS / 1000)
}

package sink

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/schemas"
)

type metrics struct {
	results *prometheus.CounterVec // by status
	buried  prometheus.Counter
	commits prometheus.Histogram
	batch   prometheus.Histogram
	lag     prometheus.Histogram
	failed  *prometheus.GaugeVec // by activity
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		results: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_sink_results_total", Help: "Results committed to the store by status, those delivered again included."}, []string{"status"}),
		buried:  prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_sink_dead_letters_total", Help: "Results that could not be kept and went to the DLQ."}),
		commits: prometheus.NewHistogram(prometheus.HistogramOpts{Name: "weir_sink_commit_seconds", Help: "How long a successful commit took.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 13)}),
		batch:   prometheus.NewHistogram(prometheus.HistogramOpts{Name: "weir_sink_batch_results", Help: "Results in a commit.", Buckets: prometheus.ExponentialBuckets(1, 2, 10)}),
		lag:     prometheus.NewHistogram(prometheus.HistogramOpts{Name: "weir_sink_lag_seconds", Help: "From the end of a request to its commit.", Buckets: prometheus.ExponentialBuckets(0.005, 3, 12)}),
		failed:  prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weir_sink_failing", Help: "1 while the activity fails: store or fetch."}, []string{"activity"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.results, m.buried, m.commits, m.batch, m.lag, m.failed} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register sink metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) committed(batch []record, took time.Duration) {
	m.commits.Observe(took.Seconds())
	m.batch.Observe(float64(len(batch)))
	for _, r := range batch {
		m.results.WithLabelValues(statusLabel(r.result.Status)).Inc()
		if !r.result.Finished.IsZero() {
			m.lag.Observe(max(0, time.Since(r.result.Finished).Seconds()))
		}
	}
}

// statusLabel keeps the number of labels bounded whatever a record says.
func statusLabel(s schemas.Status) string {
	switch s {
	case schemas.StatusCompleted, schemas.StatusFailed, schemas.StatusCancelled, schemas.StatusExpired, schemas.StatusRejected, schemas.StatusDeleted:
		return string(s)
	}
	return "other"
}

func (m *metrics) failing(a activity, failing bool) {
	value := 0.0
	if failing {
		value = 1
	}
	m.failed.WithLabelValues([activities]string{"store", "fetch"}[a]).Set(value)
}

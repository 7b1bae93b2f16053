package bus

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	// Fenced writes by outcome, looked up once because there is one for every frame.
	ok, committed, fenced, retried, unresolved prometheus.Counter

	gaps        prometheus.Counter
	slowReaders prometheus.Counter
	redelivered *prometheus.CounterVec // by stream
	stalled     prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	appends := prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_bus_appends_total", Help: "Fenced writes by outcome: ok, committed (an earlier try had been), fenced, retried, unresolved."}, []string{"outcome"})
	m := &metrics{
		ok: appends.WithLabelValues("ok"), committed: appends.WithLabelValues("committed"), fenced: appends.WithLabelValues("fenced"),
		retried: appends.WithLabelValues("retried"), unresolved: appends.WithLabelValues("unresolved"),

		gaps:        prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_bus_reader_gaps_total", Help: "Times a reader missed live frames and read them from the stream."}),
		slowReaders: prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_bus_slow_readers_total", Help: "Times a reader fell behind its live subscription."}),
		redelivered: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_bus_redelivered_total", Help: "Deliveries that were not the first, by stream."}, []string{"stream"}),
		stalled:     prometheus.NewHistogram(prometheus.HistogramOpts{Name: "weir_bus_append_retry_seconds", Help: "How long fenced writes took that needed more than one try.", Buckets: prometheus.ExponentialBuckets(0.05, 2, 10)}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{appends, m.gaps, m.slowReaders, m.redelivered, m.stalled} {
		if err := r.Register(c); err != nil {
			return nil, fmt.Errorf("register bus metrics: %w", err)
		}
	}
	return m, nil
}

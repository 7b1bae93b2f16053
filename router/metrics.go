package router

import (
	"fmt"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/schemas"
)

// metrics of the router.
type metrics struct {
	held, heldBytes, waiting prometheus.Gauge
	room                     *prometheus.GaugeVec
	dispatches               prometheus.Counter
	latency                  prometheus.Histogram
	answers                  *prometheus.CounterVec
	hits, unanswered         *prometheus.CounterVec
	cacheBytes, cacheEntries prometheus.Gauge
	adoptions                prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		held:       prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_router_held_requests", Help: "Requests taken from the stream and not settled."}),
		heldBytes:  prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_router_held_bytes", Help: "Size of the bodies of the held requests."}),
		waiting:    prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_router_queued_requests", Help: "Requests that wait for a worker with room."}),
		room:       prometheus.NewGaugeVec(prometheus.GaugeOpts{Name: "weir_router_room_slots", Help: "Requests that could be dispatched now."}, []string{"model"}),
		dispatches: prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_router_dispatched_total", Help: "Requests handed to the workers."}),
		latency: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "weir_router_dispatch_seconds", Help: "From the arrival of a request at the router to its stored work item, waiting included.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 4, 12),
		}),
		answers:      prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_router_rejected_total", Help: "Requests answered with an error, without a worker."}, []string{"code"}),
		hits:         prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_router_cache_hits_total", Help: "Requests answered from the cache, by the level that had the answer."}, []string{"level"}),
		unanswered:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_router_cache_passed_total", Help: "Requests that the cache was asked for and that ran all the same, by why: miss, refresh, or the reason of a bypass."}, []string{"reason"}),
		cacheBytes:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_router_cache_bytes", Help: "Memory taken for the entries of the first level of the cache."}),
		cacheEntries: prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_router_cache_entries", Help: "Entries in the first level of the cache, those whose time is over included."}),
		adoptions:    prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_router_adoptions_total", Help: "Partitions taken over with requests that another router had left unsettled."}),
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.held, m.heldBytes, m.waiting, m.room, m.dispatches, m.latency, m.answers, m.adoptions, m.hits, m.unanswered, m.cacheBytes, m.cacheEntries} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register router metrics: %w", err)
		}
	}
	return m, nil
}

func (m *metrics) dispatched(after time.Duration) {
	m.dispatches.Inc()
	m.latency.Observe(after.Seconds())
}

func (m *metrics) rejected(code schemas.Code) { m.answers.WithLabelValues(string(code)).Inc() }

func (m *metrics) hit(level string) { m.hits.WithLabelValues(level).Inc() }

// passed counts a request that runs although the cache had to do with it.
func (m *metrics) passed(n *schemas.CacheNote) {
	switch {
	case n == nil:
	case n.Reason != "":
		m.unanswered.WithLabelValues(n.Reason).Inc()
	default:
		m.unanswered.WithLabelValues(strings.ToLower(string(n.Status))).Inc()
	}
}

// measure sets the gauges.
func (l *loop) measure() {
	l.meters.held.Set(float64(l.held.count))
	l.meters.heldBytes.Set(float64(l.held.bytes))
	l.meters.waiting.Set(float64(l.queue.len()))
	if l.caching.memory != nil {
		entries, bytes := l.caching.memory.Size()
		l.meters.cacheEntries.Set(float64(entries))
		l.meters.cacheBytes.Set(float64(bytes))
	}
	for model := range l.fleet.advertised {
		l.meters.room.WithLabelValues(model).Set(float64(max(0, l.fleet.room(model))))
	}
}

package router

import (
	"fmt"
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
	takeovers                *prometheus.CounterVec
	falseAlarms              prometheus.Counter
	followers                prometheus.Gauge
	coalesced, replaced      prometheus.Counter
	limited                  prometheus.Counter
	throttled                prometheus.Gauge
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
		answers:     prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_router_rejected_total", Help: "Requests answered with an error, without a worker."}, []string{"code"}),
		takeovers:   prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_router_takeovers_total", Help: "Requests taken over from a router or a worker that was gone."}, []string{"of"}),
		falseAlarms: prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_router_false_alarms_total", Help: "Workers whose work was taken back and that were not dead."}),
		followers:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_router_followers", Help: "Requests that are being given the answer of an equal one."}),
		coalesced:   prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_router_coalesced_total", Help: "Requests answered with what an equal one was answered at the same time."}),
		replaced:    prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_router_leaders_replaced_total", Help: "Requests that ran in the place of an equal one that was cancelled, late or failed."}),
	}
	m.limited = prometheus.NewCounter(prometheus.CounterOpts{Name: "weir_router_limited_total", Help: "Times that a request met a limit of its tenant. Which tenant is in the events of kind limit."})
	m.throttled = prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_router_limited_tenants", Help: "Tenants whose requests wait for their limits."})
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.held, m.heldBytes, m.waiting, m.room, m.dispatches, m.latency, m.answers, m.takeovers, m.falseAlarms, m.limited, m.throttled, m.followers, m.coalesced, m.replaced} {
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

// measure sets the gauges.
func (l *loop) measure() {
	l.meters.held.Set(float64(l.held.count))
	l.meters.heldBytes.Set(float64(l.held.bytes))
	l.meters.waiting.Set(float64(l.queue.len()))
	l.caching.measure()
	for model := range l.fleet.advertised {
		l.meters.room.WithLabelValues(model).Set(float64(max(0, l.fleet.room(model))))
	}
}

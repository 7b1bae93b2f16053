package ingest

import (
	"errors"
	"strconv"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

type metrics struct {
	requests   *prometheus.CounterVec
	seconds    *prometheus.HistogramVec
	firstEvent prometheus.Histogram
	open       prometheus.Gauge
	abandoned  prometheus.Counter
	attached   prometheus.Counter
	refused    prometheus.Counter
	retried    prometheus.Counter
}

func newMetrics(registerer prometheus.Registerer) (*metrics, error) {
	buckets := prometheus.ExponentialBuckets(0.001, 2.5, 16) // 1 ms to 15 min
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "weir_ingest_requests_total", Help: "Requests by route and status, which is that of HTTP also for NATS.",
		}, []string{"route", "status"}),
		seconds: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "weir_ingest_request_seconds", Help: "Time from the request's header to the end of the answer.", Buckets: buckets,
		}, []string{"route"}),
		firstEvent: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "weir_ingest_first_event_seconds", Help: "Time from the request's header to the first event of a stream.", Buckets: buckets,
		}),
		open: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "weir_ingest_open_answers", Help: "Answers under way.",
		}),
		abandoned: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weir_ingest_abandoned_requests_total", Help: "Requests cancelled because nobody read them any more.",
		}),
		attached: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weir_ingest_idempotent_attaches_total", Help: "Requests that joined an earlier one with the same id and body.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weir_ingest_refused_connections_total", Help: "Connections closed at once because too many were open.",
		}),
		retried: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "weir_ingest_sdk_retries_total", Help: "Requests that an SDK says it sent before (x-stainless-retry-count).",
		}),
	}
	if registerer == nil {
		return m, nil
	}
	var errs []error
	for _, c := range []prometheus.Collector{m.requests, m.seconds, m.firstEvent, m.open, m.abandoned, m.attached, m.refused, m.retried} {
		errs = append(errs, registerer.Register(c))
	}
	return m, errors.Join(errs...)
}

func (m *metrics) answered(route string, status int, took time.Duration) {
	m.requests.WithLabelValues(route, strconv.Itoa(status)).Inc()
	m.seconds.WithLabelValues(route).Observe(took.Seconds())
}

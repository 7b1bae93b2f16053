package inference

import (
	"fmt"

	"github.com/prometheus/client_golang/prometheus"
)

// backendMetrics tells, when asked, how the backends fare.
type backendMetrics struct {
	models                            []*model
	inFlight, limit, breaker, latency *prometheus.Desc
}

// watch lets the metrics tell of the backends of the models.
func (m *metrics) watch(r prometheus.Registerer, models []*model) error {
	if r == nil {
		return nil
	}
	labels := []string{"model", "backend"}
	describe := func(name, help string) *prometheus.Desc { return prometheus.NewDesc(name, help, labels, nil) }
	err := r.Register(&backendMetrics{
		models:   models,
		inFlight: describe("weir_inference_backend_calls", "Calls in flight by backend."),
		limit:    describe("weir_inference_backend_limit", "Calls that may be in flight by backend; 0 while it is out of service."),
		breaker:  describe("weir_inference_backend_breaker_state", "Circuit breaker by backend: 0 closed, 1 half-open, 2 open."),
		latency:  describe("weir_inference_backend_first_token_seconds", "Recent time to first token by backend; 0 when there was none."),
	})
	if err != nil {
		return fmt.Errorf("register metrics of backends: %w", err)
	}
	return nil
}

// Describe implements prometheus.Collector.
func (b *backendMetrics) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{b.inFlight, b.limit, b.breaker, b.latency} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (b *backendMetrics) Collect(out chan<- prometheus.Metric) {
	for _, m := range b.models {
		for _, s := range m.pool.State() {
			tell := func(d *prometheus.Desc, v float64) {
				out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, m.name, s.Name)
			}
			tell(b.inFlight, float64(s.InFlight))
			tell(b.limit, float64(s.Limit))
			tell(b.breaker, float64(s.Breaker))
			tell(b.latency, s.Latency.Seconds())
		}
	}
}

package router

import (
	"fmt"
	"strings"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/weir-llm/weir/schemas"
)

// cacheMetrics are those of the cache.
type cacheMetrics struct {
	hits, passed   *prometheus.CounterVec
	bytes, entries prometheus.Gauge
}

func newCacheMetrics(registerer prometheus.Registerer) (*cacheMetrics, error) {
	m := &cacheMetrics{
		hits:    prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_router_cache_hits_total", Help: "Requests answered from the cache, by the level that had the answer."}, []string{"level"}),
		passed:  prometheus.NewCounterVec(prometheus.CounterOpts{Name: "weir_router_cache_passed_total", Help: "Requests that the cache was asked for and that ran all the same, by why: miss, refresh, or the reason of a bypass."}, []string{"reason"}),
		bytes:   prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_router_cache_bytes", Help: "Memory taken for the entries of the first level of the cache."}),
		entries: prometheus.NewGauge(prometheus.GaugeOpts{Name: "weir_router_cache_entries", Help: "Entries in the first level of the cache, those whose time is over included."}),
	}
	if registerer == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.hits, m.passed, m.bytes, m.entries} {
		if err := registerer.Register(c); err != nil {
			return nil, fmt.Errorf("register router metrics: %w", err)
		}
	}
	return m, nil
}

// ran counts a request that runs although the cache had to do with it.
func (m *cacheMetrics) ran(n *schemas.CacheNote) {
	switch {
	case n == nil:
	case n.Reason != "":
		m.passed.WithLabelValues(n.Reason).Inc()
	default:
		m.passed.WithLabelValues(strings.ToLower(string(n.Status))).Inc()
	}
}

// measure sets the gauges.
func (c *caching) measure() {
	if c.memory != nil {
		entries, bytes := c.memory.Size()
		c.meters.entries.Set(float64(entries))
		c.meters.bytes.Set(float64(bytes))
	}
}

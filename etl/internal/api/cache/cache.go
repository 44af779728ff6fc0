// Package cache stores responses for a while: in the memory of the process, or in a Redis that processes share.
package cache

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// Cache stores values until their time to live ends. A cache that is unavailable, slow or full finds nothing and stores
// nothing: it never fails a read. Neither side may change a value.
type Cache interface {
	Get(ctx context.Context, key string) ([]byte, bool)
	Set(ctx context.Context, key string, value []byte, ttl time.Duration)
}

// Metrics count the reads that a cache answered.
type Metrics struct{ hits, misses prometheus.Counter }

// NewMetrics makes the metrics of a cache, which may be nil, and registers them.
func NewMetrics(reg prometheus.Registerer, c Cache) *Metrics {
	hits := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleet_etl_api_cache_hits_total",
		Help: "Reads answered from the cache, by cache.",
	}, []string{"cache"})
	misses := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleet_etl_api_cache_misses_total",
		Help: "Reads not answered from the cache, by cache. Reads while the cache is unavailable count too.",
	}, []string{"cache"})
	reg.MustRegister(hits, misses)
	name := name(c)
	return &Metrics{hits.WithLabelValues(name), misses.WithLabelValues(name)}
}

// Count counts a read.
func (m *Metrics) Count(hit bool) {
	if hit {
		m.hits.Inc()
	} else {
		m.misses.Inc()
	}
}

func name(c Cache) string {
	switch c.(type) {
	case nil:
		return "none"
	case *Memory:
		return "memory"
	case *Redis:
		return "redis"
	default:
		return "other"
	}
}

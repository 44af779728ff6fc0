package reader

import (
	"context"
	"fmt"
	"time"

	"github.com/maypok86/otter/v2"
	"github.com/prometheus/client_golang/prometheus"
)

// The caches, by their label value.
const (
	cacheLatest = "latest" // latest positions
	cacheDay    = "day"    // history of closed days, and reads that are only shared
	cacheList   = "list"   // fleets, devices, geofences, schema
)

// Metrics are the metrics of the caches of all data sources.
type Metrics struct{ requests *prometheus.CounterVec }

// NewMetrics registers the metrics and creates every series at zero.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "fleet_datasource_cache_requests_total",
		Help: "Cache lookups by cache (latest, day, list) and outcome: hit, miss, or shared with an equal read in progress.",
	}, []string{"cache", "outcome"})}
	reg.MustRegister(m.requests)
	for _, cache := range []string{cacheLatest, cacheDay, cacheList} {
		for _, outcome := range []string{"hit", "miss", "shared"} {
			m.requests.WithLabelValues(cache, outcome)
		}
	}
	return m
}

// entry is a cached value.
type entry struct {
	value any
	bytes int
	ttl   time.Duration
}

func newCache(maxBytes uint64) (*otter.Cache[string, entry], error) {
	cache, err := otter.New(&otter.Options[string, entry]{
		MaximumWeight:    maxBytes,
		Weigher:          func(key string, e entry) uint32 { return uint32(min(len(key)+e.bytes+100, 1<<31)) },
		ExpiryCalculator: otter.ExpiryWritingFunc(func(e otter.Entry[string, entry]) time.Duration { return e.Value.ttl }),
	})
	if err != nil {
		return nil, fmt.Errorf("create the read cache: %w", err)
	}
	return cache, nil
}

// read describes one read: where its result is cached, for how long, and how large it is.
type read[T any] struct {
	cache string
	key   string
	ttl   time.Duration // 0 shares the read with concurrent callers, but does not cache it
	bytes func(T) int   // approximate size in memory; 0 means that the result is empty
	run   func(context.Context, Store) (T, error)
}

// cachedRead returns the cached result of a read, the result of an equal read in progress, or runs the read. All
// callers share the result and must not change it.
func cachedRead[T any](ctx context.Context, r *Reader, rd read[T]) (T, error) {
	var zero T
	key := rd.cache + " " + rd.key
	if rd.ttl > 0 {
		if e, ok := r.cache.GetIfPresent(key); ok {
			addHit(ctx)
			r.metrics.requests.WithLabelValues(rd.cache, "hit").Inc()
			return e.value.(T), nil
		}
	}
	value, shared, err := r.flights.do(ctx, key, func(ctx context.Context) (any, error) {
		store, err := r.connect(ctx)
		if err != nil {
			return nil, err
		}
		value, err := rd.run(ctx, store)
		if err != nil {
			return nil, err
		}
		if rd.ttl > 0 {
			ttl, bytes := rd.ttl, rd.bytes(value)
			if bytes == 0 {
				ttl = min(ttl, listTTL) // the data may be about to arrive
			}
			r.cache.Set(key, entry{value, bytes, ttl})
		}
		return value, nil
	})
	if err != nil {
		return zero, err
	}
	outcome := "miss"
	if shared {
		outcome = "shared"
		addShared(ctx)
	}
	r.metrics.requests.WithLabelValues(rd.cache, outcome).Inc()
	return value.(T), nil
}

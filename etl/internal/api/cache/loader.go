// Package cache stores responses for a while: in the memory of the process, or in a Redis that processes share.
package cache

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/singleflight"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

// Cache stores values until their time to live ends. A cache that is unavailable, slow or full finds nothing and stores
// nothing: it never fails a read. Neither side may change a value.
type Cache interface {
	Get(ctx context.Context, key string) ([]byte, bool)
	Set(ctx context.Context, key string, value []byte, ttl time.Duration)
}

// MaxValue is the longest value in bytes that a Loader caches.
const MaxValue = 4 << 20

// Loader reads values through a cache. Equal reads in progress are one read. It is safe for concurrent use.
type Loader struct {
	cache        Cache
	timeout      time.Duration
	hits, misses prometheus.Counter
	flights      singleflight.Group

	ctx     context.Context // of the reads; ends with Close
	cancel  context.CancelFunc
	running sync.WaitGroup
}

// NewLoader makes a loader with a time limit per read, and registers its metrics. The cache may be nil. Close the loader.
func NewLoader(c Cache, timeout time.Duration, reg prometheus.Registerer) *Loader {
	name := "memory"
	if _, ok := c.(*Redis); ok {
		name = "redis"
	}
	register := promutil.With(reg)
	hits := register.CounterVec("fleet_etl_api_cache_hits_total", "Reads answered from the cache, by cache.", "cache")
	misses := register.CounterVec("fleet_etl_api_cache_misses_total",
		"Reads not answered from the cache, by cache. Reads while the cache is unavailable count too.", "cache")
	l := &Loader{cache: c, timeout: timeout, hits: hits.WithLabelValues(name), misses: misses.WithLabelValues(name)}
	l.ctx, l.cancel = context.WithCancel(context.Background())
	return l
}

// Close ends the reads in progress.
func (l *Loader) Close() {
	l.cancel()
	l.running.Wait()
}

// Get returns a value from the cache, from an equal read in progress, or from load. valid reports whether a cached value can
// be used. The read continues when the ctx of the request that began it ends, because other requests may wait for it.
func (l *Loader) Get(ctx context.Context, key string, ttl time.Duration, valid func([]byte) bool, load func(context.Context) ([]byte, error)) ([]byte, error) {
	type result struct {
		value []byte
		err   error
	}
	done := make(chan result, 1)
	l.running.Go(func() {
		value, err, _ := l.flights.Do(key, func() (_ any, err error) {
			defer func() {
				if cause := recover(); cause != nil { // in this goroutine it would end the process
					err = fmt.Errorf("panic: %v\n%s", cause, debug.Stack())
				}
			}()
			ctx, cancel := context.WithTimeout(l.ctx, l.timeout)
			defer cancel()
			return l.readThrough(ctx, key, ttl, valid, load)
		})
		b, _ := value.([]byte)
		done <- result{b, err}
	})
	select {
	case r := <-done:
		return r.value, r.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *Loader) readThrough(ctx context.Context, key string, ttl time.Duration, valid func([]byte) bool, load func(context.Context) ([]byte, error)) ([]byte, error) {
	if l.cache == nil {
		return load(ctx)
	}
	if value, found := l.cache.Get(ctx, key); found && valid(value) {
		l.hits.Inc()
		return value, nil
	}
	l.misses.Inc()
	value, err := load(ctx)
	if err == nil && len(value) <= MaxValue {
		l.cache.Set(ctx, key, value, ttl)
	}
	return value, err
}

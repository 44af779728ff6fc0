package reader

import (
	"context"
	"fmt"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/memory"
)

// The caches, by their label value.
const (
	cacheLatest = "latest" // latest positions
	cacheDay    = "day"    // history of closed days, and reads that are only shared
	cacheList   = "list"   // fleets, devices, geofences, schema
)

// NewRequests registers the metric of the caches of all data sources, and creates every series at zero.
func NewRequests(reg prometheus.Registerer) *prometheus.CounterVec {
	requests := promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
		Name: "fleet_datasource_cache_requests_total",
		Help: "Cache lookups by cache (latest, day, list) and outcome: hit, miss, or shared with an equal read in progress.",
	}, []string{"cache", "outcome"})
	for _, cache := range []string{cacheLatest, cacheDay, cacheList} {
		for _, outcome := range []string{"hit", "miss", "shared"} {
			requests.WithLabelValues(cache, outcome)
		}
	}
	return requests
}

// entry is a cached value.
type entry struct {
	value any
	bytes int
	ttl   time.Duration
}

// cachedRead is readOnce for results that the query holds: it takes their memory from the account of ctx, as every query
// pays for what it holds, shared or not.
func cachedRead[T any](ctx context.Context, r *Reader, cache, key string, ttl time.Duration, bytes func(T) int, run func(context.Context, Store) (T, error)) (T, error) {
	value, err := readOnce(ctx, r, cache, key, ttl, bytes, run)
	if err == nil {
		err = memory.Take(ctx, bytes(value))
	}
	return value, err
}

// readOnce returns the cached result of a read, the result of an equal read in progress, or runs the read. All callers
// share the result and must not change it. A time to live of 0 shares the read, but does not cache it. bytes returns the
// approximate size of a result in memory; 0 means that it is empty.
func readOnce[T any](ctx context.Context, r *Reader, cache, key string, ttl time.Duration, bytes func(T) int, run func(context.Context, Store) (T, error)) (T, error) {
	var zero T
	key = cache + " " + key
	if ttl > 0 {
		if e, ok := r.cache.GetIfPresent(key); ok {
			counterOf(ctx).hits.Add(1)
			r.requests.WithLabelValues(cache, "hit").Inc()
			return e.value.(T), nil
		}
	}
	value, shared, err := r.flights.do(ctx, key, func(ctx context.Context) (any, error) {
		store, err := r.connect(ctx)
		if err != nil {
			return nil, err
		}
		account := r.memory.OpenRead()
		defer account.Close()
		value, err := run(cassandra.WithMemory(ctx, func(bytes int) error { return account.Take(ctx, bytes) }), store)
		if err != nil {
			return nil, err
		}
		if ttl > 0 {
			e := entry{value, bytes(value), ttl}
			if e.bytes == 0 {
				e.ttl = min(ttl, listTTL) // the data may be about to arrive
			}
			r.cache.Set(key, e)
		}
		return value, nil
	})
	if err != nil {
		return zero, err
	}
	outcome := "miss"
	if shared {
		outcome = "shared"
		counterOf(ctx).shared.Add(1)
	}
	r.requests.WithLabelValues(cache, outcome).Inc()
	return value.(T), nil
}

type costKey struct{}

// counter counts the reads of one query.
type counter struct{ hits, shared atomic.Int64 }

// Cost is the cost of one query.
type Cost struct {
	cassandra.ReadTotals
	CacheHits   int // reads that the cache answered
	SharedReads int // reads that joined an equal read in progress
}

// WithCost returns a context whose reads are counted, and a function that returns their cost so far.
func WithCost(ctx context.Context) (context.Context, func() Cost) {
	ctx, stats := cassandra.WithReadStats(ctx)
	c := &counter{}
	return context.WithValue(ctx, costKey{}, c), func() Cost {
		return Cost{ReadTotals: stats.Totals(), CacheHits: int(c.hits.Load()), SharedReads: int(c.shared.Load())}
	}
}

// counterOf returns the counter of the query that ctx belongs to; without a query, a new one.
func counterOf(ctx context.Context) *counter {
	if c, ok := ctx.Value(costKey{}).(*counter); ok {
		return c
	}
	return &counter{}
}

// singleflight merges equal concurrent calls into one. Unlike golang.org/x/sync/singleflight it cancels a call once its
// last waiter has gone, and keeps it running as long as any waiter is left.
type singleflight struct {
	timeout time.Duration // of one call

	mu    sync.Mutex
	calls map[string]*call
}

type call struct {
	done    chan struct{}
	cancel  context.CancelFunc
	waiters int
	value   any
	err     error
}

func newSingleflight(timeout time.Duration) *singleflight {
	return &singleflight{timeout: timeout, calls: map[string]*call{}}
}

// do returns the result of fn, or the shared result of an equal call in progress.
func (s *singleflight) do(ctx context.Context, key string, fn func(context.Context) (any, error)) (value any, shared bool, err error) {
	s.mu.Lock()
	c, shared := s.calls[key]
	if !shared {
		var callCtx context.Context
		c = &call{done: make(chan struct{})}
		callCtx, c.cancel = context.WithTimeout(context.WithoutCancel(ctx), s.timeout)
		s.calls[key] = c
		go func() {
			func() {
				defer CatchPanic(&c.err)
				c.value, c.err = fn(callCtx)
			}()
			s.mu.Lock()
			s.forget(key, c)
			s.mu.Unlock()
			close(c.done)
			c.cancel()
		}()
	}
	c.waiters++
	s.mu.Unlock()

	select {
	case <-c.done:
		return c.value, shared, c.err
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		if c.waiters--; c.waiters == 0 {
			s.forget(key, c) // a new caller must not join a canceled call
			c.cancel()
		}
		return nil, shared, ctx.Err()
	}
}

// PanicError is a panic while a query ran. A bug in one query must not end the plugin and all other queries with it.
type PanicError struct {
	Value any
	Stack []byte
}

func (e *PanicError) Error() string { return fmt.Sprintf("panic: %v", e.Value) }

// CatchPanic turns a panic into the error of a function. Defer it in every goroutine of a query.
func CatchPanic(err *error) {
	if p := recover(); p != nil {
		*err = &PanicError{p, debug.Stack()}
	}
}

// forget removes a call. The caller holds the lock.
func (s *singleflight) forget(key string, c *call) {
	if s.calls[key] == c {
		delete(s.calls, key)
	}
}

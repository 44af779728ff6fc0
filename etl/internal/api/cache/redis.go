package cache

import (
	"cmp"
	"context"
	"errors"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/sirupsen/logrus"
	"github.com/sony/gobreaker/v2"

	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
)

// RedisOptions are the address of a shared cache and its time limits. A zero field takes the default in its comment.
type RedisOptions struct {
	URL     string        // redis://[USER:PASSWORD@]HOST:PORT/DATABASE, rediss:// for TLS
	Timeout time.Duration // of one request; 50 ms
	Pause   time.Duration // until the open circuit breaker allows another request; 5 s
}

// maxFailures is how many consecutive failures open the circuit breaker.
const maxFailures = 5

// Redis is a cache that processes share. A circuit breaker stops requests to a Redis that fails or is slow, so that an
// outage costs a read only the cache.
type Redis struct {
	client  *redis.Client
	timeout time.Duration
	breaker *gobreaker.CircuitBreaker[[]byte]
	errors  prometheus.Counter
	last    atomic.Pointer[error]
}

// NewRedis makes a cache and registers its metrics. Redis need not run yet. Close the cache.
func NewRedis(o RedisOptions, logger logrus.FieldLogger, reg prometheus.Registerer) (*Redis, error) {
	options, err := redis.ParseURL(o.URL)
	if err != nil { // the error may show the password
		return nil, errors.New("address of Redis is not valid: give redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// for TLS")
	}
	timeout := cmp.Or(o.Timeout, 50*time.Millisecond)
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = timeout, timeout, timeout, timeout
	options.ContextTimeoutEnabled = true
	options.MaxRetries = -1 // a retry costs more than a read of the store
	options.DialerRetries = 1
	options.DisableIdentity = true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	redis.SetLogger(redisLog{logger}) // global in the client; its default writes to standard error

	register := promutil.With(reg)
	c := &Redis{
		client: redis.NewClient(options), timeout: timeout,
		errors: register.Counter("fleet_etl_api_cache_errors_total", "Requests to the shared cache that failed or timed out."),
	}
	c.breaker = gobreaker.NewCircuitBreaker[[]byte](gobreaker.Settings{
		Timeout:      cmp.Or(o.Pause, 5*time.Second),
		ReadyToTrip:  func(counts gobreaker.Counts) bool { return counts.ConsecutiveFailures >= maxFailures },
		IsSuccessful: func(err error) bool { return err == nil || errors.Is(err, redis.Nil) },
		IsExcluded:   func(err error) bool { return errors.Is(err, errCallerGone) },
		OnStateChange: func(_ string, from, to gobreaker.State) {
			switch {
			case from == gobreaker.StateClosed:
				logger.WithError(*c.last.Load()).Warn("shared cache unavailable, reading without it")
			case to == gobreaker.StateClosed:
				logger.Info("shared cache available again")
			}
		},
	})
	register.GaugeFunc("fleet_etl_api_cache_paused", "1 while the shared cache is not used because it failed, else 0.", func() float64 {
		if c.paused() {
			return 1
		}
		return 0
	})
	return c, nil
}

func (c *Redis) paused() bool { return c.breaker.State() != gobreaker.StateClosed }

// Close closes the connections.
func (c *Redis) Close() error { return c.client.Close() }

// Get implements Cache.
func (c *Redis) Get(ctx context.Context, key string) ([]byte, bool) {
	value, err := c.try(ctx, func(ctx context.Context) ([]byte, error) { return c.client.Get(ctx, key).Bytes() })
	return value, err == nil
}

// Set implements Cache.
func (c *Redis) Set(ctx context.Context, key string, value []byte, ttl time.Duration) {
	_, _ = c.try(ctx, func(ctx context.Context) ([]byte, error) { return nil, c.client.Set(ctx, key, value, ttl).Err() })
}

// errCallerGone is the error of a request whose caller gave up: it says nothing about Redis.
var errCallerGone = errors.New("caller gone")

func (c *Redis) try(ctx context.Context, do func(context.Context) ([]byte, error)) ([]byte, error) {
	return c.breaker.Execute(func() ([]byte, error) {
		bounded, cancel := context.WithTimeout(ctx, c.timeout) // for a place in the pool, the connection and the response
		defer cancel()
		value, err := do(bounded)
		switch {
		case err == nil, errors.Is(err, redis.Nil):
		case ctx.Err() != nil:
			return nil, errCallerGone
		default:
			c.errors.Inc()
			c.last.Store(&err)
		}
		return value, err
	})
}

// redisLog logs the client's messages at debug level. Failures are counted and logged as errors of requests.
type redisLog struct{ logger logrus.FieldLogger }

// Printf implements the client's logger.
func (l redisLog) Printf(_ context.Context, format string, v ...any) {
	l.logger.WithField("client", "redis").Debugf(format, v...)
}

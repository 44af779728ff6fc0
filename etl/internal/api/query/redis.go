package query

import (
	"context"
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/redis/go-redis/v9"
	"github.com/redis/go-redis/v9/maintnotifications"
	"github.com/sirupsen/logrus"
)

// RedisOptions says where the shared cache is and how long it is waited for. The zero value of a field other than URL
// takes the default that its comment names.
type RedisOptions struct {
	URL      string        // redis://[USER:PASSWORD@]HOST:PORT/DATABASE, rediss:// for TLS
	Timeout  time.Duration // of one request; 50 ms
	Failures int           // requests in a row that fail until Redis is left alone; 5
	Pause    time.Duration // how long it is left alone then; 5 s
}

// RedisCache is a cache that processes share. Redis that is away or slow is left alone for a while, so that it costs a
// read nothing but the cache.
type RedisCache struct {
	client  *redis.Client
	timeout time.Duration
	breaker *breaker
	logger  logrus.FieldLogger
	errors  prometheus.Counter
	end     func()
}

// NewRedisCache makes a cache; Redis need not be there yet. It registers its metrics with reg. Close it.
func NewRedisCache(o RedisOptions, now func() time.Time, logger logrus.FieldLogger, reg prometheus.Registerer) (*RedisCache, error) {
	setDefault(&o.Timeout, 50*time.Millisecond)
	setDefault(&o.Failures, 5)
	setDefault(&o.Pause, 5*time.Second)
	options, err := redis.ParseURL(o.URL)
	if err != nil { // which may show the password
		return nil, errors.New("address of Redis: not readable; give redis://USER:PASSWORD@HOST:PORT/DATABASE, or rediss:// for TLS")
	}
	options.DialTimeout, options.ReadTimeout, options.WriteTimeout, options.PoolTimeout = o.Timeout, o.Timeout, o.Timeout, o.Timeout
	options.ContextTimeoutEnabled = true
	options.MaxRetries = -1 // a second try costs more than a read
	options.DialerRetries = 1
	options.DisableIdentity = true
	options.MaintNotificationsConfig = &maintnotifications.Config{Mode: maintnotifications.ModeDisabled}
	redis.SetLogger(redisLog{logger}) // it has one for the process, on standard error

	c := &RedisCache{
		client: redis.NewClient(options), timeout: o.Timeout, logger: logger,
		breaker: &breaker{now: now, failures: o.Failures, pause: o.Pause},
		errors: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fleet_etl_api_cache_errors_total",
			Help: "Requests to the shared cache that failed or took too long.",
		}),
	}
	paused := prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "fleet_etl_api_cache_paused",
		Help: "1 while the shared cache is left alone because it failed, else 0.",
	}, func() float64 {
		if c.breaker.open() {
			return 1
		}
		return 0
	})
	reg.MustRegister(c.errors, paused)
	c.end = func() { reg.Unregister(c.errors); reg.Unregister(paused) }
	return c, nil
}

// Close ends the connections and takes the metrics off the registry.
func (c *RedisCache) Close() error {
	c.end()
	return c.client.Close()
}

// Get implements Cache.
func (c *RedisCache) Get(ctx context.Context, key string) (value []byte, found bool) {
	c.try(ctx, func(ctx context.Context) (err error) {
		value, err = c.client.Get(ctx, key).Bytes()
		found = err == nil
		if errors.Is(err, redis.Nil) {
			return nil
		}
		return err
	})
	return value, found
}

// Set implements Cache.
func (c *RedisCache) Set(ctx context.Context, key string, value []byte, ttl time.Duration) {
	c.try(ctx, func(ctx context.Context) error { return c.client.Set(ctx, key, value, ttl).Err() })
}

func (c *RedisCache) try(ctx context.Context, do func(context.Context) error) {
	if !c.breaker.allow() {
		return
	}
	bounded, cancel := context.WithTimeout(ctx, c.timeout) // all of it: a place in the pool, the connection, the answer
	defer cancel()
	err := do(bounded)
	if err != nil && ctx.Err() != nil { // the caller gave up: that says nothing of Redis
		c.breaker.unknown()
		return
	}
	if err != nil {
		c.errors.Inc()
	}
	switch c.breaker.report(err == nil) {
	case opened:
		c.logger.WithField("pause", c.breaker.pause.String()).WithError(err).Warn("shared cache is away; reading without it")
	case closed:
		c.logger.Info("shared cache is back")
	}
}

// redisLog lets the client's complaints through as debug lines: what matters of them shows as errors.
type redisLog struct{ logger logrus.FieldLogger }

// Printf implements the client's logger.
func (l redisLog) Printf(_ context.Context, format string, v ...any) {
	l.logger.WithField("client", "redis").Debugf(format, v...)
}

// Package executor runs requests against Cassandra until they succeed. It bounds and adapts the number of writes in
// flight, retries what can succeed within one budget, and holds requests back while the cluster is unavailable.
package executor

import (
	"context"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"
	"golang.org/x/time/rate"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
)

// Options are the settings of an Executor.
type Options struct {
	MaxInFlight int         // largest number of writes in flight; the limit adapts below it
	RetryRate   float64     // retries per second, over all requests
	Hold        func() bool // reports that writes must wait; nil: they never do
}

// These bounds follow from Cassandra's own and need no setting.
const (
	minInFlight   = 4
	startInFlight = 16
	slowResponse  = 250 * time.Millisecond
	holdPause     = time.Second // between two calls of Options.Hold while writes wait
)

// Executor runs requests. It is safe for concurrent use.
type Executor struct {
	now     func() time.Time
	hold    func() bool
	metrics *metrics
	limit   *limiter
	retry   *retrier
	latency *latency
}

// New makes an executor and registers its metrics with reg.
func New(o Options, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) *Executor {
	x := &Executor{
		now:     now,
		hold:    o.Hold,
		limit:   newLimiter(min(startInFlight, o.MaxInFlight), min(minInFlight, o.MaxInFlight), o.MaxInFlight, slowResponse, now),
		latency: newLatency(),
	}
	x.metrics = newMetrics(reg, x.limit)
	x.retry = &retrier{
		budget: rate.NewLimiter(rate.Limit(o.RetryRate), int(o.RetryRate)+1),
		first:  20 * time.Millisecond,
		most:   2 * time.Second,
		cluster: &availability{pause: time.Second, set: x.metrics.setUp, outage: ratelog.New(logger, now, ratelog.Interval, ratelog.Messages{
			Down:  "cassandra unavailable, pausing writes",
			Still: "cassandra still unavailable",
			Up:    "cassandra available again",
		})},
	}
	return x
}

// SetConnected reports whether the cluster has been reached. Until the first connection the metric says that the cluster
// is down; afterwards the requests themselves find out.
func (x *Executor) SetConnected(connected bool) { x.metrics.setUp(connected) }

// Write runs one write of some rows of a table, with its place among the writes in flight, until it succeeds.
func (x *Executor) Write(ctx context.Context, table string, rows int, write func(context.Context) error) error {
	if err := x.acquire(ctx); err != nil {
		return err
	}
	defer x.limit.release()
	return x.timed(ctx, table, rows, write)
}

// Start waits for a place among the writes in flight and then runs the write in g.
func (x *Executor) Start(ctx context.Context, g *errgroup.Group, table string, rows int, write func(context.Context) error) error {
	if err := x.acquire(ctx); err != nil {
		return err
	}
	g.Go(func() error {
		defer x.limit.release()
		return x.timed(ctx, table, rows, write)
	})
	return nil
}

// acquire waits while writes are held, and for a place among the writes in flight.
func (x *Executor) acquire(ctx context.Context) error {
	for x.hold != nil && x.hold() {
		if err := backoff.Sleep(ctx, holdPause); err != nil {
			return err
		}
	}
	return x.limit.acquire(ctx)
}

func (x *Executor) timed(ctx context.Context, table string, rows int, write func(context.Context) error) error {
	started := x.now()
	if err := x.Do(ctx, table, write); err != nil {
		return err
	}
	took := x.now().Sub(started)
	x.metrics.wrote(table, rows, took)
	x.latency.record(table, took)
	return nil
}

// Do runs a request on a table until it succeeds, can't succeed or ctx ends. It takes no place among the writes in flight:
// it is for reads, and for small writes that must not wait behind others.
func (x *Executor) Do(ctx context.Context, table string, request func(context.Context) error) error {
	return x.do(ctx, table, 0, request)
}

func (x *Executor) do(ctx context.Context, table string, limit time.Duration, request func(context.Context) error) error {
	return x.retry.doWithin(ctx, limit, func(ctx context.Context) error {
		started := x.now()
		err := request(ctx)
		x.limit.observe(x.now().Sub(started), err != nil && ctx.Err() == nil)
		return err
	}, func(reason cassandra.Reason) { x.metrics.failed(table, reason) })
}

// failsFor is how long DoWithin lets a request fail while others succeed.
const failsFor = 5 * time.Second

// DoWithin is Do for a request that others must not wait for. It gives up when an attempt takes longer than the limit, and
// when the request keeps failing while others succeed. The error is cassandra.Permanent then.
func (x *Executor) DoWithin(ctx context.Context, limit time.Duration, table string, request func(context.Context) error) error {
	err := x.do(ctx, table, failsFor, func(ctx context.Context) error {
		attempt, cancel := context.WithTimeout(ctx, limit)
		defer cancel()
		err := request(attempt)
		if err != nil && ctx.Err() == nil && attempt.Err() != nil {
			return &cassandra.Error{Op: "use " + table, Reason: cassandra.ReasonOther, Err: fmt.Errorf("took longer than %s: %w", limit, err)}
		}
		return err
	})
	if ctx.Err() == nil && cassandra.ReasonOf(err).Advice() == cassandra.Retry {
		return &cassandra.Error{Op: "use " + table, Reason: cassandra.ReasonOther, Err: err}
	}
	return err
}

// Views are one store at two consistency levels for reads: Strong overlaps every acknowledged write (R+W>N), Fallback
// reads at the level of writes, for when too few replicas are up.
type Views[S any] struct{ Strong, Fallback S }

// Read reads from a table at the strong level, or at the fallback level where too few replicas are up. strong reports
// which of the two it was.
func Read[S any](ctx context.Context, x *Executor, v Views[S], table string, read func(context.Context, S) error) (strong bool, err error) {
	err = x.Do(ctx, table, v.reading(&strong, read))
	return strong, err
}

// ReadWithin is Read with the limits of DoWithin.
func ReadWithin[S any](ctx context.Context, limit time.Duration, x *Executor, v Views[S], table string, read func(context.Context, S) error) (strong bool, err error) {
	err = x.DoWithin(ctx, limit, table, v.reading(&strong, read))
	return strong, err
}

func (v Views[S]) reading(strong *bool, read func(context.Context, S) error) func(context.Context) error {
	return func(ctx context.Context) error {
		*strong = true
		err := read(ctx, v.Strong)
		if cassandra.ReasonOf(err).TooFewReplicas() {
			*strong = false
			err = read(ctx, v.Fallback)
		}
		return err
	}
}

// PartitionLimit is the limit of DoWithin for a read of one partition, or of a few: they are read in well under a second.
const PartitionLimit = 30 * time.Second

// Writes summarizes the writes so far, by table.
func (x *Executor) Writes() map[string]Writes {
	tables := x.latency.writes()
	for table, w := range tables {
		w.Rows = x.Rows(table)
		tables[table] = w
	}
	return tables
}

// Retries returns the number of requests that were retried so far.
func (x *Executor) Retries() int64 { return countOf(x.metrics.retries) }

// Rows returns the number of rows of a table written so far.
func (x *Executor) Rows(table string) int64 { return countOf(x.metrics.written[table]) }

// Errors returns the number of requests that failed so far, by reason. Requests that succeeded later are included.
func (x *Executor) Errors() map[string]int64 {
	errs := map[string]int64{}
	for _, table := range tables {
		for _, reason := range cassandra.Reasons {
			if n := countOf(x.metrics.errors.WithLabelValues(table, string(reason))); n > 0 {
				errs[string(reason)] += n
			}
		}
	}
	return errs
}

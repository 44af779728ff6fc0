package app

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"

	"github.com/fleettracing/fleet-tracing/etl/internal/backoff"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
)

// A clock that differs from the cluster's by more than clockTolerance gives rows wrong times to live and write timestamps.
const (
	clockTolerance = 5 * time.Minute
	clockInterval  = time.Minute // between two comparisons
	clockRetry     = 5 * time.Second
	clockReads     = 3 // of one comparison: the driver asks one node after the other
)

// clock compares the clock of this process with the cluster's. It is safe for concurrent use.
type clock struct {
	now        func() time.Time // the clock; time.Now measures how long ago something was, whatever the clock says
	outage     *ratelog.Outage
	difference prometheus.Gauge

	mu       sync.Mutex
	ahead    time.Duration // of this clock, at the last comparison
	compared time.Time     // what it said then; zero before the first
	started  time.Time     // a monotonic reading of the same moment
}

func newClock(logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) *clock {
	return &clock{
		now: now,
		outage: ratelog.New(logger, now, ratelog.Interval, ratelog.Messages{
			Down:  "clock differs too much from the cluster's, pausing writes",
			Still: "clock still differs too much from the cluster's",
			Up:    "clock agrees with the cluster's again",
		}),
		difference: promutil.With(reg).Gauge("fleet_etl_clock_difference_seconds",
			"Seconds that the clock of this process is ahead of the cluster's; negative if it is behind. Beyond 300 nothing is written."),
	}
}

// error returns why nothing may be written, or nil. It notices at once when the clock is set.
func (c *clock) error() error {
	c.mu.Lock()
	defer c.mu.Unlock()
	ahead := c.ahead + c.now().Round(0).Sub(c.compared) - time.Since(c.started)
	if c.compared.IsZero() || ahead.Abs() <= clockTolerance {
		return nil
	}
	return fmt.Errorf("the clock of this machine differs from the cluster's by %s, more than %s: set it, and keep it right with NTP", ahead.Round(time.Second), clockTolerance)
}

// wrong reports whether nothing may be written.
func (c *clock) wrong() bool { return c.error() != nil }

// compare compares the clocks. Of the nodes that it asks, the one that agrees best counts: another node's clock may be wrong.
func (c *clock) compare(ctx context.Context, clusterTime func(context.Context) (time.Time, error)) error {
	best, found := time.Duration(0), false
	for range clockReads {
		asked := time.Now()
		cluster, err := clusterTime(ctx)
		if err != nil {
			return err
		}
		ahead := c.now().Add(-time.Since(asked) / 2).Round(0).Sub(cluster)
		if !found || ahead.Abs() < best.Abs() {
			best, found = ahead, true
		}
	}
	c.mu.Lock()
	c.ahead, c.compared, c.started = best, c.now().Round(0), time.Now()
	c.mu.Unlock()
	c.difference.Set(best.Seconds())
	c.outage.Note(c.error())
	return nil
}

// run compares the clocks until ctx ends, more often while they differ. While the cluster can't be read it goes by the last comparison.
func (c *clock) run(ctx context.Context, clusterTime func(context.Context) (time.Time, error)) {
	for last := time.Now(); backoff.Sleep(ctx, clockRetry) == nil; {
		if c.wrong() || time.Since(last) >= clockInterval {
			last = time.Now()
			_ = c.compare(ctx, clusterTime) // other requests report a cluster that does not answer
		}
	}
}

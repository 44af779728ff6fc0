// Package hourly sums what devices add to the hours of fleets.
package hourly

import (
	"cmp"
	"context"
	"fmt"
	"iter"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/sirupsen/logrus"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/claims"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
	"github.com/fleettracing/fleet-tracing/etl/internal/executor"
	"github.com/fleettracing/fleet-tracing/etl/internal/fair"
	"github.com/fleettracing/fleet-tracing/etl/internal/promutil"
	"github.com/fleettracing/fleet-tracing/etl/internal/ratelog"
	"github.com/fleettracing/fleet-tracing/etl/internal/stamp"
)

// Store has what devices add to hours, and their sums.
type Store interface {
	Hours(ctx context.Context, fleetID string, hourMs int64) ([]cassandra.HourRow, error)
	ApplyAnalytics(ctx context.Context, rows []cassandra.Mutation[cassandra.AnalyticsRow]) error
}

// retryAfter is how long an hour is skipped whose rows can't be read or written.
const retryAfter = 5 * time.Minute

const (
	readsInParallel = 8  // hours that are read in parallel
	together        = 64 // hours whose sums are written before others are read
)

// Sums keeps the sums of hours up to date. It is safe for concurrent use, but only one Run at a time.
type Sums struct {
	skew   time.Duration // largest expected clock difference between instances
	stores executor.Views[Store]
	exec   *executor.Executor
	stamps *stamp.Clock
	now    func() time.Time

	last   prometheus.Gauge
	hours  prometheus.Counter
	outage *ratelog.Outage

	mu    sync.Mutex
	due   map[cassandra.FleetHour]bool
	retry map[cassandra.FleetHour]time.Time // hours whose rows can't be read or written, and when they are tried again
	again map[cassandra.FleetHour]time.Time // to be summed once more, because another instance may have summed them too
}

// New returns sums, none of them due, and registers their metrics with reg.
func New(maxClockSkew time.Duration, stores executor.Views[Store], exec *executor.Executor, stamps *stamp.Clock, logger logrus.FieldLogger, reg prometheus.Registerer, now func() time.Time) *Sums {
	register := promutil.With(reg)
	return &Sums{
		skew: maxClockSkew, stores: stores, exec: exec, stamps: stamps, now: now,
		last: register.Gauge("fleet_etl_rollup_last_success_timestamp_seconds",
			"Time at which hourly statistics were last up to date, in seconds since 1970."),
		hours: register.Counter("fleet_etl_rollup_hours_total", "Hours of fleets that were summed and written."),
		outage: ratelog.New(logger, now, ratelog.Interval, ratelog.Messages{
			Down:  "summing an hour of a fleet failed, skipping it and trying again every 5 minutes",
			Still: "summing hours of fleets still fails",
			Up:    "summing hours of fleets works again",
		}),
		due: map[cassandra.FleetHour]bool{}, retry: map[cassandra.FleetHour]time.Time{}, again: map[cassandra.FleetHour]time.Time{},
	}
}

// Add has hours summed by the next Run.
func (s *Sums) Add(hours iter.Seq[cassandra.FleetHour]) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for h := range hours {
		s.due[h] = true
	}
}

// AddLater has hours summed when the clocks of all instances have passed now.
func (s *Sums) AddLater(hours []cassandra.FleetHour) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, h := range hours {
		s.again[h] = s.now().Add(s.skew)
	}
}

// Due reports whether hours wait for the next Run.
func (s *Sums) Due() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.due) > 0
}

// DueFleets returns the fleets with hours that wait for the next Run.
func (s *Sums) DueFleets() map[string]bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	fleets := map[string]bool{}
	for h := range s.due {
		fleets[h.FleetID] = true
	}
	return fleets
}

// Later returns the hours that must be summed once more.
func (s *Sums) Later() []cassandra.FleetHour {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.again))
}

// Failed returns the hours whose rows can't be read or written.
func (s *Sums) Failed() []cassandra.FleetHour {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Keys(s.retry))
}

// Done reports whether none of some hours is still to be summed.
func (s *Sums) Done(hours []cassandra.FleetHour) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !slices.ContainsFunc(hours, func(h cassandra.FleetHour) bool {
		_, again := s.again[h]
		return again || s.due[h]
	})
}

// Run sums the hours that are due, those of the fleets in turn. After a limit, unless it is 0, the others stay due, so that
// what a fleet has changed in hundreds of hours does not delay other work. With peers set, other instances may sum the hours
// too, so they are summed once more when the difference of clocks has passed, or that long after a later Run in which they
// were due. So a change is included, in spite of the clocks, after the first Run that starts twice that difference later,
// once its hour is not due any more.
func (s *Sums) Run(ctx context.Context, lease claims.Lease, peers bool, limit time.Duration) error {
	started := s.now()
	s.mu.Lock()
	due := s.due
	s.due = map[cassandra.FleetHour]bool{}
	if peers {
		for h := range due {
			s.again[h] = started.Add(s.skew)
		}
	}
	for _, waiting := range []map[cassandra.FleetHour]time.Time{s.again, s.retry} {
		for h, at := range waiting {
			if !started.Before(at) {
				due[h] = true
				delete(waiting, h)
			}
		}
	}
	s.mu.Unlock()
	left := inTurn(maps.Keys(due))
	for len(left) > 0 {
		if limit > 0 && s.now().Sub(started) > limit {
			s.Add(slices.Values(slices.Concat(left...)))
			return nil
		}
		var part []cassandra.FleetHour
		days := 0
		for days < len(left) && len(part) < together {
			part = append(part, left[days]...)
			days++
		}
		if err := s.sum(ctx, lease, part); err != nil {
			s.Add(slices.Values(slices.Concat(left...)))
			return err
		}
		left = left[days:]
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.retry) == 0 {
		s.outage.Note(nil)
		s.last.Set(float64(s.now().UnixMilli()) / 1000)
	}
	return nil
}

type fleetDay struct {
	fleet string
	day   cassandra.Day
}

func dayOf(h cassandra.FleetHour) fleetDay { return fleetDay{h.FleetID, cassandra.DayOf(h.HourMs)} }

// inTurn groups hours by fleet and day, because the sums of a day are one mutation. The fleets are in turn, each with its
// newest day first.
func inTurn(hours iter.Seq[cassandra.FleetHour]) [][]cassandra.FleetHour {
	byDay := map[fleetDay][]cassandra.FleetHour{}
	for h := range hours {
		byDay[dayOf(h)] = append(byDay[dayOf(h)], h)
	}
	days := slices.SortedFunc(maps.Keys(byDay), func(a, b fleetDay) int { return cmp.Compare(b.day, a.day) })
	var groups [][]cassandra.FleetHour
	for _, day := range fair.Interleave(days, func(d fleetDay) string { return d.fleet }) {
		groups = append(groups, byDay[day])
	}
	return groups
}

// fail skips an hour for some time. The metric of the last success shows it.
func (s *Sums) fail(h cassandra.FleetHour, err error) {
	s.outage.Note(fmt.Errorf("hour %d of fleet %s: %w", h.HourMs, h.FleetID, err))
	s.mu.Lock()
	defer s.mu.Unlock()
	s.retry[h] = s.now().Add(retryAfter)
}

// sum sums hours of fleets and writes the sums, one mutation per fleet and day.
func (s *Sums) sum(ctx context.Context, lease claims.Lease, hours []cassandra.FleetHour) error {
	var mu sync.Mutex
	sums := map[fleetDay][]cassandra.Mutation[cassandra.AnalyticsRow]{}
	ofDay := map[fleetDay][]cassandra.FleetHour{}
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(readsInParallel)
	for _, h := range hours {
		g.Go(func() error {
			sum, err := s.read(gctx, h)
			if cassandra.Permanent(err) {
				s.fail(h, err)
				return nil
			}
			if err != nil {
				return err
			}
			mu.Lock()
			defer mu.Unlock()
			key := fleetDay{h.FleetID, sum.Row.Day}
			sums[key], ofDay[key] = append(sums[key], sum), append(ofDay[key], h)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	g, gctx = errgroup.WithContext(ctx)
	var failed error
	for key, rows := range sums {
		if failed == nil {
			failed = s.exec.Start(gctx, g, cassandra.TableAnalytics, len(rows), func(ctx context.Context) error {
				if err := lease.Check(ctx); err != nil {
					return err
				}
				err := s.stores.Strong.ApplyAnalytics(ctx, rows)
				if !cassandra.Permanent(err) {
					return err
				}
				for _, h := range ofDay[key] {
					s.fail(h, err)
				}
				return nil
			})
		}
	}
	if err := g.Wait(); err != nil {
		return err
	}
	s.hours.Add(float64(len(hours)))
	return failed
}

// read sums one hour, or deletes its sum if nothing is left to add up. The stamp precedes the read: the last reader has
// seen the latest row of every device.
func (s *Sums) read(ctx context.Context, h cassandra.FleetHour) (sum cassandra.Mutation[cassandra.AnalyticsRow], err error) {
	sum.WriteTimeUs = s.stamps.Next()
	var rows []cassandra.HourRow
	_, err = executor.ReadWithin(ctx, executor.PartitionLimit, s.exec, s.stores, cassandra.TableHours, func(ctx context.Context, store Store) (err error) {
		rows, err = store.Hours(ctx, h.FleetID, h.HourMs)
		return err
	})
	var found bool
	if sum.Row, found = derived.SumHours(rows); !found {
		sum.Row, sum.Delete = h.Analytics(), true
	}
	return sum, err
}

package cassandra

import (
	"context"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"
)

// Baseline writes with nothing but the driver, as the documentation of the driver shows it: what a benchmark of a
// loader is compared with. Its retries are the driver's simple ones: a write that still fails after them ends it.
type Baseline struct {
	session *gocql.Session
	level   gocql.Consistency
}

// NewBaseline shares the session and the write level of the store.
func NewBaseline(s *Store) *Baseline { return &Baseline{session: s.driver, level: s.write} }

// BaselineRow is one record for the baseline.
type BaselineRow struct {
	DeviceID string
	TelemetryRow
}

// baselineRetries are for nodes that are cold and time out.
var baselineRetries = &gocql.SimpleRetryPolicy{NumRetries: 10}

// Grouped writes history rows in batches of one partition, size rows each, with so many requests under way. Rows of a
// partition must stand together.
func (b *Baseline) Grouped(ctx context.Context, rows []BaselineRow, size, inFlight int) error {
	var groups [][]BaselineRow
	for from := 0; from < len(rows); {
		to := from + 1
		for to < len(rows) && to-from < size && rows[to].DeviceID == rows[from].DeviceID && DayOf(rows[to].TsMs) == DayOf(rows[from].TsMs) {
			to++
		}
		groups = append(groups, rows[from:to])
		from = to
	}
	return sideBySide(ctx, groups, inFlight, func(ctx context.Context, group []BaselineRow) error {
		batch := b.session.NewBatch(gocql.UnloggedBatch).WithContext(ctx)
		batch.Cons = b.level
		batch.RetryPolicy(baselineRetries)
		for i := range group {
			batch.Query(insertHistory, historyArgs(&group[i])...)
		}
		return b.session.ExecuteBatch(batch)
	})
}

// Single writes each record as two statements of their own, one for the history and one for the latest fix.
func (b *Baseline) Single(ctx context.Context, rows []BaselineRow, inFlight int) error {
	return sideBySide(ctx, rows, inFlight, func(ctx context.Context, r BaselineRow) error {
		err := b.session.Query(insertHistory, historyArgs(&r)...).WithContext(ctx).Consistency(b.level).RetryPolicy(baselineRetries).Exec()
		if err != nil {
			return err
		}
		return b.session.Query(insertLatest, r.DeviceID, r.TsMs, r.FleetID, r.Lat, r.Lon,
			r.SpeedKmh, r.HeadingDeg, r.BatteryPct, r.TempC, r.Zone, r.WriteTimeUs).WithContext(ctx).Consistency(b.level).RetryPolicy(baselineRetries).Exec()
	})
}

func historyArgs(r *BaselineRow) []any {
	var accuracy any = gocql.UnsetValue // generated rows have none, and a null would be a tombstone
	if r.AccuracyM != nil {
		accuracy = *r.AccuracyM
	}
	return []any{
		r.DeviceID, DayOf(r.TsMs).Time(), r.TsMs, r.FleetID, r.Lat, r.Lon,
		r.SpeedKmh, r.HeadingDeg, r.BatteryPct, r.TempC, accuracy, r.Zone, r.WriteTimeUs, r.TTLSeconds,
	}
}

// sideBySide does every part, n at once, and gives the first error.
func sideBySide[T any](ctx context.Context, parts []T, n int, do func(context.Context, T) error) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(n)
	for _, part := range parts {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error { return do(ctx, part) })
	}
	return g.Wait()
}

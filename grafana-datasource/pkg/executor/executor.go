// Package executor runs queries: it authorizes them, plans the partitions to read, reads them in parallel, filters the
// rows, and enforces the limits of the data source.
package executor

import (
	"context"
	"fmt"
	"slices"
	"time"
	"unsafe"

	"github.com/grafana/grafana-plugin-sdk-go/data"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/memory"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/reader"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/settings"
)

// Reader reads fleet data. Callers share the results and must not change them.
type Reader interface {
	Fleets(ctx context.Context) ([]string, error)
	Latest(ctx context.Context, fleet string) ([]cassandra.Telemetry, error)
	Devices(ctx context.Context, fleet string) ([]cassandra.Device, error)
	Geofences(ctx context.Context, fleet string) ([]cassandra.Geofence, error)
	Schema(ctx context.Context) ([]cassandra.Table, error)
	FleetsOf(ctx context.Context, device string, fleets []string) ([]string, error)
	Day(ctx context.Context, device, fleet string, day cassandra.Day, fromMs, toMs int64, limit int) (*cassandra.Track, error)
	Hours(ctx context.Context, fleet string, day cassandra.Day) ([]cassandra.AnalyticsRow, error)
	Alerts(ctx context.Context, q cassandra.AlertQuery) ([]cassandra.Alert, error)
	Rows(ctx context.Context, statement string, limit, bytes int) (cassandra.Result, error)
}

// Limits on concurrent goroutines. The reader limits the concurrent reads of the data source as a whole.
const (
	concurrentFleets     = 16
	concurrentPartitions = 64
)

// trackBytes bounds the positions that all tracks hold before they are downsampled. Tracks wait for each other.
const trackBytes = 32 << 20

// Executor runs the queries of one data source. It is safe for concurrent use.
type Executor struct {
	settings *settings.Settings
	reader   Reader
	links    frames.Links
	now      func() time.Time
	rawRows  *semaphore.Weighted // bytes that the rows of statements in progress may take
	tracks   *semaphore.Weighted // bytes of positions
}

// New makes an executor.
func New(s *settings.Settings, r Reader, links frames.Links, now func() time.Time) *Executor {
	return &Executor{settings: s, reader: r, links: links, now: now,
		rawRows: semaphore.NewWeighted(int64(s.QueryBytes)), tracks: semaphore.NewWeighted(trackBytes)}
}

// Result is the result of a query.
type Result struct {
	Frames      data.Frames
	Truncations []string // notices about limits that cut off a part of the result
}

func (r *Result) truncated(format string, args ...any) {
	if notice := fmt.Sprintf(format, args...); !slices.Contains(r.Truncations, notice) {
		r.Truncations = append(r.Truncations, notice)
	}
}

// execution is one query in progress.
type execution struct {
	*Executor
	Result
}

// show makes frames the result of the query.
func (x *execution) show(frames ...*data.Frame) error {
	x.Frames = frames
	return nil
}

// Authorize is the only gate for fleets: every query passes it before anything is read. Queries that name no fleet read
// the allowed fleets only; tracks and raw statements, whose keys have no fleet, are limited where they are read.
func (e *Executor) Authorize(q query.Query) error {
	if _, raw := q.(*query.Raw); raw && !e.settings.AllowRaw {
		return settings.Forbidden("raw CQL: not allowed by the settings of this data source; use another query type")
	}
	return e.settings.Access.Check(q.Base().Fleets)
}

// Run runs a query.
func (e *Executor) Run(ctx context.Context, q query.Query) (*Result, error) {
	x := &execution{Executor: e}
	err := e.Authorize(q)
	if err == nil {
		err = x.run(ctx, q)
	}
	if err == nil && len(x.Frames) == 0 {
		x.Frames = data.Frames{frames.NoSeries()}
	}
	return &x.Result, err
}

func (x *execution) run(ctx context.Context, q query.Query) error {
	switch q := q.(type) {
	case *query.Latest:
		return x.latest(ctx, q)
	case *query.Track:
		return x.track(ctx, q)
	case *query.Analytics:
		return x.analytics(ctx, q)
	case *query.Alerts:
		return x.alerts(ctx, q)
	case *query.Devices:
		return x.devices(ctx, q)
	case *query.Fleets:
		return x.fleets(ctx, q)
	case *query.Geofences:
		return x.geofences(ctx, q)
	case *query.Raw:
		return x.raw(ctx, q)
	case *query.Variable:
		return x.variable(ctx, q)
	}
	return fmt.Errorf("query of type %T: not implemented", q)
}

// fleetsOf returns the sorted fleets of an authorized query: those it names, or all that the data source may read.
func (x *execution) fleetsOf(ctx context.Context, c *query.Common) ([]string, error) {
	if len(c.Fleets) > 0 {
		return slices.Compact(slices.Sorted(slices.Values(c.Fleets))), nil
	}
	if access := x.settings.Access; access.Restricted() {
		return access.Fleets(), nil
	}
	return x.reader.Fleets(ctx)
}

// limitFleets truncates fleets so that partitionsEach partitions of each stay within the limit.
func (x *execution) limitFleets(fleets []string, partitionsEach int) []string {
	most := max(x.settings.MaxPartitions/partitionsEach, 1)
	if len(fleets) <= most {
		return fleets
	}
	x.truncated("Only the first %d of %d fleets: a query reads at most %d partitions. Choose fewer fleets.", most, len(fleets), x.settings.MaxPartitions)
	return fleets[:most]
}

// days lists the UTC days of a range, oldest first. It truncates a long range to its newest days.
func (x *execution) days(from, to time.Time, most int) []cassandra.Day {
	most = min(max(most, 1), cassandra.MaxDays)
	first, last := cassandra.DayOf(from.UnixMilli()), cassandra.DayOf(to.UnixMilli())
	if n := int(last-first) + 1; n > most {
		first = last - cassandra.Day(most) + 1
		x.truncated("Only the newest %d of %d days, starting %s: the limit of one query.", most, n, first)
	}
	var days []cassandra.Day
	for day := first; day <= last; day++ {
		days = append(days, day)
	}
	return days
}

// limitRows truncates rows to the row limit of a query. The notice takes the limit and the number of rows.
func limitRows[T any](x *execution, rows []T, c *query.Common, notice string) []T {
	most := c.RowLimit(x.settings.MaxRows)
	if len(rows) <= most {
		return rows
	}
	x.truncated(notice, most, len(rows))
	return rows[:most]
}

// forEach calls read for every item, at most n at a time, and returns the results in the order of the items.
func forEach[I, T any](ctx context.Context, n int, items []I, read func(context.Context, I) (T, error)) ([]T, error) {
	results := make([]T, len(items))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(n)
	for i, item := range items {
		g.Go(func() (err error) {
			defer reader.CatchPanic(&err)
			results[i], err = read(ctx, item)
			return err
		})
	}
	return results, g.Wait()
}

// forEachFleet calls read for every fleet of a query in parallel. It returns the fleets, truncated so that partitionsEach
// partitions of each stay within the limit, and the rows of each.
func forEachFleet[T any](ctx context.Context, x *execution, c *query.Common, partitionsEach int, read func(context.Context, string) ([]T, error)) (fleets []string, rows [][]T, err error) {
	if fleets, err = x.fleetsOf(ctx, c); err != nil {
		return nil, nil, err
	}
	fleets = x.limitFleets(fleets, partitionsEach)
	rows, err = forEach(ctx, concurrentFleets, fleets, read)
	return fleets, rows, err
}

// keep returns the rows for which selects returns true. It does not change rows, which equal queries share, and returns
// rows itself if it keeps all of them.
func keep[T any](rows []T, selects func(*T) bool) []T {
	for i := range rows {
		if !selects(&rows[i]) {
			kept := slices.Clone(rows[:i])
			for j := i + 1; j < len(rows); j++ {
				if selects(&rows[j]) {
					kept = append(kept, rows[j])
				}
			}
			return kept
		}
	}
	return rows
}

// gather returns the rows of all parts for which selects returns true, in a list of its own. It takes its memory from the
// account of ctx.
func gather[T any](ctx context.Context, parts [][]T, selects func(*T) bool) ([]T, error) {
	n := 0
	for _, rows := range parts {
		n += len(rows)
	}
	var row T
	if err := memory.Take(ctx, n*int(unsafe.Sizeof(row))); err != nil {
		return nil, err
	}
	kept := make([]T, 0, n)
	for _, rows := range parts {
		for i := range rows {
			if selects(&rows[i]) {
				kept = append(kept, rows[i])
			}
		}
	}
	return kept, nil
}

// takeCells takes the memory of a frame from the account of ctx.
func takeCells(ctx context.Context, rows, fields int) error {
	return memory.Take(ctx, rows*fields*memory.CellBytes)
}

// anyOf returns a function that reports whether a list of choices has a value. An empty list has every value. Both the list
// and the rows may be long.
func anyOf(choices []string) func(string) bool {
	if len(choices) == 0 {
		return func(string) bool { return true }
	}
	set := make(map[string]bool, len(choices))
	for _, choice := range choices {
		set[choice] = true
	}
	return func(value string) bool { return set[value] }
}

package query

import (
	"context"
	"slices"
	"strconv"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// fixItem is a fix, with the names that it was sent with.
type fixItem struct {
	DeviceID   string   `json:"device_id"`
	FleetID    string   `json:"fleet_id,omitempty"`
	Timestamp  string   `json:"timestamp"`
	Lat        float64  `json:"lat"`
	Lon        float64  `json:"lon"`
	SpeedKmh   *float64 `json:"speed_kmh,omitempty"`
	HeadingDeg *float64 `json:"heading_deg,omitempty"`
	BatteryPct *int32   `json:"battery_pct,omitempty"`
	TempC      *float64 `json:"temp_c,omitempty"`
	Zone       string   `json:"zone,omitempty"`
	AccuracyM  *float64 `json:"accuracy_m,omitempty"` // never of a newest fix: its tables have no such column

	time time.Time
}

// fixColumns are the columns that fleet-etl load takes: a track that was saved can be loaded.
var fixColumns = telemetry.Fields

func (f fixItem) row() []string {
	battery := ""
	if f.BatteryPct != nil {
		battery = strconv.Itoa(int(*f.BatteryPct))
	}
	return []string{
		f.DeviceID, f.FleetID, f.Timestamp, formatFloat(&f.Lat), formatFloat(&f.Lon),
		formatFloat(f.SpeedKmh), formatFloat(f.HeadingDeg), battery, formatFloat(f.TempC), f.Zone, formatFloat(f.AccuracyM),
	}
}

func formatFloat(v *float64) string {
	if v == nil {
		return ""
	}
	return strconv.FormatFloat(*v, 'f', -1, 64)
}

func fixItems(rows []cassandra.Telemetry) []fixItem {
	items := make([]fixItem, len(rows))
	for i, t := range rows {
		items[i] = fixItem{
			t.DeviceID, t.FleetID, formatTime(t.Ts), t.Lat, t.Lon, t.SpeedKmh, t.HeadingDeg, t.BatteryPct, t.TempC, t.Zone, t.AccuracyM, t.Ts,
		}
	}
	return items
}

// historyKept is how far back fixes can be, with a margin for clocks.
const historyKept = telemetry.Retention + 24*time.Hour

// msPerDay is a day in milliseconds.
const msPerDay = 24 * 60 * 60 * 1000

func (a *API) track() list[fixItem] {
	return list[fixItem]{
		route: routeTrack, idField: fieldDevice, span: &span{back: 24 * time.Hour}, columns: fixColumns, row: fixItem.row,
		page: a.trackPage, keep: keepRange(keepLatest), streamed: true,
		gpx: func(g *gpxWriter, items []fixItem) {
			for _, f := range slices.Backward(items) {
				g.point(f.time, f.Lat, f.Lon, f.SpeedKmh, f.HeadingDeg)
			}
		},
		all: a.wholeTrack,
	}
}

// freshlyClosed is how long after its end a day is still likely to get late records.
const freshlyClosed = 6 * time.Hour

// keepRange is how long a list over a range in time is kept: long where its days are over, else as open says.
func keepRange(open time.Duration) func(*query, time.Time) time.Duration {
	return func(q *query, now time.Time) time.Duration {
		end := cassandra.DayOf(q.to + msPerDay).Time() // of the last day
		switch over := now.Sub(end); {
		case q.sliding || over < 0:
			return open
		case over < freshlyClosed:
			return keepClosed / 10
		default:
			return keepClosed
		}
	}
}

// maxScanned is how many fixes are looked at for one page. Only a device that was another fleet's for long, whose
// fixes the token may not see, has so many that are not shown.
const maxScanned = 100_000

// fewestHidden is how many fixes are read at once where some are not shown, however few are wanted.
const fewestHidden = 1000

// trackPage reads fixes newest first. The position is the time of the last one that was read.
func (a *API) trackPage(ctx context.Context, store Store, q *query) ([]fixItem, string, error) {
	b := a.backwards(q)
	if q.position != "" {
		before, err := strconv.ParseInt(q.position, 10, 64)
		if err != nil {
			return nil, "", badPage(q.page)
		}
		b.to = min(b.to, before-1)
	}
	var rows []cassandra.Telemetry
	for scanned := 0; !b.done(); {
		// One more than is shown tells whether there is another page.
		want := q.limit + 1 - len(rows)
		if scanned > len(rows) {
			want = max(want, fewestHidden)
		}
		part, n, err := b.next(ctx, store, want)
		if err != nil {
			return nil, "", err
		}
		rows = append(rows, part...)
		if scanned += n; len(rows) > q.limit {
			rows = rows[:q.limit]
			return fixItems(rows), strconv.FormatInt(rows[q.limit-1].Ts.UnixMilli(), 10), nil
		}
		if scanned > maxScanned && !b.done() {
			return fixItems(rows), strconv.FormatInt(b.to+1, 10), nil
		}
	}
	return fixItems(rows), "", nil
}

// backwards reads a track from its end, a few days at a time: more of them when they turn out to hold little.
type backwards struct {
	device, scope string
	from, to      int64
	days          int64
}

// maxDays is how many days of a track are asked for at once.
const maxDays = 16

// maxRead is how many rows the store may have to read for one call: it reads each partition up to the limit, and drops
// what is beyond it afterwards.
const maxRead = 20_000

// widen doubles the days that are asked for next, within what the store may have to read for them.
func widen(days, most int64, partitions, limit int) int64 {
	return min(2*days, most, max(int64(maxRead/limit/partitions), 1))
}

// backwards starts at the end of the query's range, as far as there can be fixes.
func (a *API) backwards(q *query) *backwards {
	from, to := a.kept(q)
	return &backwards{device: q.id, scope: q.scope, from: from, to: to, days: 1}
}

func (a *API) kept(q *query) (from, to int64) {
	now := a.Now()
	return max(q.from, now.Add(-historyKept).UnixMilli()), min(q.to, now.Add(24*time.Hour).UnixMilli())
}

func (b *backwards) done() bool { return b.to < b.from }

// next reads at most limit fixes and gives those that the scope may see, and how many were read.
func (b *backwards) next(ctx context.Context, store Store, limit int) (rows []cassandra.Telemetry, read int, err error) {
	first := cassandra.DayOf(b.to).Time().UnixMilli() - (b.days-1)*msPerDay
	from := max(b.from, first)
	p, err := store.History(ctx, cassandra.HistoryQuery{DeviceID: b.device, From: time.UnixMilli(from), To: time.UnixMilli(b.to), Limit: limit})
	if err != nil {
		return nil, 0, err
	}
	read = len(p.Rows)
	if read >= limit {
		b.to, b.days = p.Rows[read-1].Ts.UnixMilli()-1, 1
	} else {
		b.to, b.days = from-1, widen(b.days, maxDays, 1, limit)
	}
	return visible(p.Rows, b.scope), read, nil
}

// visible is the fixes that a scope may see: of a device that changed fleets, those of the fleet.
func visible(rows []cassandra.Telemetry, scope string) []cassandra.Telemetry {
	if scope == AllFleets {
		return rows
	}
	return slices.DeleteFunc(rows, func(t cassandra.Telemetry) bool { return t.FleetID != scope })
}

// The bounds of the stretch of a track that is read at once when it is read from its beginning. A second can't hold
// more fixes than streamRows: there is one for a millisecond.
const (
	shortestStretch = int64(1000)
	longestStretch  = int64(4 * msPerDay)
	firstStretch    = int64(msPerDay / 4)
)

// wholeTrack reads a track from its beginning, though the store reads from the end: in stretches so short that one
// answer holds each.
func (a *API) wholeTrack(q *query) reader[fixItem] {
	from, to := a.kept(q)
	stretch := firstStretch
	return func(ctx context.Context, store Store) ([]fixItem, bool, error) {
		for from <= to {
			until := min(to, from+stretch-1)
			p, err := store.History(ctx, cassandra.HistoryQuery{DeviceID: q.id, From: time.UnixMilli(from), To: time.UnixMilli(until), Limit: streamRows})
			if err != nil {
				return nil, false, err
			}
			if len(p.Rows) >= streamRows && stretch > shortestStretch {
				stretch = max(stretch/4, shortestStretch)
				continue
			}
			if len(p.Rows) < streamRows/4 {
				stretch = min(2*stretch, longestStretch)
			}
			from = until + 1
			if rows := visible(p.Rows, q.scope); len(rows) > 0 {
				return fixItems(rows), from > to, nil
			}
		}
		return nil, true, nil
	}
}

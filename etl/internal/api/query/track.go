package query

import (
	"context"
	"strconv"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/auth"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/gpx"
	"github.com/fleettracing/fleet-tracing/etl/internal/api/params"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// positionItem is a position in a response, with the fields of telemetry.Fields: fleet-etl load can load a downloaded track.
type positionItem struct {
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
	AccuracyM  *float64 `json:"accuracy_m,omitempty"` // never of a latest position: its tables have no such column

	time time.Time
}

func positionItems(rows []cassandra.Telemetry) []positionItem {
	items := make([]positionItem, len(rows))
	for i, t := range rows {
		items[i] = positionItem{
			t.DeviceID, t.FleetID, formatTime(t.Ts), t.Lat, t.Lon, t.SpeedKmh, t.HeadingDeg, t.BatteryPct, t.TempC, t.Zone, t.AccuracyM, t.Ts,
		}
	}
	return items
}

// maxAge is how old positions can be, with a margin for clocks.
const maxAge = telemetry.Retention + 24*time.Hour

// msPerDay is a day in milliseconds.
const msPerDay = 24 * 60 * 60 * 1000

func (a *API) track() list[positionItem] {
	return list[positionItem]{
		Spec: params.Spec{Route: "track", Span: &params.Span{Default: 24 * time.Hour}}, path: "/v1/devices/{device}/track", idField: fieldDevice,
		page: a.trackPage, ttl: rangeTTL(ttlLatest), streamed: true,
		point: func(i positionItem) gpx.Point {
			return gpx.Point{Time: i.time, Lat: i.Lat, Lon: i.Lon, SpeedKmh: i.SpeedKmh, HeadingDeg: i.HeadingDeg}
		},
		all: a.wholeTrack,
	}
}

// lateRecords is how long after the end of a day late records are still likely.
const lateRecords = 6 * time.Hour

// rangeTTL is how long a list over a range in time stays in the cache: long if the range has only past days, else open.
func rangeTTL(open time.Duration) func(*params.Query, time.Time) time.Duration {
	return func(q *params.Query, now time.Time) time.Duration {
		end := cassandra.DayOf(q.To + msPerDay).Time() // of the last day
		switch over := now.Sub(end); {
		case q.Sliding || over < 0:
			return open
		case over < lateRecords:
			return ttlClosed / 10
		default:
			return ttlClosed
		}
	}
}

// maxDays is how many days of a track are read at once.
const maxDays = 16

// maxRead is how many rows the store may have to read for one call. It reads each partition up to the limit and drops the
// surplus afterwards.
const maxRead = 20_000

// widen doubles the number of days to read next, within what the store may have to read for them.
func widen(days, most int64, partitions, limit int) int64 {
	return min(2*days, most, max(int64(maxRead/limit/partitions), 1))
}

// trackPage reads positions newest first, a few days at a time, and more days when they have few positions. The position in
// the list is the time of the last one that was read.
func (a *API) trackPage(ctx context.Context, store Store, q *params.Query) ([]positionItem, string, error) {
	from, to := a.bound(q)
	if q.Position != "" {
		before, err := strconv.ParseInt(q.Position, 10, 64)
		if err != nil {
			return nil, "", q.BadPage()
		}
		to = min(to, before-1)
	}
	fleet, found, err := trackFleet(ctx, store, q)
	if err != nil || !found {
		return nil, "", err
	}
	var rows []cassandra.Telemetry
	for days := int64(1); to >= from; {
		limit := q.Limit + 1 - len(rows) // one more than the page shows reveals whether there is another page
		first := max(from, cassandra.DayOf(to).Time().UnixMilli()-(days-1)*msPerDay)
		part, err := store.History(ctx, cassandra.HistoryQuery{DeviceID: q.ID, FleetID: fleet, From: time.UnixMilli(first), To: time.UnixMilli(to), Limit: limit})
		if err != nil {
			return nil, "", err
		}
		if rows = append(rows, part...); len(rows) > q.Limit {
			rows = rows[:q.Limit]
			return positionItems(rows), strconv.FormatInt(rows[q.Limit-1].Ts.UnixMilli(), 10), nil
		}
		to, days = first-1, widen(days, maxDays, 1, limit)
	}
	return positionItems(rows), "", nil
}

// bound limits the range of a query to times that stored positions can have.
func (a *API) bound(q *params.Query) (from, to int64) {
	now := a.Now()
	return max(q.From, now.Add(-maxAge).UnixMilli()), min(q.To, now.Add(24*time.Hour).UnixMilli())
}

// trackFleet returns the fleet to whose positions a token is limited; empty: to none. It returns false if the device was never in
// that fleet: the history of another fleet's device is not read.
func trackFleet(ctx context.Context, store Store, q *params.Query) (fleet string, found bool, err error) {
	if q.Scope == auth.AllFleets {
		return "", true, nil
	}
	fleets, err := store.FleetsOf(ctx, q.ID, []string{q.Scope})
	return q.Scope, len(fleets) > 0, err
}

// The bounds in milliseconds of the interval that is read at once when a track is read from its beginning. One second
// has at most 1,000 positions, one per millisecond, which is less than streamRows.
const (
	minInterval   = int64(1000)
	maxInterval   = int64(4 * msPerDay)
	firstInterval = int64(msPerDay / 4)
)

// wholeTrack reads a track from its beginning, although the store reads from the end. It reads intervals that are short
// enough for one result.
func (a *API) wholeTrack(q *params.Query) reader[positionItem] {
	from, to := a.bound(q)
	interval := firstInterval
	return func(ctx context.Context, store Store) ([]positionItem, bool, error) {
		fleet, found, err := trackFleet(ctx, store, q)
		if err != nil {
			return nil, false, err
		}
		for found && from <= to {
			until := min(to, from+interval-1)
			part, err := store.History(ctx, cassandra.HistoryQuery{DeviceID: q.ID, FleetID: fleet, From: time.UnixMilli(from), To: time.UnixMilli(until), Limit: streamRows})
			if err != nil {
				return nil, false, err
			}
			if len(part) >= streamRows && interval > minInterval {
				interval = max(interval/4, minInterval)
				continue
			}
			if len(part) < streamRows/4 {
				interval = min(2*interval, maxInterval)
			}
			from = until + 1
			if len(part) > 0 {
				return positionItems(part), from > to, nil
			}
		}
		return nil, true, nil
	}
}

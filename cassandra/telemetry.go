package cassandra

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gocql/gocql"
)

// Telemetry is one stored fix of a device: a row of the history, or the newest.
type Telemetry struct {
	DeviceID   string
	FleetID    string // empty in rows that were written without
	Ts         time.Time
	Lat, Lon   float64
	SpeedKmh   *float64 // km/h
	HeadingDeg *float64 // degrees clockwise from north
	BatteryPct *int32   // percent
	TempC      *float64 // degrees Celsius
	AccuracyM  *float64 // how far the true position may lie from Lat, Lon: a radius in metres; only in rows of the history
	Zone       string
}

// TelemetryRow is a row of telemetry_by_device_day as it is written. A nil pointer, or an empty FleetID, writes no cell.
type TelemetryRow struct {
	TsMs       int64 // event time, Unix milliseconds
	FleetID    string
	Lat, Lon   float64
	SpeedKmh   *float64
	HeadingDeg *float64
	BatteryPct *int32
	TempC      *float64
	AccuracyM  *float64
	Zone       string

	WriteTimeUs int64 // write timestamp, µs since 1970: of two writes of a cell the later one stays
	TTLSeconds  int32 // time until the row expires; at least 1
}

// LatestRow is a row of latest_telemetry_by_device or latest_telemetry_by_fleet as it is written: the cells that the
// event of this write timestamp is the newest to have. An absent value, nil or empty, leaves the cell that is there.
type LatestRow struct {
	DeviceID   string
	FleetID    string
	LastTsMs   *int64 // event time, Unix milliseconds
	Lat, Lon   *float64
	SpeedKmh   *float64
	HeadingDeg *float64
	BatteryPct *int32
	TempC      *float64
	Zone       string

	WriteTimeUs int64
}

// WriteTimes is what the writer must know of a device that it meets for the first time: its fleet, and the write timestamps
// of its newest fix and of each optional cell, in µs; 0 for a cell that is absent.
type WriteTimes struct {
	Found   bool
	FleetID string

	LastUs, SpeedUs, HeadingUs, BatteryUs, TempUs int64
}

// TelemetryStore keeps the history of devices and their latest positions.
type TelemetryStore struct{ db *Session }

// Each row carries its own write timestamp, so every write can be repeated and reordered freely.
const (
	insertHistory = "INSERT INTO telemetry_by_device_day (device_id, day, ts, fleet_id, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, accuracy_m, zone)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?"
	insertLatest = "INSERT INTO latest_telemetry_by_device (device_id, last_ts, fleet_id, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, zone)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	insertLatestByFleet = "INSERT INTO latest_telemetry_by_fleet (fleet_id, bucket, device_id, last_ts, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, zone)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteLatestByFleet = "DELETE FROM latest_telemetry_by_fleet USING TIMESTAMP ? WHERE fleet_id = ? AND bucket = ? AND device_id = ?"

	telemetryColumns   = "fleet_id, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, zone"
	selectLatest       = "SELECT device_id, last_ts, " + telemetryColumns + " FROM latest_telemetry_by_device WHERE device_id = ?"
	selectLatestFleet  = "SELECT device_id, last_ts, " + telemetryColumns + " FROM latest_telemetry_by_fleet WHERE fleet_id = ? AND bucket = ?"
	historyOfDay       = "device_id, ts, " + telemetryColumns + ", accuracy_m FROM telemetry_by_device_day WHERE device_id = ? AND day = ?"
	selectHistory      = "SELECT " + historyOfDay + " AND ts >= ? AND ts <= ?"
	selectHistoryLimit = selectHistory + " LIMIT ?"
	selectPositions    = "SELECT " + historyOfDay + " ORDER BY ts ASC"
	selectWriteTimes   = "SELECT fleet_id, WRITETIME(last_ts), WRITETIME(speed_kmh), WRITETIME(heading_deg), WRITETIME(battery_pct), WRITETIME(temp_c)" +
		" FROM latest_telemetry_by_device WHERE device_id = ?"
)

// FleetBuckets is the number of partitions over which the latest rows of a fleet are spread. It is part of what is
// stored: changing it needs the table written anew.
const FleetBuckets = 8

// Bucket is the partition of a device among its fleet's latest rows.
func Bucket(deviceID string) int32 { return bucketOf(deviceID, FleetBuckets) }

// WriteHistory writes rows of one device and day as one mutation.
func (s *TelemetryStore) WriteHistory(ctx context.Context, deviceID string, day Day, rows []TelemetryRow) error {
	const width = 14
	a := newArena(len(rows), width)
	b := s.db.batch(ctx, len(rows))
	for i := range rows {
		r := &rows[i]
		from := len(a.args)
		a.text(deviceID)
		a.date(day)
		a.timestamp(r.TsMs)
		a.optionalText(r.FleetID)
		a.double(r.Lat)
		a.double(r.Lon)
		a.optionalDouble(r.SpeedKmh)
		a.optionalDouble(r.HeadingDeg)
		a.optionalInt(r.BatteryPct)
		a.optionalDouble(r.TempC)
		a.optionalDouble(r.AccuracyM)
		a.optionalText(r.Zone)
		a.bigint(r.WriteTimeUs)
		a.int(r.TTLSeconds)
		b.add(insertHistory, a.row(from))
	}
	return b.exec(TableHistory)
}

// WriteLatest writes one row of latest_telemetry_by_device.
func (s *TelemetryStore) WriteLatest(ctx context.Context, r *LatestRow) error {
	a := newArena(1, 11)
	b := s.db.batch(ctx, 1)
	a.text(r.DeviceID)
	a.optionalTimestamp(r.LastTsMs)
	a.optionalText(r.FleetID)
	a.latestCells(r)
	a.bigint(r.WriteTimeUs)
	b.add(insertLatest, a.row(0))
	return b.exec(TableLatest)
}

// WriteLatestByFleet writes rows of one fleet and bucket as one mutation. The rows' own FleetID is not looked at.
func (s *TelemetryStore) WriteLatestByFleet(ctx context.Context, fleetID string, bucket int32, rows []LatestRow) error {
	a := newArena(len(rows), 12)
	b := s.db.batch(ctx, len(rows))
	for i := range rows {
		r := &rows[i]
		from := len(a.args)
		a.text(fleetID)
		a.int(bucket)
		a.text(r.DeviceID)
		a.optionalTimestamp(r.LastTsMs)
		a.latestCells(r)
		a.bigint(r.WriteTimeUs)
		b.add(insertLatestByFleet, a.row(from))
	}
	return b.exec(TableLatestByFleet)
}

// DeleteLatestByFleet takes a device that moved off its old fleet's map: what was written there up to the write
// timestamp is gone, what is written later stays.
func (s *TelemetryStore) DeleteLatestByFleet(ctx context.Context, fleetID, deviceID string, writeTimeUs int64) error {
	a := newArena(1, 4)
	b := s.db.batch(ctx, 1)
	a.bigint(writeTimeUs)
	a.text(fleetID)
	a.int(Bucket(deviceID))
	a.text(deviceID)
	b.add(deleteLatestByFleet, a.row(0))
	return b.exec(TableLatestByFleet)
}

func (a *arena) latestCells(r *LatestRow) {
	a.optionalDouble(r.Lat)
	a.optionalDouble(r.Lon)
	a.optionalDouble(r.SpeedKmh)
	a.optionalDouble(r.HeadingDeg)
	a.optionalInt(r.BatteryPct)
	a.optionalDouble(r.TempC)
	a.optionalText(r.Zone)
}

// Latest is the newest fix of a device; an error that wraps ErrNotFound when it never sent one.
func (s *TelemetryStore) Latest(ctx context.Context, deviceID string) (Telemetry, error) {
	rows, err := collect(s.db, s.db.query(ctx, selectLatest, deviceID), telemetryScan(false))
	if err == nil && len(rows) == 0 {
		err = gocql.ErrNotFound
	}
	if err != nil {
		return Telemetry{}, opError("read latest fix of device "+deviceID, err)
	}
	return rows[0], nil
}

// LatestOfFleet is the newest fix of each device of a fleet, sorted by device: a few partitions, however many devices.
func (s *TelemetryStore) LatestOfFleet(ctx context.Context, fleetID string) ([]Telemetry, error) {
	parts, err := fanOut(ctx, s.db.config.Fanout, buckets(FleetBuckets), func(ctx context.Context, bucket int32) ([]Telemetry, error) {
		return collect(s.db, s.db.query(ctx, selectLatestFleet, fleetID, bucket), telemetryScan(false))
	})
	if err != nil {
		return nil, opError("read latest fixes of fleet "+fleetID, err)
	}
	// A row without a time is what is left where a cell of a device that moved away came last.
	rows := slices.DeleteFunc(slices.Concat(parts...), func(t Telemetry) bool { return t.Ts.IsZero() })
	slices.SortFunc(rows, func(a, b Telemetry) int { return strings.Compare(a.DeviceID, b.DeviceID) })
	return rows, nil
}

// historyKept is how far back rows of the history can be: 30 days and a margin for clocks.
const historyKept = 31 * 24 * time.Hour

// HistoryQuery asks for the fixes of a device between two instants, both included.
type HistoryQuery struct {
	DeviceID string
	From, To time.Time
	Limit    int    // at most so many rows, the newest; 0: all
	Page     string // Next of the page before; empty: the first
}

// History is the fixes of a device, newest first. The days of the range are read side by side, no more of them at once
// than Config.Fanout, and with a limit no more than it likely asks for.
func (s *TelemetryStore) History(ctx context.Context, q HistoryQuery) (Page[Telemetry], error) {
	op := "read history of device " + q.DeviceID
	to := q.To.UnixMilli()
	if q.Page != "" {
		before, err := decodePage(q.Page)
		if err != nil {
			return Page[Telemetry]{}, fmt.Errorf("%s: %w", op, err)
		}
		to = min(to, before-1)
	}
	// Nothing older than the retention is there to be read, and nothing from the future.
	now := time.Now()
	from := max(q.From.UnixMilli(), now.Add(-historyKept).UnixMilli())
	to = min(to, now.Add(24*time.Hour).UnixMilli())
	var page Page[Telemetry]
	days := daysBack(from, to)
	all := len(days)
	for len(days) > 0 {
		wave := days[:min(len(days), s.db.wave(q.Limit, len(page.Rows), all-len(days)))]
		days = days[len(wave):]
		parts, err := fanOut(ctx, s.db.config.Fanout, wave, func(ctx context.Context, day Day) ([]Telemetry, error) {
			args := []any{q.DeviceID, day.Time(), time.UnixMilli(from), time.UnixMilli(to)}
			if q.Limit > 0 {
				return collect(s.db, s.db.query(ctx, selectHistoryLimit, append(args, q.Limit)...), telemetryScan(true))
			}
			return collect(s.db, s.db.query(ctx, selectHistory, args...), telemetryScan(true))
		})
		if err != nil {
			return Page[Telemetry]{}, opError(op, err)
		}
		page.Rows = append(page.Rows, slices.Concat(parts...)...) // days don't overlap: newest day first is newest first
		if q.Limit > 0 && len(page.Rows) >= q.Limit {
			page.Rows = page.Rows[:q.Limit]
			page.Next = encodePage(page.Rows[q.Limit-1].Ts.UnixMilli())
			break
		}
	}
	return page, nil
}

// Positions is the fixes of a device in a day, oldest first.
func (s *TelemetryStore) Positions(ctx context.Context, deviceID string, day Day) ([]Telemetry, error) {
	q := s.db.query(ctx, selectPositions, deviceID, day.Time()).PageSize(trackPage)
	rows, err := collect(s.db, q, telemetryScan(true))
	return rows, opError(fmt.Sprintf("read day %s of device %s", day, deviceID), err)
}

// telemetryScan reads rows of telemetry, of the history with the accuracy that only it has. It belongs to one reading: rows
// share what they have in common, and their absent and present values come from a few allocations.
func telemetryScan(history bool) func(*gocql.Iter) (Telemetry, bool) {
	var device, fleet, zone nameCell
	var ts timeCell
	var lat, lon, speed, heading, battery, temp, accuracy numberCell
	row := []any{&device, &ts, &fleet, &lat, &lon, &speed, &heading, &battery, &temp, &zone}
	if history {
		row = append(row, &accuracy)
	}
	var kept optionals
	return func(iter *gocql.Iter) (Telemetry, bool) {
		accuracy = absent
		if !iter.Scan(row...) {
			return Telemetry{}, false
		}
		return Telemetry{
			DeviceID: device.text, Ts: ts.Time, FleetID: fleet.text, Zone: zone.text, Lat: lat.orZero(), Lon: lon.orZero(), SpeedKmh: kept.double(speed),
			HeadingDeg: kept.double(heading), BatteryPct: kept.int(battery), TempC: kept.double(temp), AccuracyM: kept.double(accuracy),
		}, true
	}
}

// LatestWriteTimes tells, for each device in the same order, what is stored of it. It reads at a level that meets every
// acknowledged write; where too few replicas live for that, at the level of writes.
func (s *TelemetryStore) LatestWriteTimes(ctx context.Context, deviceIDs []string) ([]WriteTimes, error) {
	stored, err := s.latestWriteTimes(ctx, deviceIDs, overlapping(s.db.write, s.db.replication))
	if classify(err).TooFewReplicas() {
		stored, err = s.latestWriteTimes(ctx, deviceIDs, s.db.write)
	}
	return stored, opError("read "+TableLatest, err)
}

func (s *TelemetryStore) latestWriteTimes(ctx context.Context, deviceIDs []string, level gocql.Consistency) ([]WriteTimes, error) {
	return fanOut(ctx, writeTimesFanout, deviceIDs, func(ctx context.Context, deviceID string) (WriteTimes, error) {
		var d WriteTimes
		err := s.db.query(ctx, selectWriteTimes, deviceID).Consistency(level).
			Scan(&d.FleetID, &d.LastUs, &d.SpeedUs, &d.HeadingUs, &d.BatteryUs, &d.TempUs)
		if err != nil && !errors.Is(err, gocql.ErrNotFound) {
			return WriteTimes{}, err
		}
		d.Found = d.LastUs != 0
		return d, nil
	})
}

// writeTimesFanout is higher than that of the screens' reads: these are single rows, and a load waits for them.
const writeTimesFanout = 64

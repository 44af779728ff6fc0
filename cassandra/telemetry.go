package cassandra

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/gocql/gocql"
)

// Telemetry is a stored position of a device: a row of the history, or the latest row.
type Telemetry struct {
	DeviceID   string
	FleetID    string // empty if the row has none
	Ts         time.Time
	Lat, Lon   float64
	SpeedKmh   *float64 // km/h
	HeadingDeg *float64 // degrees clockwise from north
	BatteryPct *int32   // percent
	TempC      *float64 // degrees Celsius
	AccuracyM  *float64 // radius around the position in meters; only in the history
	Zone       string
}

// TelemetryRow is a row to write to telemetry_by_device_day. A nil pointer or an empty text writes no cell.
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

	WriteTimeUs int64 // write timestamp, µs since 1970; the cell with the highest one wins
	TTLSeconds  int32 // time until the row expires; at least 1
}

// LatestRow is a row to write to latest_telemetry_by_device or latest_telemetry_by_fleet. A value that is absent, nil or
// empty, leaves the stored cell as it is.
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

// WriteTimes are the fleet of a device and the write timestamps of its latest position and of each optional cell, in µs.
// An absent cell has 0.
type WriteTimes struct {
	Found   bool
	FleetID string

	LastUs, SpeedUs, HeadingUs, BatteryUs, TempUs int64
}

// TelemetryStore keeps the history of devices and their latest positions.
type TelemetryStore struct{ *Session }

// Each row carries its own write timestamp, so every write can be repeated and reordered freely.
const (
	insertHistory = "INSERT INTO telemetry_by_device_day (device_id, day, ts, fleet_id, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, accuracy_m, zone)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?"
	insertLatest = "INSERT INTO latest_telemetry_by_device (device_id, last_ts, fleet_id, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, zone)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	insertLatestByFleet = "INSERT INTO latest_telemetry_by_fleet (fleet_id, bucket, device_id, last_ts, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, zone)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteLatestByFleet = "DELETE FROM latest_telemetry_by_fleet USING TIMESTAMP ? WHERE fleet_id = ? AND bucket = ? AND device_id = ?"

	clearLatest = "DELETE speed_kmh, heading_deg, battery_pct, temp_c FROM latest_telemetry_by_device USING TIMESTAMP ? WHERE device_id = ?"

	telemetryColumns   = "fleet_id, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, zone"
	selectLatest       = "SELECT device_id, last_ts, " + telemetryColumns + " FROM latest_telemetry_by_device WHERE device_id = ?"
	selectLatestFleet  = "SELECT device_id, last_ts, " + telemetryColumns + " FROM latest_telemetry_by_fleet WHERE fleet_id = ? AND bucket = ?"
	selectLatestPage   = selectLatestFleet + " AND device_id > ? LIMIT ?"
	historyOfDay       = "device_id, ts, " + telemetryColumns + ", accuracy_m FROM telemetry_by_device_day WHERE device_id = ? AND day = ?"
	selectHistory      = "SELECT " + historyOfDay + " AND ts >= ? AND ts <= ?"
	selectHistoryLimit = selectHistory + " LIMIT ?"
	selectHistoryFleet = selectHistory + ofFleet
	selectPositions    = "SELECT " + historyOfDay + " ORDER BY ts ASC"
	// ofFleet lets the node drop the rows of other fleets before it counts them: neither the number of rows of a result nor where
	// it ends depends on them.
	ofFleet = " AND fleet_id = ? LIMIT ? ALLOW FILTERING"

	selectWriteTimes = "SELECT fleet_id, WRITETIME(last_ts), WRITETIME(speed_kmh), WRITETIME(heading_deg), WRITETIME(battery_pct), WRITETIME(temp_c)" +
		" FROM latest_telemetry_by_device WHERE device_id = ?"
)

// FleetBuckets is the number of partitions over which the latest rows of a fleet are spread. Stored rows depend on it: a
// change means rewriting the table.
const FleetBuckets = 8

// Bucket is the partition of a device in its fleet's latest rows.
func Bucket(deviceID string) int32 { return bucketOf(deviceID, FleetBuckets) }

// WriteHistory writes rows of one device and day as one mutation.
func (s *TelemetryStore) WriteHistory(ctx context.Context, deviceID string, day Day, rows []TelemetryRow) error {
	return insert(ctx, s.Session, TableHistory, insertHistory, 14, rows, func(a *arena, r *TelemetryRow) {
		a.add(&deviceID, &day, &r.TsMs, (*optional)(&r.FleetID), &r.Lat, &r.Lon, &r.SpeedKmh, &r.HeadingDeg, &r.BatteryPct,
			&r.TempC, &r.AccuracyM, (*optional)(&r.Zone), &r.WriteTimeUs, &r.TTLSeconds)
	})
}

// WriteLatest writes one row of latest_telemetry_by_device.
func (s *TelemetryStore) WriteLatest(ctx context.Context, r *LatestRow) error {
	return insert(ctx, s.Session, TableLatest, insertLatest, 11, []LatestRow{*r}, func(a *arena, r *LatestRow) {
		a.add(&r.DeviceID, &r.LastTsMs, (*optional)(&r.FleetID))
		a.latest(r)
	})
}

// WriteLatestByFleet writes rows of one fleet and bucket as one mutation. It ignores the FleetID of the rows.
func (s *TelemetryStore) WriteLatestByFleet(ctx context.Context, fleetID string, bucket int32, rows []LatestRow) error {
	return insert(ctx, s.Session, TableLatestByFleet, insertLatestByFleet, 12, rows, func(a *arena, r *LatestRow) {
		a.add(&fleetID, &bucket, &r.DeviceID, &r.LastTsMs)
		a.latest(r)
	})
}

// DeleteLatestByFleet removes a device that moved from its old fleet's map. Cells with a later write timestamp stay.
func (s *TelemetryStore) DeleteLatestByFleet(ctx context.Context, fleetID, deviceID string, writeTimeUs int64) error {
	return s.exec(ctx, TableLatestByFleet, deleteLatestByFleet, writeTimeUs, fleetID, Bucket(deviceID), deviceID)
}

// ClearLatest removes the optional cells of a device's latest row that it sent for another fleet. Cells with a later write
// timestamp stay.
func (s *TelemetryStore) ClearLatest(ctx context.Context, deviceID string, writeTimeUs int64) error {
	return s.exec(ctx, TableLatest, clearLatest, writeTimeUs, deviceID)
}

// latest adds the values that both tables have.
func (a *arena) latest(r *LatestRow) {
	a.add(&r.Lat, &r.Lon, &r.SpeedKmh, &r.HeadingDeg, &r.BatteryPct, &r.TempC, (*optional)(&r.Zone), &r.WriteTimeUs)
}

// Latest returns the latest position of a device. The error wraps ErrNotFound if there is none.
func (s *TelemetryStore) Latest(ctx context.Context, deviceID string) (Telemetry, error) {
	rows, err := scan(s.Session, s.query(ctx, selectLatest, deviceID), telemetryScan(false))
	if err == nil && len(rows) == 0 {
		err = gocql.ErrNotFound
	}
	if err != nil {
		return Telemetry{}, opError("read latest position of device "+deviceID, err)
	}
	return rows[0], nil
}

// LatestOfFleet lists the latest position of each device of a fleet, sorted by device.
func (s *TelemetryStore) LatestOfFleet(ctx context.Context, fleetID string) ([]Telemetry, error) {
	parts, err := fanOut(ctx, s.config.Fanout, buckets(FleetBuckets), func(ctx context.Context, bucket int32) ([]Telemetry, error) {
		return scan(s.Session, s.query(ctx, selectLatestFleet, fleetID, bucket), telemetryScan(false))
	})
	if err != nil {
		return nil, opError("read latest positions of fleet "+fleetID, err)
	}
	return merged(parts), nil
}

// merged sorts rows of several buckets by device. It leaves out rows without a time: a late cell of a device that has moved to
// another fleet.
func merged(parts [][]Telemetry) []Telemetry {
	rows := slices.DeleteFunc(slices.Concat(parts...), func(t Telemetry) bool { return t.Ts.IsZero() })
	slices.SortFunc(rows, func(a, b Telemetry) int { return strings.Compare(a.DeviceID, b.DeviceID) })
	return rows
}

// LatestPage lists the latest positions of at most limit devices of a fleet, sorted by device, from the device after the given
// one on. Next is the last device, empty at the end. It reads little more than a share of the page from each bucket.
func (s *TelemetryStore) LatestPage(ctx context.Context, fleetID, after string, limit int) (page Page[Telemetry], err error) {
	for {
		missing := limit + 1 - len(page.Rows)
		size := min(missing, missing/FleetBuckets+32) // devices are spread evenly
		parts, err := fanOut(ctx, s.config.Fanout, buckets(FleetBuckets), func(ctx context.Context, bucket int32) ([]Telemetry, error) {
			return scan(s.Session, s.query(ctx, selectLatestPage, fleetID, bucket, after, size), telemetryScan(false))
		})
		if err != nil {
			return Page[Telemetry]{}, opError("read latest positions of fleet "+fleetID, err)
		}
		end := "" // up to this device, every bucket was read; empty: all of them
		for _, rows := range parts {
			if len(rows) == size && (end == "" || rows[size-1].DeviceID < end) {
				end = rows[size-1].DeviceID
			}
		}
		rows := merged(parts)
		if end != "" {
			rows = slices.DeleteFunc(rows, func(t Telemetry) bool { return t.DeviceID > end })
		}
		page.Rows = append(page.Rows, rows...)
		if len(page.Rows) > limit {
			page.Rows = page.Rows[:limit]
			page.Next = page.Rows[limit-1].DeviceID
			return page, nil
		}
		if end == "" {
			return page, nil
		}
		after = end
	}
}

// historyKept is the retention of the history: 30 days, and a margin for clocks.
const historyKept = 31 * 24 * time.Hour

// HistoryQuery selects the positions of a device between two instants, both included.
type HistoryQuery struct {
	DeviceID string
	FleetID  string // of the positions; empty: of every fleet
	From, To time.Time
	Limit    int // maximum number of rows, newest first; 0: all, without a FleetID
}

// History lists the positions of a device, newest first. It reads up to Config.Fanout days in parallel.
func (s *TelemetryStore) History(ctx context.Context, q HistoryQuery) ([]Telemetry, error) {
	// No row is older than the retention, or from the future.
	now := time.Now()
	from := max(q.From.UnixMilli(), now.Add(-historyKept).UnixMilli())
	to := min(q.To.UnixMilli(), now.Add(24*time.Hour).UnixMilli())
	// Days do not overlap, so that newest day first is newest row first.
	rows, err := newestFirst(ctx, s.config.Fanout, from, to, q.Limit, func(ctx context.Context, day Day) ([]Telemetry, error) {
		statement, args := selectHistory, []any{q.DeviceID, day, time.UnixMilli(from), time.UnixMilli(to)}
		switch {
		case q.FleetID != "":
			statement, args = selectHistoryFleet, append(args, q.FleetID, q.Limit)
		case q.Limit > 0:
			statement, args = selectHistoryLimit, append(args, q.Limit)
		}
		return scan(s.Session, s.query(ctx, statement, args...), telemetryScan(true))
	})
	if q.Limit > 0 && len(rows) > q.Limit {
		rows = rows[:q.Limit]
	}
	return rows, opError("read history of device "+q.DeviceID, err)
}

// Positions lists the positions of a device in a day, oldest first.
func (s *TelemetryStore) Positions(ctx context.Context, deviceID string, day Day) ([]Telemetry, error) {
	rows, err := scan(s.Session, s.query(ctx, selectPositions, deviceID, day).PageSize(trackPage), telemetryScan(true))
	return rows, opError(fmt.Sprintf("read day %s of device %s", day, deviceID), err)
}

// telemetryScan returns a scanner for the rows of one query. Only the history has the column of the accuracy. Rows share
// equal texts, and the optional values of a row have one allocation.
func telemetryScan(history bool) func(*gocql.Iter) (Telemetry, bool) {
	var device, fleet, zone nameCell
	var ts time.Time
	var lat, lon, battery numberCell
	var optional [4]numberCell
	row := []any{&device, &ts, &fleet, &lat, &lon, &optional[0], &optional[1], &battery, &optional[2], &zone}
	if history {
		row = append(row, &optional[3])
	}
	return func(iter *gocql.Iter) (Telemetry, bool) {
		optional[3] = numberCell(math.NaN())
		if !iter.Scan(row...) {
			return Telemetry{}, false
		}
		t := Telemetry{DeviceID: device.text, Ts: ts, FleetID: fleet.text, Zone: zone.text, Lat: lat.orZero(), Lon: lon.orZero()}
		values := new(struct {
			doubles [len(optional)]float64
			battery int32
		})
		for i, field := range [...]**float64{&t.SpeedKmh, &t.HeadingDeg, &t.TempC, &t.AccuracyM} {
			if values.doubles[i] = float64(optional[i]); !optional[i].absent() {
				*field = &values.doubles[i]
			}
		}
		if !battery.absent() {
			values.battery = int32(battery)
			t.BatteryPct = &values.battery
		}
		return t, true
	}
}

// LatestWriteTimes lists the write times of devices, in the order of the arguments. It reads at the level of Strong, and
// at that of Fallback if too few replicas are up.
func (s *TelemetryStore) LatestWriteTimes(ctx context.Context, deviceIDs []string) ([]WriteTimes, error) {
	stored, err := readOverlapping(s.Session, func(level gocql.Consistency) ([]WriteTimes, error) {
		return s.latestWriteTimes(ctx, deviceIDs, level)
	})
	return stored, opError("read "+TableLatest, err)
}

func (s *TelemetryStore) latestWriteTimes(ctx context.Context, deviceIDs []string, level gocql.Consistency) ([]WriteTimes, error) {
	return fanOut(ctx, writeTimesFanout, deviceIDs, func(ctx context.Context, deviceID string) (WriteTimes, error) {
		var d WriteTimes
		err := s.query(ctx, selectWriteTimes, deviceID).Consistency(level).
			Scan(&d.FleetID, &d.LastUs, &d.SpeedUs, &d.HeadingUs, &d.BatteryUs, &d.TempUs)
		if err != nil && !errors.Is(err, gocql.ErrNotFound) {
			return WriteTimes{}, err
		}
		d.Found = d.LastUs != 0
		return d, nil
	})
}

// writeTimesFanout is higher than Config.Fanout: each read is a single row, and the writer waits for all of them.
const writeTimesFanout = 64

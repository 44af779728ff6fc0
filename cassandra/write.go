package cassandra

import (
	"context"
	"hash/fnv"

	"github.com/gocql/gocql"
)

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

// DeviceRow is a row of devices_by_fleet as it is written, in two parts with a timestamp each: the status, of which
// the latest stays, and the activation, of which the earliest does.
type DeviceRow struct {
	DeviceID string
	Model    string // empty: left as it is
	Status   Status // empty: left as it is

	ActivatedAtMs     int64 // Unix milliseconds; 0: left as it is
	StatusWriteTimeUs int64
}

// Status says whether a device belongs to the fleet in whose list it stands.
type Status string

// The states.
const (
	StatusActive Status = "active"
	StatusMoved  Status = "moved" // its newest record names another fleet
)

// AlertRow is a row of alerts_by_fleet_day.
type AlertRow struct {
	FleetID   string
	Severity  string // HIGH, MEDIUM or LOW
	TsMs      int64  // when the alert was opened, event time, Unix milliseconds
	DeviceID  string
	AlertType string
	Message   string
	Resolved  bool

	WriteTimeUs int64
}

// AnalyticsRow is a row of fleet_analytics_by_day. A nil mean is that of no value at all.
type AnalyticsRow struct {
	FleetID            string
	Day                Day
	Hour               int32 // 0 to 23, UTC
	TotalDistanceKm    float64
	AvgSpeedKmh        *float64
	AlertsCount        int32
	ActiveDevicesCount int32
	RecordsCount       *int64   // nil: no cell
	MaxSpeedKmh        *float64 // nil when no record of the hour had a speed
	DrivingS           *int64   // seconds; nil: no cell

	WriteTimeUs int64
}

// FleetBuckets is the number of partitions over which the latest rows of a fleet are spread. It is part of what is
// stored: changing it needs the table written anew.
const FleetBuckets = 8

const fleetShards = 4

// Bucket is the partition of a device among its fleet's latest rows.
func Bucket(deviceID string) int32 { return bucketOf(deviceID, FleetBuckets) }

func bucketOf(name string, n uint32) int32 {
	h := fnv.New32a()
	_, _ = h.Write([]byte(name))
	return int32(h.Sum32() % n)
}

// The statements of writes. Each row carries its own write timestamp, so every one of them can be repeated and
// reordered freely.
const (
	insertHistory = "INSERT INTO telemetry_by_device_day (device_id, day, ts, fleet_id, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, accuracy_m, zone)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL ?"
	insertLatest = "INSERT INTO latest_telemetry_by_device (device_id, last_ts, fleet_id, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, zone)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	insertLatestByFleet = "INSERT INTO latest_telemetry_by_fleet (fleet_id, bucket, device_id, last_ts, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, zone)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteLatestByFleet = "DELETE FROM latest_telemetry_by_fleet USING TIMESTAMP ? WHERE fleet_id = ? AND bucket = ? AND device_id = ?"
	insertDeviceStatus  = "INSERT INTO devices_by_fleet (fleet_id, device_id, model, status) VALUES (?, ?, ?, ?) USING TIMESTAMP ?"
	insertDeviceSince   = "INSERT INTO devices_by_fleet (fleet_id, device_id, activated_at) VALUES (?, ?, ?) USING TIMESTAMP ?"
	insertFleet         = "INSERT INTO fleets (shard, fleet_id) VALUES (?, ?) USING TIMESTAMP 1" // the row says all there is, so it never differs
	insertAlert         = "INSERT INTO alerts_by_fleet_day (fleet_id, day, severity, ts, device_id, alert_type, message, resolved)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	insertGeofence = "INSERT INTO geofences_by_fleet (fleet_id, name, kind, geometry, radius_m, speed_limit_kmh, dwell_s)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteGeofence  = "DELETE FROM geofences_by_fleet USING TIMESTAMP ? WHERE fleet_id = ? AND name = ?"
	insertAnalytics = "INSERT INTO fleet_analytics_by_day (fleet_id, day, hour, total_distance_km, avg_speed_kmh, alerts_count, active_devices_count," +
		" records_count, max_speed_kmh, driving_s) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
)

// WriteHistory writes rows of one device and day as one mutation.
func (s *Store) WriteHistory(ctx context.Context, deviceID string, day Day, rows []TelemetryRow) error {
	const width = 14
	a := newArena(len(rows), width)
	b := s.batch(ctx, len(rows))
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
func (s *Store) WriteLatest(ctx context.Context, r *LatestRow) error {
	a := newArena(1, 11)
	b := s.batch(ctx, 1)
	a.text(r.DeviceID)
	a.optionalTimestamp(r.LastTsMs)
	a.optionalText(r.FleetID)
	a.latestCells(r)
	a.bigint(r.WriteTimeUs)
	b.add(insertLatest, a.row(0))
	return b.exec(TableLatest)
}

// WriteLatestByFleet writes rows of one fleet and bucket as one mutation. The rows' own FleetID is not looked at.
func (s *Store) WriteLatestByFleet(ctx context.Context, fleetID string, bucket int32, rows []LatestRow) error {
	a := newArena(len(rows), 12)
	b := s.batch(ctx, len(rows))
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
func (s *Store) DeleteLatestByFleet(ctx context.Context, fleetID, deviceID string, writeTimeUs int64) error {
	a := newArena(1, 4)
	b := s.batch(ctx, 1)
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

func (a *arena) optionalTimestamp(ms *int64) {
	if ms == nil {
		a.unset()
		return
	}
	a.timestamp(*ms)
}

// WriteDevices writes rows of one fleet's list of devices as one mutation.
func (s *Store) WriteDevices(ctx context.Context, fleetID string, rows []DeviceRow) error {
	a := newArena(2*len(rows), 5)
	b := s.batch(ctx, 2*len(rows))
	for i := range rows {
		r := &rows[i]
		if r.Status != "" {
			from := len(a.args)
			a.text(fleetID)
			a.text(r.DeviceID)
			a.optionalText(r.Model)
			a.text(string(r.Status))
			a.bigint(r.StatusWriteTimeUs)
			b.add(insertDeviceStatus, a.row(from))
		}
		if r.ActivatedAtMs != 0 {
			from := len(a.args)
			a.text(fleetID)
			a.text(r.DeviceID)
			a.timestamp(r.ActivatedAtMs)
			a.bigint(earliestWins(r.ActivatedAtMs))
			b.add(insertDeviceSince, a.row(from))
		}
	}
	return b.exec(TableDevices)
}

// earliestWins turns an event time into a write timestamp that is higher the earlier the event: of several writes the
// earliest stays, with nobody having to read first. The results lie before today, so that a deletion by hand, which
// carries the time of day, still takes the cell away.
func earliestWins(ms int64) int64 { return 3_000_000_000_000_000 - ms*1000 }

// WriteFleet puts a fleet on the list of fleets.
func (s *Store) WriteFleet(ctx context.Context, fleetID string) error {
	a := newArena(1, 2)
	b := s.batch(ctx, 1)
	a.int(bucketOf(fleetID, fleetShards))
	a.text(fleetID)
	b.add(insertFleet, a.row(0))
	return b.exec(TableFleets)
}

// WriteAlerts writes alerts of one fleet, day (that of TsMs, UTC) and severity as one mutation.
func (s *Store) WriteAlerts(ctx context.Context, rows []AlertRow) error {
	b := s.batch(ctx, len(rows))
	for i := range rows {
		r := &rows[i]
		a := newArena(1, 8)
		a.text(r.FleetID)
		a.date(DayOf(r.TsMs))
		a.text(r.Severity)
		a.timestamp(r.TsMs)
		a.text(r.DeviceID)
		a.text(r.AlertType)
		a.optionalText(r.Message)
		args := append(a.row(0), r.Resolved, r.WriteTimeUs)
		b.add(insertAlert, args)
	}
	return b.exec(TableAlerts)
}

// WriteAnalytics writes hours of one fleet and day as one mutation.
func (s *Store) WriteAnalytics(ctx context.Context, rows []AnalyticsRow) error {
	a := newArena(len(rows), 11)
	b := s.batch(ctx, len(rows))
	for i := range rows {
		r := &rows[i]
		from := len(a.args)
		a.text(r.FleetID)
		a.date(r.Day)
		a.int(r.Hour)
		a.double(r.TotalDistanceKm)
		a.nullableDouble(r.AvgSpeedKmh)
		a.int(r.AlertsCount)
		a.int(r.ActiveDevicesCount)
		a.optionalBigint(r.RecordsCount)
		a.nullableDouble(r.MaxSpeedKmh)
		a.optionalBigint(r.DrivingS)
		a.bigint(r.WriteTimeUs)
		b.add(insertAnalytics, a.row(from))
	}
	return b.exec(TableAnalytics)
}

// WriteGeofences writes zones of one fleet as one mutation.
func (s *Store) WriteGeofences(ctx context.Context, fleetID string, zones []Geofence, writeTimeUs int64) error {
	a := newArena(len(zones), 8)
	b := s.batch(ctx, len(zones))
	for i := range zones {
		z := &zones[i]
		from := len(a.args)
		a.text(fleetID)
		a.text(z.Name)
		a.optionalText(z.Kind)
		a.text(z.Geometry)
		a.optionalDouble(z.RadiusM)
		a.optionalDouble(z.SpeedLimitKmh)
		a.optionalInt(z.DwellS)
		a.bigint(writeTimeUs)
		b.add(insertGeofence, a.row(from))
	}
	return b.exec(TableGeofences)
}

// DeleteGeofence takes a zone away from a fleet.
func (s *Store) DeleteGeofence(ctx context.Context, fleetID, name string, writeTimeUs int64) error {
	return s.exec(ctx, TableGeofences, deleteGeofence, writeTimeUs, fleetID, name)
}

// request is one write: a single statement, or an unlogged batch of statements for one partition.
type request struct {
	store   *Store
	ctx     context.Context
	entries []gocql.BatchEntry
}

func (s *Store) batch(ctx context.Context, n int) *request {
	return &request{store: s, ctx: ctx, entries: make([]gocql.BatchEntry, 0, n)}
}

func (r *request) add(statement string, args []any) {
	r.entries = append(r.entries, gocql.BatchEntry{Stmt: statement, Args: args, Idempotent: true})
}

func (r *request) exec(table string) error {
	var err error
	switch len(r.entries) {
	case 0:
		return nil
	case 1: // cheaper for the node than a batch of one
		err = r.store.writing(r.ctx, r.entries[0].Stmt, r.entries[0].Args...).Exec()
	default:
		b := r.store.session.NewBatch(gocql.UnloggedBatch).WithContext(r.ctx).Trace(tracer(r.ctx, r.entries[0].Stmt))
		b.Cons = r.store.write
		b.Entries = r.entries
		err = r.store.session.ExecuteBatch(b)
	}
	return opError("write "+table, err)
}

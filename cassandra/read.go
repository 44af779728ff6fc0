package cassandra

import (
	"cmp"
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gocql/gocql"
	"golang.org/x/sync/errgroup"
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

// Device is a device of a fleet.
type Device struct {
	FleetID     string
	DeviceID    string
	Model       string    // empty when not known
	ActivatedAt time.Time // event time of its first record for the fleet
	Status      Status
}

// Alert is one stored alert.
type Alert struct {
	FleetID   string
	Severity  string
	Ts        time.Time
	DeviceID  string
	AlertType string
	Message   string
	Resolved  bool
}

// Hour is the figures of a fleet in one hour.
type Hour struct {
	FleetID            string
	Start              time.Time // first instant of the hour, UTC
	TotalDistanceKm    float64
	AvgSpeedKmh        *float64 // nil when no record of the hour had a speed
	AlertsCount        int
	ActiveDevicesCount int
}

// Geofence is a zone of a fleet.
type Geofence struct {
	FleetID       string
	Name          string
	Kind          string   // what the zone is to the fleet, for example depot; may be empty
	Geometry      string   // a GeoJSON geometry: a Polygon, or a Point with RadiusM for a circle
	RadiusM       *float64 // metres; nil for a polygon
	SpeedLimitKmh *float64 // km/h; nil for none
	DwellS        *int32   // seconds that a vehicle may stay; nil for any
}

// Stored is what the writer must know of a device that it meets for the first time: its fleet, and the write timestamps
// of its newest fix and of each optional cell, in µs; 0 for a cell that is absent.
type Stored struct {
	Found   bool
	FleetID string

	LastUs, SpeedUs, HeadingUs, BatteryUs, TempUs int64
}

// Page is a part of a list, and where the next part starts.
type Page[T any] struct {
	Rows []T
	Next string // to be handed back for the next page; empty at the end
}

// The statements of reads.
const (
	selectReady        = "SELECT fleet_id FROM fleets WHERE shard = 0 LIMIT 1"
	telemetryColumns   = "fleet_id, lat, lon, speed_kmh, heading_deg, battery_pct, temp_c, zone"
	selectLatest       = "SELECT device_id, last_ts, " + telemetryColumns + " FROM latest_telemetry_by_device WHERE device_id = ?"
	selectLatestFleet  = "SELECT device_id, last_ts, " + telemetryColumns + " FROM latest_telemetry_by_fleet WHERE fleet_id = ? AND bucket = ?"
	historyOfDay       = "device_id, ts, " + telemetryColumns + ", accuracy_m FROM telemetry_by_device_day WHERE device_id = ? AND day = ?"
	selectHistory      = "SELECT " + historyOfDay + " AND ts >= ? AND ts <= ?"
	selectHistoryLimit = selectHistory + " LIMIT ?"
	selectStored       = "SELECT fleet_id, WRITETIME(last_ts), WRITETIME(speed_kmh), WRITETIME(heading_deg), WRITETIME(battery_pct), WRITETIME(temp_c)" +
		" FROM latest_telemetry_by_device WHERE device_id = ?"
	selectDevices     = "SELECT device_id, model, activated_at, status FROM devices_by_fleet WHERE fleet_id = ?"
	selectDeviceIDs   = "SELECT device_id FROM devices_by_fleet WHERE fleet_id = ?"
	selectFleets      = "SELECT fleet_id FROM fleets WHERE shard = ?"
	selectAlertsLimit = selectAlerts + " LIMIT ?"
	selectAlerts      = "SELECT ts, device_id, alert_type, message, resolved FROM alerts_by_fleet_day WHERE fleet_id = ? AND day = ? AND severity = ? AND ts >= ? AND ts <= ?"
	selectGeofences   = "SELECT name, kind, geometry, radius_m, speed_limit_kmh, dwell_s FROM geofences_by_fleet WHERE fleet_id = ?"
	selectAnalytics   = "SELECT hour, total_distance_km, avg_speed_kmh, alerts_count, active_devices_count FROM fleet_analytics_by_day WHERE fleet_id = ? AND day = ?"
)

// Severities of alerts, the gravest first.
var Severities = []string{"HIGH", "MEDIUM", "LOW"}

// Latest is the newest fix of a device; an error that wraps ErrNotFound when it never sent one.
func (s *Store) Latest(ctx context.Context, deviceID string) (Telemetry, error) {
	rows, err := collect(s, s.query(ctx, selectLatest, deviceID), telemetryScan(false))
	if err == nil && len(rows) == 0 {
		err = gocql.ErrNotFound
	}
	if err != nil {
		return Telemetry{}, opError("read latest fix of device "+deviceID, err)
	}
	return rows[0], nil
}

// LatestOfFleet is the newest fix of each device of a fleet, sorted by device: a few partitions, however many devices.
func (s *Store) LatestOfFleet(ctx context.Context, fleetID string) ([]Telemetry, error) {
	buckets := make([]int32, FleetBuckets)
	for i := range buckets {
		buckets[i] = int32(i)
	}
	parts, err := fanOut(ctx, s.config.Fanout, buckets, func(ctx context.Context, bucket int32) ([]Telemetry, error) {
		return collect(s, s.query(ctx, selectLatestFleet, fleetID, bucket), telemetryScan(false))
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

// MaxDays is the longest range in days of alerts and analytics, which are kept for good.
const MaxDays = 400

// HistoryQuery asks for the fixes of a device between two instants, both included.
type HistoryQuery struct {
	DeviceID string
	From, To time.Time
	Limit    int    // at most so many rows, the newest; 0: all
	Page     string // Next of the page before; empty: the first
}

// History is the fixes of a device, newest first. The days of the range are read side by side, no more of them at once
// than Config.Fanout, and with a limit no more than it likely asks for.
func (s *Store) History(ctx context.Context, q HistoryQuery) (Page[Telemetry], error) {
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
		wave := days[:min(len(days), s.wave(q.Limit, len(page.Rows), all-len(days)))]
		days = days[len(wave):]
		parts, err := fanOut(ctx, s.config.Fanout, wave, func(ctx context.Context, day Day) ([]Telemetry, error) {
			args := []any{q.DeviceID, day.Time(), time.UnixMilli(from), time.UnixMilli(to)}
			if q.Limit > 0 {
				return collect(s, s.query(ctx, selectHistoryLimit, append(args, q.Limit)...), telemetryScan(true))
			}
			return collect(s, s.query(ctx, selectHistory, args...), telemetryScan(true))
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

// wave is how many days to read at once of a list that begins with the newest: the first day alone, then as many as are
// likely to fill the limit, going by those that were read. Each is read up to the limit, so to read them all at once
// would be to read the limit as often as there are days.
func (s *Store) wave(limit, rows, days int) int {
	switch {
	case limit <= 0:
		return s.config.Fanout
	case days == 0:
		return 1
	case rows == 0:
		return min(2*days, s.config.Fanout)
	}
	return min(max((limit-rows)*days/rows, 1), s.config.Fanout)
}

// AlertQuery asks for the alerts of a fleet between two instants, both included.
type AlertQuery struct {
	FleetID    string
	From, To   time.Time
	Severities []string // none: all
	Limit      int      // at most so many, the newest; 0: all
}

// Alerts is the alerts of a fleet, newest first.
func (s *Store) Alerts(ctx context.Context, q AlertQuery) ([]Alert, error) {
	severities := q.Severities
	if len(severities) == 0 {
		severities = Severities
	}
	if err := checkRange(DayOf(q.From.UnixMilli()), DayOf(q.To.UnixMilli())); err != nil {
		return nil, fmt.Errorf("read alerts of fleet %s: %w", q.FleetID, err)
	}
	type partition struct {
		day      Day
		severity string
	}
	var alerts []Alert
	days := daysBack(q.From.UnixMilli(), q.To.UnixMilli())
	all := len(days)
	for len(days) > 0 && (q.Limit <= 0 || len(alerts) < q.Limit) {
		n := len(days) // without a limit they are all read in one go
		if q.Limit > 0 {
			n = min(n, s.wave(q.Limit, len(alerts), all-len(days)))
		}
		var partitions []partition
		for _, day := range days[:n] {
			for _, severity := range severities {
				partitions = append(partitions, partition{day, severity})
			}
		}
		days = days[n:]
		parts, err := fanOut(ctx, s.config.Fanout, partitions, func(ctx context.Context, p partition) ([]Alert, error) {
			statement, args := selectAlerts, []any{q.FleetID, p.day.Time(), p.severity, q.From, q.To}
			if q.Limit > 0 {
				statement, args = selectAlertsLimit, append(args, q.Limit)
			}
			return collect(s, s.query(ctx, statement, args...), func(iter *gocql.Iter) (Alert, bool) {
				a := Alert{FleetID: q.FleetID, Severity: p.severity}
				ok := iter.Scan(&a.Ts, &a.DeviceID, &a.AlertType, &a.Message, &a.Resolved)
				return a, ok
			})
		})
		if err != nil {
			return nil, opError("read alerts of fleet "+q.FleetID, err)
		}
		alerts = append(alerts, slices.Concat(parts...)...)
	}
	slices.SortFunc(alerts, func(a, b Alert) int {
		return cmp.Or(b.Ts.Compare(a.Ts), strings.Compare(a.DeviceID, b.DeviceID), strings.Compare(a.AlertType, b.AlertType))
	})
	if q.Limit > 0 && len(alerts) > q.Limit {
		alerts = alerts[:q.Limit]
	}
	return alerts, nil
}

// Analytics is the hourly figures of a fleet for the days from first to last, oldest first.
func (s *Store) Analytics(ctx context.Context, fleetID string, first, last Day) ([]Hour, error) {
	if err := checkRange(first, last); err != nil {
		return nil, fmt.Errorf("read analytics of fleet %s: %w", fleetID, err)
	}
	var days []Day
	for day := first; day <= last; day++ {
		days = append(days, day)
	}
	parts, err := fanOut(ctx, s.config.Fanout, days, func(ctx context.Context, day Day) ([]Hour, error) {
		return collect(s, s.query(ctx, selectAnalytics, fleetID, day.Time()), func(iter *gocql.Iter) (Hour, bool) {
			h := Hour{FleetID: fleetID}
			var hour int
			ok := iter.Scan(&hour, &h.TotalDistanceKm, &h.AvgSpeedKmh, &h.AlertsCount, &h.ActiveDevicesCount)
			h.Start = day.Time().Add(time.Duration(hour) * time.Hour)
			return h, ok
		})
	})
	if err != nil {
		return nil, opError("read analytics of fleet "+fleetID, err)
	}
	return slices.Concat(parts...), nil
}

// Devices is a page of the devices of a fleet, sorted by device, without those that moved to another. size is about
// the number of rows of a page, which may have fewer and yet not be the last.
func (s *Store) Devices(ctx context.Context, fleetID string, size int, page string) (Page[Device], error) {
	op := "read devices of fleet " + fleetID
	state, err := base64.RawURLEncoding.DecodeString(page)
	if err != nil {
		return Page[Device]{}, fmt.Errorf("%s: page %q: not one that was given: %w", op, page, err)
	}
	iter := s.query(ctx, selectDevices, fleetID).PageSize(size).PageState(state).Iter()
	result := Page[Device]{Next: base64.RawURLEncoding.EncodeToString(iter.PageState())}
	for range iter.NumRows() { // of this page alone: Scan would go on to the next
		d := Device{FleetID: fleetID}
		if !iter.Scan(&d.DeviceID, &d.Model, &d.ActivatedAt, &d.Status) {
			break
		}
		if d.Status != StatusMoved {
			result.Rows = append(result.Rows, d)
		}
	}
	if err := iter.Close(); err != nil {
		return Page[Device]{}, opError(op, err)
	}
	return result, nil
}

// DeviceIDs is every device that was ever in a fleet, those that moved to another among them, sorted.
func (s *Store) DeviceIDs(ctx context.Context, fleetID string) ([]string, error) {
	ids, err := collect(s, s.query(ctx, selectDeviceIDs, fleetID), func(iter *gocql.Iter) (string, bool) {
		var id string
		ok := iter.Scan(&id)
		return id, ok
	})
	return ids, opError("read devices of fleet "+fleetID, err)
}

// Geofences is the zones of a fleet, sorted by name.
func (s *Store) Geofences(ctx context.Context, fleetID string) ([]Geofence, error) {
	zones, err := collect(s, s.query(ctx, selectGeofences, fleetID), func(iter *gocql.Iter) (Geofence, bool) {
		g := Geofence{FleetID: fleetID}
		ok := iter.Scan(&g.Name, &g.Kind, &g.Geometry, &g.RadiusM, &g.SpeedLimitKmh, &g.DwellS)
		return g, ok
	})
	return zones, opError("read geofences of fleet "+fleetID, err)
}

// Fleets is every fleet that ever sent, sorted.
func (s *Store) Fleets(ctx context.Context) ([]string, error) {
	shards := make([]int32, fleetShards)
	for i := range shards {
		shards[i] = int32(i)
	}
	parts, err := fanOut(ctx, s.config.Fanout, shards, func(ctx context.Context, shard int32) ([]string, error) {
		return collect(s, s.query(ctx, selectFleets, shard), func(iter *gocql.Iter) (string, bool) {
			var fleetID string
			ok := iter.Scan(&fleetID)
			return fleetID, ok
		})
	})
	if err != nil {
		return nil, opError("read fleets", err)
	}
	fleets := slices.Concat(parts...)
	slices.Sort(fleets)
	return fleets, nil
}

// StoredDevices tells, for each device in the same order, what is stored of it. It reads at a level that meets every
// acknowledged write; where too few replicas live for that, at the level of writes.
func (s *Store) StoredDevices(ctx context.Context, deviceIDs []string) ([]Stored, error) {
	stored, err := s.storedDevices(ctx, deviceIDs, overlapping(s.write, s.replication))
	if classify(err).TooFewReplicas() {
		stored, err = s.storedDevices(ctx, deviceIDs, s.write)
	}
	return stored, opError("read "+TableLatest, err)
}

func (s *Store) storedDevices(ctx context.Context, deviceIDs []string, level gocql.Consistency) ([]Stored, error) {
	return fanOut(ctx, storedFanout, deviceIDs, func(ctx context.Context, deviceID string) (Stored, error) {
		var d Stored
		err := s.query(ctx, selectStored, deviceID).Consistency(level).
			Scan(&d.FleetID, &d.LastUs, &d.SpeedUs, &d.HeadingUs, &d.BatteryUs, &d.TempUs)
		if err != nil && !errors.Is(err, gocql.ErrNotFound) {
			return Stored{}, err
		}
		d.Found = d.LastUs != 0
		return d, nil
	})
}

// storedFanout is higher than that of the screens' reads: these are single rows, and a load waits for them.
const storedFanout = 64

// query prepares a read of one partition.
func (s *Store) query(ctx context.Context, statement string, args ...any) *gocql.Query {
	statsOf(ctx).addStatement(statement, args)
	q := s.session.Query(statement, args...).WithContext(ctx).Consistency(s.read).Idempotent(true).Trace(tracer(ctx, statement))
	if s.config.ReadRetries > 0 {
		q.RetryPolicy(readRetries(s.config.ReadRetries))
	}
	return q
}

// readRetries sends a read that failed to another node, so many times, where that may help.
type readRetries int

// Attempt implements gocql.RetryPolicy.
func (n readRetries) Attempt(q gocql.RetryableQuery) bool {
	return q.Attempts() <= int(n) && q.Context().Err() == nil
}

// GetRetryType implements gocql.RetryPolicy. Unavailable is one coordinator's view; another may see more replicas.
func (n readRetries) GetRetryType(err error) gocql.RetryType {
	if classify(err).Advice() == GiveUp {
		return gocql.Rethrow
	}
	return gocql.RetryNextHost
}

// enter waits for a place among the partitions that may be read at once, and gives the function that leaves it.
func (s *Store) enter(ctx context.Context) (func(), error) {
	if s.reads == nil {
		return func() {}, nil
	}
	select {
	case s.reads <- struct{}{}:
		return func() { <-s.reads }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// daysBack lists the UTC days of a range in Unix milliseconds, newest first.
func daysBack(fromMs, toMs int64) []Day {
	var days []Day
	if fromMs > toMs {
		return nil
	}
	for day := DayOf(toMs); day >= DayOf(fromMs); day-- {
		days = append(days, day)
	}
	return days
}

func checkRange(first, last Day) error {
	if last-first >= MaxDays {
		return fmt.Errorf("range %s to %s: %d days, at most %d can be read at once; take a shorter one", first, last, last-first+1, MaxDays)
	}
	return nil
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

// collect reads all rows of a query, page by page.
func collect[T any](s *Store, q *gocql.Query, scan func(*gocql.Iter) (T, bool)) ([]T, error) {
	leave, err := s.enter(q.Context())
	if err != nil {
		return nil, err
	}
	defer leave()
	iter := q.Iter()
	rows := make([]T, 0, iter.NumRows())
	for {
		row, ok := scan(iter)
		if !ok {
			return rows, iter.Close()
		}
		rows = append(rows, row)
	}
}

// fanOut reads every part, at most n at once, and gives the results in the order of the parts. The first error ends
// the rest.
func fanOut[P, T any](ctx context.Context, n int, parts []P, read func(context.Context, P) (T, error)) ([]T, error) {
	results := make([]T, len(parts))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(n)
	for i, part := range parts {
		g.Go(func() (err error) {
			results[i], err = read(ctx, part)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, err
	}
	return results, nil
}

func encodePage(ms int64) string { return fmt.Sprintf("t%d", ms) }

func decodePage(page string) (ms int64, err error) {
	if _, err := fmt.Sscanf(page, "t%d", &ms); err != nil {
		return 0, fmt.Errorf("page %q: not one that was given", page)
	}
	return ms, nil
}

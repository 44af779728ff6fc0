package cassandra

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/gocql/gocql"
)

// Rows of what is derived are written with the time, in µs, at which what they follow from was looked at. Of two
// writers the one who looked last wins, deletions included.

// DeviceDay is the state of a device's derivation at the end of a day with fixes.
type DeviceDay struct {
	Day    Day
	State  []byte
	Fleets []string // those the device was in on that day; only ever added to
	Rules  string   // what it was derived by

	WriteTimeUs int64 // of State as it was read
}

// HourRow is what one device adds to one hour of one fleet.
type HourRow struct {
	FleetID     string
	HourMs      int64 // first instant of the hour, Unix milliseconds
	DeviceID    string
	DistanceKm  float64
	SpeedSumKmh float64
	SpeedCount  int64
	Records     int64
	MaxSpeedKmh float64 // 0 when no record had a speed
	DrivingS    float64
	Alerts      int32
}

// TripRow is a trip or a stop of a device.
type TripRow struct {
	StartMs, EndMs     int64 // Unix milliseconds
	Kind               string
	FleetID            string
	Open               bool
	DistanceKm         float64
	MaxSpeedKmh        *float64
	IdleS              float64
	StartLat, StartLon float64
	EndLat, EndLon     float64
	StartZone, EndZone string
}

// AlertState is an alert with its whole life.
type AlertState struct {
	FleetID, DeviceID, Type, Severity string

	OpenedMs, StartedMs int64 // Unix milliseconds
	EndedMs             int64 // 0 while it is open
	Message             string
	Peak, Threshold     float64
	Zone                string
	Lat, Lon            float64

	Notify   bool // of open alerts: people are to be told
	Resolved bool // of stored ones: by its end, or by hand
}

// The statements of derived rows. Each is of one partition.
const (
	selectDayBefore = "SELECT day, state, fleets, rules, WRITETIME(state) FROM device_days WHERE device_id = ? AND day <= ? LIMIT 1"
	selectDaysFrom  = "SELECT day, state, fleets, rules, WRITETIME(state) FROM device_days WHERE device_id = ? AND day >= ?"
	updateDay       = "UPDATE device_days USING TIMESTAMP ? SET state = ?, rules = ?, fleets = fleets + ? WHERE device_id = ? AND day = ?"

	selectFixes = "SELECT " + historyOfDay + " ORDER BY ts ASC"

	insertHour = "INSERT INTO hours_by_fleet (fleet_id, hour, device_id, distance_km, speed_sum_kmh, speed_count, records_count, max_speed_kmh, driving_s, alerts_count)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteHour  = "DELETE FROM hours_by_fleet USING TIMESTAMP ? WHERE fleet_id = ? AND hour = ? AND device_id = ?"
	selectHours = "SELECT device_id, distance_km, speed_sum_kmh, speed_count, records_count, max_speed_kmh, driving_s, alerts_count" +
		" FROM hours_by_fleet WHERE fleet_id = ? AND hour = ?"

	insertTrip = "INSERT INTO trips_by_device_month (device_id, month, start_ts, kind, fleet_id, end_ts, open, distance_km, max_speed_kmh, idle_s," +
		" start_lat, start_lon, end_lat, end_lon, start_zone, end_zone) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteTrip  = "DELETE FROM trips_by_device_month USING TIMESTAMP ? WHERE device_id = ? AND month = ? AND start_ts = ? AND kind = ?"
	selectTrips = "SELECT start_ts, kind, fleet_id, end_ts, open, distance_km, max_speed_kmh, idle_s, start_lat, start_lon, end_lat, end_lon, start_zone, end_zone" +
		" FROM trips_by_device_month WHERE device_id = ? AND month = ? AND start_ts >= ? AND start_ts <= ?"

	alertCells = "message, started_at, peak, threshold, zone, lat, lon" // of an alert, wherever it stands

	insertDeviceAlert = "INSERT INTO alerts_by_device_month (device_id, month, ts, alert_type, fleet_id, severity, resolved, resolved_at, " + alertCells + ")" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteDeviceAlert  = "DELETE FROM alerts_by_device_month USING TIMESTAMP ? WHERE device_id = ? AND month = ? AND ts = ? AND alert_type = ?"
	selectDeviceAlerts = "SELECT ts, alert_type, " + alertCells + ", fleet_id, severity, resolved_at" +
		" FROM alerts_by_device_month WHERE device_id = ? AND month = ? AND ts >= ? AND ts <= ?"

	insertAlertLife = "INSERT INTO alerts_by_fleet_day (fleet_id, day, severity, ts, device_id, alert_type, " + alertCells + ")" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	insertAlertEnd = "INSERT INTO alerts_by_fleet_day (fleet_id, day, severity, ts, device_id, alert_type, resolved, resolved_at)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteAlert      = "DELETE FROM alerts_by_fleet_day USING TIMESTAMP ? WHERE fleet_id = ? AND day = ? AND severity = ? AND ts = ? AND device_id = ? AND alert_type = ?"
	selectAlertLives = "SELECT ts, alert_type, " + alertCells + ", device_id, resolved, resolved_at" +
		" FROM alerts_by_fleet_day WHERE fleet_id = ? AND day = ? AND severity = ? AND ts >= ? AND ts <= ?"

	insertOpenAlert = "INSERT INTO open_alerts_by_fleet (fleet_id, device_id, alert_type, ts, severity, notify, " + alertCells + ")" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteOpenAlert  = "DELETE FROM open_alerts_by_fleet USING TIMESTAMP ? WHERE fleet_id = ? AND device_id = ? AND alert_type = ?"
	selectOpenAlerts = "SELECT ts, alert_type, " + alertCells + ", device_id, severity, notify" +
		" FROM open_alerts_by_fleet WHERE fleet_id = ?"
	selectOpenAlertsOf = selectOpenAlerts + " AND device_id = ?"

	deleteAnalytics = "DELETE FROM fleet_analytics_by_day USING TIMESTAMP ? WHERE fleet_id = ? AND day = ? AND hour = ?"
	selectHourRows  = "SELECT hour, total_distance_km, avg_speed_kmh, alerts_count, active_devices_count, records_count, max_speed_kmh, driving_s" +
		" FROM fleet_analytics_by_day WHERE fleet_id = ? AND day = ?"
)

// DayBefore is the latest state of a device at the end of a day up to the given one; found is false when there is none.
func (s *Store) DayBefore(ctx context.Context, deviceID string, day Day) (d DeviceDay, found bool, err error) {
	days, err := collect(s, s.query(ctx, selectDayBefore, deviceID, day.Time()), scanDeviceDay)
	if err != nil || len(days) == 0 {
		return DeviceDay{}, false, opError("read "+TableDeviceDays, err)
	}
	return days[0], true, nil
}

// DaysFrom is the states of a device at the end of its days from the given one on, oldest first.
func (s *Store) DaysFrom(ctx context.Context, deviceID string, day Day) ([]DeviceDay, error) {
	days, err := collect(s, s.query(ctx, selectDaysFrom, deviceID, day.Time()), scanDeviceDay)
	slices.Reverse(days)
	return days, opError("read "+TableDeviceDays, err)
}

func scanDeviceDay(iter *gocql.Iter) (DeviceDay, bool) {
	var d DeviceDay
	var day time.Time
	ok := iter.Scan(&day, &d.State, &d.Fleets, &d.Rules, &d.WriteTimeUs)
	d.Day = DayOf(day.UnixMilli())
	return d, ok
}

// WriteDeviceDay writes the state of a device at the end of a day.
func (s *Store) WriteDeviceDay(ctx context.Context, deviceID string, d DeviceDay, writeTimeUs int64) error {
	return s.exec(ctx, TableDeviceDays, updateDay, writeTimeUs, d.State, d.Rules, d.Fleets, deviceID, d.Day.Time())
}

// exec does one write whose values the driver encodes: for rows of which there are few.
func (s *Store) exec(ctx context.Context, table, statement string, args ...any) error {
	return opError("write "+table, s.writing(ctx, statement, args...).Exec())
}

// writing prepares a write.
func (s *Store) writing(ctx context.Context, statement string, args ...any) *gocql.Query {
	return s.session.Query(statement, args...).WithContext(ctx).Consistency(s.write).Idempotent(true).Trace(tracer(ctx, statement))
}

// Fixes is the fixes of a device in a day, oldest first.
func (s *Store) Fixes(ctx context.Context, deviceID string, day Day) ([]Telemetry, error) {
	q := s.query(ctx, selectFixes, deviceID, day.Time()).PageSize(trackPage)
	rows, err := collect(s, q, telemetryScan(true))
	return rows, opError(fmt.Sprintf("read day %s of device %s", day, deviceID), err)
}

// WriteHours writes what devices add to one hour of one fleet, that of the first row, as one mutation.
func (s *Store) WriteHours(ctx context.Context, rows []HourRow, writeTimeUs int64) error {
	a := newArena(len(rows), 11)
	b := s.batch(ctx, len(rows))
	for i := range rows {
		r := &rows[i]
		from := len(a.args)
		a.text(r.FleetID)
		a.timestamp(r.HourMs)
		a.text(r.DeviceID)
		a.double(r.DistanceKm)
		a.double(r.SpeedSumKmh)
		a.bigint(r.SpeedCount)
		a.bigint(r.Records)
		a.double(r.MaxSpeedKmh)
		a.double(r.DrivingS)
		a.int(r.Alerts)
		a.bigint(writeTimeUs)
		b.add(insertHour, a.row(from))
	}
	return b.exec(TableHours)
}

// DeleteHour takes back what a device added to an hour of a fleet.
func (s *Store) DeleteHour(ctx context.Context, fleetID string, hourMs int64, deviceID string, writeTimeUs int64) error {
	return s.exec(ctx, TableHours, deleteHour, writeTimeUs, fleetID, time.UnixMilli(hourMs), deviceID)
}

// Hours is what each device added to an hour of a fleet, sorted by device.
func (s *Store) Hours(ctx context.Context, fleetID string, hourMs int64) ([]HourRow, error) {
	rows, err := collect(s, s.query(ctx, selectHours, fleetID, time.UnixMilli(hourMs)), func(iter *gocql.Iter) (HourRow, bool) {
		r := HourRow{FleetID: fleetID, HourMs: hourMs}
		ok := iter.Scan(&r.DeviceID, &r.DistanceKm, &r.SpeedSumKmh, &r.SpeedCount, &r.Records, &r.MaxSpeedKmh, &r.DrivingS, &r.Alerts)
		return r, ok
	})
	return rows, opError("read "+TableHours, err)
}

// AnalyticsRows is the figures of a fleet's hours of a day.
func (s *Store) AnalyticsRows(ctx context.Context, fleetID string, day Day) ([]AnalyticsRow, error) {
	rows, err := collect(s, s.query(ctx, selectHourRows, fleetID, day.Time()), func(iter *gocql.Iter) (AnalyticsRow, bool) {
		r := AnalyticsRow{FleetID: fleetID, Day: day}
		ok := iter.Scan(&r.Hour, &r.TotalDistanceKm, &r.AvgSpeedKmh, &r.AlertsCount, &r.ActiveDevicesCount, &r.RecordsCount, &r.MaxSpeedKmh, &r.DrivingS)
		return r, ok
	})
	return rows, opError("read "+TableAnalytics, err)
}

// DeleteAnalytics takes back an hour of a fleet to which nobody adds anything any more.
func (s *Store) DeleteAnalytics(ctx context.Context, fleetID string, hourMs, writeTimeUs int64) error {
	return s.exec(ctx, TableAnalytics, deleteAnalytics, writeTimeUs, fleetID, DayOf(hourMs).Time(), int32(hourMs%msPerDay/(60*60*1000)))
}

// WriteTrips writes trips and stops of a device, as one mutation a month.
func (s *Store) WriteTrips(ctx context.Context, deviceID string, rows []TripRow, writeTimeUs int64) error {
	for len(rows) > 0 {
		month := DayOf(rows[0].StartMs).Month()
		n := 1
		for n < len(rows) && DayOf(rows[n].StartMs).Month() == month {
			n++
		}
		a := newArena(n, 17)
		b := s.batch(ctx, n)
		for i := range rows[:n] {
			r := &rows[i]
			from := len(a.args)
			a.text(deviceID)
			a.date(month)
			a.timestamp(r.StartMs)
			a.text(r.Kind)
			a.text(r.FleetID)
			a.timestamp(r.EndMs)
			a.bool(r.Open)
			a.double(r.DistanceKm)
			a.nullableDouble(r.MaxSpeedKmh)
			a.double(r.IdleS)
			a.double(r.StartLat)
			a.double(r.StartLon)
			a.double(r.EndLat)
			a.double(r.EndLon)
			a.optionalText(r.StartZone)
			a.optionalText(r.EndZone)
			a.bigint(writeTimeUs)
			b.add(insertTrip, a.row(from))
		}
		if err := b.exec(TableTrips); err != nil {
			return err
		}
		rows = rows[n:]
	}
	return nil
}

// DeleteTrip takes back a trip or stop.
func (s *Store) DeleteTrip(ctx context.Context, deviceID string, startMs int64, kind string, writeTimeUs int64) error {
	return s.exec(ctx, TableTrips, deleteTrip, writeTimeUs, deviceID, DayOf(startMs).Month().Time(), time.UnixMilli(startMs), kind)
}

// Trips is the trips and stops of a device that began between two instants in Unix milliseconds, both included,
// oldest first.
func (s *Store) Trips(ctx context.Context, deviceID string, fromMs, toMs int64) ([]TripRow, error) {
	rows, err := byMonth(ctx, s, fromMs, toMs, func(ctx context.Context, month Day) ([]TripRow, error) {
		q := s.query(ctx, selectTrips, deviceID, month.Time(), time.UnixMilli(fromMs), time.UnixMilli(toMs))
		return collect(s, q, func(iter *gocql.Iter) (TripRow, bool) {
			var r TripRow
			var start, end time.Time
			ok := iter.Scan(&start, &r.Kind, &r.FleetID, &end, &r.Open, &r.DistanceKm, &r.MaxSpeedKmh, &r.IdleS,
				&r.StartLat, &r.StartLon, &r.EndLat, &r.EndLon, &r.StartZone, &r.EndZone)
			r.StartMs, r.EndMs = start.UnixMilli(), end.UnixMilli()
			return r, ok
		})
	})
	return rows, opError("read "+TableTrips, err)
}

// byMonth reads the months of a range, newest first within each, and gives all rows oldest first.
func byMonth[T any](ctx context.Context, s *Store, fromMs, toMs int64, read func(context.Context, Day) ([]T, error)) ([]T, error) {
	var months []Day
	for m := DayOf(fromMs).Month(); m <= DayOf(toMs); m = m.NextMonth() {
		months = append(months, m)
	}
	slices.Reverse(months)
	parts, err := fanOut(ctx, s.config.Fanout, months, read)
	rows := slices.Concat(parts...)
	slices.Reverse(rows)
	return rows, err
}

// alert is the values of alertCells.
func (a *arena) alert(r *AlertState) {
	a.text(r.Message)
	a.timestamp(r.StartedMs)
	a.double(r.Peak)
	a.double(r.Threshold)
	a.text(r.Zone)
	a.double(r.Lat)
	a.double(r.Lon)
}

// scanAlert reads ts, alert_type and alertCells, and then what else stands in a row.
func scanAlert(iter *gocql.Iter, r *AlertState, more ...any) bool {
	var opened, started time.Time
	row := []any{&opened, &r.Type, &r.Message, &started, &r.Peak, &r.Threshold, &r.Zone, &r.Lat, &r.Lon}
	ok := iter.Scan(append(row, more...)...)
	r.OpenedMs, r.StartedMs = opened.UnixMilli(), started.UnixMilli()
	return ok
}

// WriteDeviceAlert writes an alert among its device's.
func (s *Store) WriteDeviceAlert(ctx context.Context, r *AlertState, writeTimeUs int64) error {
	a := newArena(1, 16)
	b := s.batch(ctx, 1)
	a.text(r.DeviceID)
	a.date(DayOf(r.OpenedMs).Month())
	a.timestamp(r.OpenedMs)
	a.text(r.Type)
	a.text(r.FleetID)
	a.text(r.Severity)
	a.bool(r.EndedMs != 0)
	if r.EndedMs != 0 {
		a.timestamp(r.EndedMs)
	} else {
		a.null() // it may have had an end that a late record took away
	}
	a.alert(r)
	a.bigint(writeTimeUs)
	b.add(insertDeviceAlert, a.row(0))
	return b.exec(TableDeviceAlerts)
}

// DeleteDeviceAlert takes back an alert from among its device's.
func (s *Store) DeleteDeviceAlert(ctx context.Context, deviceID string, openedMs int64, alertType string, writeTimeUs int64) error {
	return s.exec(ctx, TableDeviceAlerts, deleteDeviceAlert, writeTimeUs, deviceID, DayOf(openedMs).Month().Time(), time.UnixMilli(openedMs), alertType)
}

// DeviceAlerts is the alerts of a device that were raised between two instants in Unix milliseconds, both included,
// oldest first.
func (s *Store) DeviceAlerts(ctx context.Context, deviceID string, fromMs, toMs int64) ([]AlertState, error) {
	rows, err := byMonth(ctx, s, fromMs, toMs, func(ctx context.Context, month Day) ([]AlertState, error) {
		q := s.query(ctx, selectDeviceAlerts, deviceID, month.Time(), time.UnixMilli(fromMs), time.UnixMilli(toMs))
		return collect(s, q, func(iter *gocql.Iter) (AlertState, bool) {
			r := AlertState{DeviceID: deviceID}
			var ended time.Time
			ok := scanAlert(iter, &r, &r.FleetID, &r.Severity, &ended)
			r.EndedMs = endOf(ended)
			r.Resolved = r.EndedMs != 0
			return r, ok
		})
	})
	return rows, opError("read "+TableDeviceAlerts, err)
}

// endOf is an end that may be absent.
func endOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

// aheadMs is how far a device's clock may be ahead of ours.
const aheadMs = 5 * 60 * 1000

// WriteAlertLife writes an alert among its fleet's. Whoever resolved it by hand meanwhile has the last word: that it is
// open is written with a time before anybody can have seen it.
func (s *Store) WriteAlertLife(ctx context.Context, r *AlertState, writeTimeUs int64) error {
	a := newArena(2, 14)
	b := s.batch(ctx, 2)
	key := func() int {
		from := len(a.args)
		a.text(r.FleetID)
		a.date(DayOf(r.OpenedMs))
		a.text(r.Severity)
		a.timestamp(r.OpenedMs)
		a.text(r.DeviceID)
		a.text(r.Type)
		return from
	}
	from := key()
	a.alert(r)
	a.bigint(writeTimeUs)
	b.add(insertAlertLife, a.row(from))

	from = key()
	a.bool(r.EndedMs != 0)
	if r.EndedMs != 0 {
		a.timestamp(r.EndedMs)
		a.bigint(writeTimeUs)
	} else {
		a.unset()
		a.bigint((r.OpenedMs - aheadMs) * 1000)
	}
	b.add(insertAlertEnd, a.row(from))
	return b.exec(TableAlerts)
}

// DeleteAlert takes back an alert from among its fleet's: it was none, or has become one of another severity.
func (s *Store) DeleteAlert(ctx context.Context, r *AlertState, writeTimeUs int64) error {
	return s.exec(ctx, TableAlerts, deleteAlert, writeTimeUs, r.FleetID, DayOf(r.OpenedMs).Time(), r.Severity, time.UnixMilli(r.OpenedMs), r.DeviceID, r.Type)
}

// AlertLives is the alerts of a fleet that were raised between two instants of one day in Unix milliseconds, both
// included, in no order.
func (s *Store) AlertLives(ctx context.Context, fleetID string, day Day, fromMs, toMs int64) ([]AlertState, error) {
	parts, err := fanOut(ctx, s.config.Fanout, Severities, func(ctx context.Context, severity string) ([]AlertState, error) {
		q := s.query(ctx, selectAlertLives, fleetID, day.Time(), severity, time.UnixMilli(fromMs), time.UnixMilli(toMs))
		return collect(s, q, func(iter *gocql.Iter) (AlertState, bool) {
			r := AlertState{FleetID: fleetID, Severity: severity}
			var ended time.Time
			ok := scanAlert(iter, &r, &r.DeviceID, &r.Resolved, &ended)
			r.EndedMs = endOf(ended)
			return r, ok
		})
	})
	return slices.Concat(parts...), opError("read "+TableAlerts, err)
}

// WriteOpenAlert writes an alert among its fleet's open ones.
func (s *Store) WriteOpenAlert(ctx context.Context, r *AlertState, writeTimeUs int64) error {
	return s.exec(ctx, TableOpenAlerts, insertOpenAlert, r.FleetID, r.DeviceID, r.Type, time.UnixMilli(r.OpenedMs), r.Severity, r.Notify,
		r.Message, time.UnixMilli(r.StartedMs), r.Peak, r.Threshold, r.Zone, r.Lat, r.Lon, writeTimeUs)
}

// DeleteOpenAlert takes an alert off its fleet's open ones.
func (s *Store) DeleteOpenAlert(ctx context.Context, fleetID, deviceID, alertType string, writeTimeUs int64) error {
	return s.exec(ctx, TableOpenAlerts, deleteOpenAlert, writeTimeUs, fleetID, deviceID, alertType)
}

// OpenAlerts is the open alerts of a fleet.
func (s *Store) OpenAlerts(ctx context.Context, fleetID string) ([]AlertState, error) {
	return s.openAlerts(fleetID, s.query(ctx, selectOpenAlerts, fleetID))
}

// OpenAlertsOf is the open alerts of a device in a fleet.
func (s *Store) OpenAlertsOf(ctx context.Context, fleetID, deviceID string) ([]AlertState, error) {
	return s.openAlerts(fleetID, s.query(ctx, selectOpenAlertsOf, fleetID, deviceID))
}

func (s *Store) openAlerts(fleetID string, q *gocql.Query) ([]AlertState, error) {
	rows, err := collect(s, q, func(iter *gocql.Iter) (AlertState, bool) {
		r := AlertState{FleetID: fleetID}
		ok := scanAlert(iter, &r, &r.DeviceID, &r.Severity, &r.Notify)
		return r, ok
	})
	return rows, opError("read "+TableOpenAlerts, err)
}

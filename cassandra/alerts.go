package cassandra

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/gocql/gocql"
)

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

// AlertStore keeps alerts by fleet, by device, and those that are open.
type AlertStore struct{ db *Session }

const (
	alertCells = "message, started_at, peak, threshold, zone, lat, lon" // the same in all three tables

	insertAlert = "INSERT INTO alerts_by_fleet_day (fleet_id, day, severity, ts, device_id, alert_type, message, resolved)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	insertFleetAlert = "INSERT INTO alerts_by_fleet_day (fleet_id, day, severity, ts, device_id, alert_type, " + alertCells + ")" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	insertFleetAlertEnd = "INSERT INTO alerts_by_fleet_day (fleet_id, day, severity, ts, device_id, alert_type, resolved, resolved_at)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteFleetAlert  = "DELETE FROM alerts_by_fleet_day USING TIMESTAMP ? WHERE fleet_id = ? AND day = ? AND severity = ? AND ts = ? AND device_id = ? AND alert_type = ?"
	selectAlerts      = "SELECT ts, device_id, alert_type, message, resolved FROM alerts_by_fleet_day WHERE fleet_id = ? AND day = ? AND severity = ? AND ts >= ? AND ts <= ?"
	selectAlertsLimit = selectAlerts + " LIMIT ?"
	selectFleetAlerts = "SELECT ts, alert_type, " + alertCells + ", device_id, resolved, resolved_at" +
		" FROM alerts_by_fleet_day WHERE fleet_id = ? AND day = ? AND severity = ? AND ts >= ? AND ts <= ?"

	insertDeviceAlert = "INSERT INTO alerts_by_device_month (device_id, month, ts, alert_type, fleet_id, severity, resolved, resolved_at, " + alertCells + ")" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteDeviceAlert  = "DELETE FROM alerts_by_device_month USING TIMESTAMP ? WHERE device_id = ? AND month = ? AND ts = ? AND alert_type = ?"
	selectDeviceAlerts = "SELECT ts, alert_type, " + alertCells + ", fleet_id, severity, resolved_at" +
		" FROM alerts_by_device_month WHERE device_id = ? AND month = ? AND ts >= ? AND ts <= ?"

	insertOpenAlert = "INSERT INTO open_alerts_by_fleet (fleet_id, device_id, alert_type, ts, severity, notify, " + alertCells + ")" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteOpenAlert  = "DELETE FROM open_alerts_by_fleet USING TIMESTAMP ? WHERE fleet_id = ? AND device_id = ? AND alert_type = ?"
	selectOpenAlerts = "SELECT ts, alert_type, " + alertCells + ", device_id, severity, notify" +
		" FROM open_alerts_by_fleet WHERE fleet_id = ?"
	selectOpenAlertsOfDevice = selectOpenAlerts + " AND device_id = ?"
)

// Severities of alerts, the gravest first.
var Severities = []string{"HIGH", "MEDIUM", "LOW"}

// AlertQuery asks for the alerts of a fleet between two instants, both included.
type AlertQuery struct {
	FleetID    string
	From, To   time.Time
	Severities []string // none: all
	Limit      int      // at most so many, the newest; 0: all
}

// Alerts is the alerts of a fleet, newest first.
func (s *AlertStore) Alerts(ctx context.Context, q AlertQuery) ([]Alert, error) {
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
			n = min(n, s.db.wave(q.Limit, len(alerts), all-len(days)))
		}
		var partitions []partition
		for _, day := range days[:n] {
			for _, severity := range severities {
				partitions = append(partitions, partition{day, severity})
			}
		}
		days = days[n:]
		parts, err := fanOut(ctx, s.db.config.Fanout, partitions, func(ctx context.Context, p partition) ([]Alert, error) {
			statement, args := selectAlerts, []any{q.FleetID, p.day.Time(), p.severity, q.From, q.To}
			if q.Limit > 0 {
				statement, args = selectAlertsLimit, append(args, q.Limit)
			}
			return collect(s.db, s.db.query(ctx, statement, args...), func(iter *gocql.Iter) (Alert, bool) {
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

// WriteAlerts writes alerts of one fleet, day (that of TsMs, UTC) and severity as one mutation.
func (s *AlertStore) WriteAlerts(ctx context.Context, rows []AlertRow) error {
	b := s.db.batch(ctx, len(rows))
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

// WriteFleetAlert writes an alert among its fleet's. Whoever resolved it by hand meanwhile has the last word: that it is
// open is written with a time before anybody can have seen it.
func (s *AlertStore) WriteFleetAlert(ctx context.Context, r *AlertState, writeTimeUs int64) error {
	a := newArena(2, 14)
	b := s.db.batch(ctx, 2)
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
	b.add(insertFleetAlert, a.row(from))

	from = key()
	a.bool(r.EndedMs != 0)
	if r.EndedMs != 0 {
		a.timestamp(r.EndedMs)
		a.bigint(writeTimeUs)
	} else {
		a.unset()
		a.bigint((r.OpenedMs - aheadMs) * 1000)
	}
	b.add(insertFleetAlertEnd, a.row(from))
	return b.exec(TableAlerts)
}

// aheadMs is how far a device's clock may be ahead of ours.
const aheadMs = 5 * 60 * 1000

// DeleteFleetAlert takes back an alert from among its fleet's: it was none, or has become one of another severity.
func (s *AlertStore) DeleteFleetAlert(ctx context.Context, r *AlertState, writeTimeUs int64) error {
	return s.db.exec(ctx, TableAlerts, deleteFleetAlert, writeTimeUs, r.FleetID, DayOf(r.OpenedMs).Time(), r.Severity, time.UnixMilli(r.OpenedMs), r.DeviceID, r.Type)
}

// FleetAlerts is the alerts of a fleet that were raised between two instants of one day in Unix milliseconds, both
// included, in no order.
func (s *AlertStore) FleetAlerts(ctx context.Context, fleetID string, day Day, fromMs, toMs int64) ([]AlertState, error) {
	parts, err := fanOut(ctx, s.db.config.Fanout, Severities, func(ctx context.Context, severity string) ([]AlertState, error) {
		q := s.db.query(ctx, selectFleetAlerts, fleetID, day.Time(), severity, time.UnixMilli(fromMs), time.UnixMilli(toMs))
		return collect(s.db, q, func(iter *gocql.Iter) (AlertState, bool) {
			r := AlertState{FleetID: fleetID, Severity: severity}
			var ended time.Time
			ok := scanAlert(iter, &r, &r.DeviceID, &r.Resolved, &ended)
			r.EndedMs = endOf(ended)
			return r, ok
		})
	})
	return slices.Concat(parts...), opError("read "+TableAlerts, err)
}

// WriteDeviceAlert writes an alert among its device's.
func (s *AlertStore) WriteDeviceAlert(ctx context.Context, r *AlertState, writeTimeUs int64) error {
	a := newArena(1, 16)
	b := s.db.batch(ctx, 1)
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
func (s *AlertStore) DeleteDeviceAlert(ctx context.Context, deviceID string, openedMs int64, alertType string, writeTimeUs int64) error {
	return s.db.exec(ctx, TableDeviceAlerts, deleteDeviceAlert, writeTimeUs, deviceID, DayOf(openedMs).Month().Time(), time.UnixMilli(openedMs), alertType)
}

// DeviceAlerts is the alerts of a device that were raised between two instants in Unix milliseconds, both included,
// oldest first.
func (s *AlertStore) DeviceAlerts(ctx context.Context, deviceID string, fromMs, toMs int64) ([]AlertState, error) {
	rows, err := byMonth(ctx, s.db, fromMs, toMs, func(ctx context.Context, month Day) ([]AlertState, error) {
		q := s.db.query(ctx, selectDeviceAlerts, deviceID, month.Time(), time.UnixMilli(fromMs), time.UnixMilli(toMs))
		return collect(s.db, q, func(iter *gocql.Iter) (AlertState, bool) {
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

// WriteOpenAlert writes an alert among its fleet's open ones.
func (s *AlertStore) WriteOpenAlert(ctx context.Context, r *AlertState, writeTimeUs int64) error {
	return s.db.exec(ctx, TableOpenAlerts, insertOpenAlert, r.FleetID, r.DeviceID, r.Type, time.UnixMilli(r.OpenedMs), r.Severity, r.Notify,
		r.Message, time.UnixMilli(r.StartedMs), r.Peak, r.Threshold, r.Zone, r.Lat, r.Lon, writeTimeUs)
}

// DeleteOpenAlert takes an alert off its fleet's open ones.
func (s *AlertStore) DeleteOpenAlert(ctx context.Context, fleetID, deviceID, alertType string, writeTimeUs int64) error {
	return s.db.exec(ctx, TableOpenAlerts, deleteOpenAlert, writeTimeUs, fleetID, deviceID, alertType)
}

// OpenAlerts is the open alerts of a fleet.
func (s *AlertStore) OpenAlerts(ctx context.Context, fleetID string) ([]AlertState, error) {
	return s.openAlerts(fleetID, s.db.query(ctx, selectOpenAlerts, fleetID))
}

// OpenAlertsOfDevice is the open alerts of a device in a fleet.
func (s *AlertStore) OpenAlertsOfDevice(ctx context.Context, fleetID, deviceID string) ([]AlertState, error) {
	return s.openAlerts(fleetID, s.db.query(ctx, selectOpenAlertsOfDevice, fleetID, deviceID))
}

func (s *AlertStore) openAlerts(fleetID string, q *gocql.Query) ([]AlertState, error) {
	rows, err := collect(s.db, q, func(iter *gocql.Iter) (AlertState, bool) {
		r := AlertState{FleetID: fleetID}
		ok := scanAlert(iter, &r, &r.DeviceID, &r.Severity, &r.Notify)
		return r, ok
	})
	return rows, opError("read "+TableOpenAlerts, err)
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

// endOf is an end that may be absent.
func endOf(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

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

// Alert is a row of any of the three tables of alerts. Comments name the fields that not all of them have.
type Alert struct {
	FleetID, DeviceID, Type, Severity string

	OpenedMs, StartedMs int64 // event times, Unix milliseconds
	EndedMs             int64 // 0 while the alert is open, and if it was resolved by hand
	Message             string
	Peak, Threshold     float64
	Zone                string
	Lat, Lon            float64

	Notify   bool // open alerts: receivers are notified
	Resolved bool // other alerts: it has ended, or was resolved by hand
}

// Opened is the time at which the alert was opened.
func (a *Alert) Opened() time.Time { return time.UnixMilli(a.OpenedMs).UTC() }

// AlertStore keeps the alerts of fleets, the alerts of devices, and the open alerts of fleets.
type AlertStore struct{ db *Session }

const (
	alertCells = "message, started_at, peak, threshold, zone, lat, lon" // the same in all three tables

	insertFleetAlert = "INSERT INTO alerts_by_fleet_day (fleet_id, day, severity, ts, device_id, alert_type, " + alertCells + ")" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	insertFleetAlertEnd = "INSERT INTO alerts_by_fleet_day (fleet_id, day, severity, ts, device_id, alert_type, resolved, resolved_at)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteFleetAlert    = "DELETE FROM alerts_by_fleet_day USING TIMESTAMP ? WHERE fleet_id = ? AND day = ? AND severity = ? AND ts = ? AND device_id = ? AND alert_type = ?"
	insertAlertResolved = "INSERT INTO alerts_by_fleet_day (fleet_id, day, severity, ts, device_id, alert_type, resolved) VALUES (?, ?, ?, ?, ?, ?, true) USING TIMESTAMP ?"
	selectFleetAlerts   = "SELECT ts, alert_type, " + alertCells + ", device_id, resolved, resolved_at" +
		" FROM alerts_by_fleet_day WHERE fleet_id = ? AND day = ? AND severity = ? AND ts >= ? AND ts <= ?"
	selectFleetAlertsLimit = selectFleetAlerts + " LIMIT ?"

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

// Severities of alerts, the highest first.
var Severities = []string{"HIGH", "MEDIUM", "LOW"}

// AlertQuery selects the alerts of a fleet between two instants, both included.
type AlertQuery struct {
	FleetID    string
	From, To   time.Time
	Severities []string // none: all
	Limit      int      // maximum number of alerts, newest first; 0: all
}

// Alerts lists the alerts of a fleet, newest first.
func (s *AlertStore) Alerts(ctx context.Context, q AlertQuery) ([]Alert, error) {
	op := "read alerts of fleet " + q.FleetID
	severities := q.Severities
	if len(severities) == 0 {
		severities = Severities
	}
	from, to := q.From.UnixMilli(), q.To.UnixMilli()
	if err := checkRange(DayOf(from), DayOf(to)); err != nil {
		return nil, fmt.Errorf("%s: %w", op, err)
	}
	type partition struct {
		day      Day
		severity string
	}
	var alerts []Alert
	days := daysBack(from, to)
	all := len(days)
	for len(days) > 0 && (q.Limit <= 0 || len(alerts) < q.Limit) {
		n := len(days) // without a limit, all are read at once
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
			return s.fleetAlerts(ctx, q.FleetID, p.day, p.severity, from, to, q.Limit)
		})
		if err != nil {
			return nil, opError(op, err)
		}
		alerts = append(alerts, slices.Concat(parts...)...)
	}
	slices.SortFunc(alerts, func(a, b Alert) int {
		return cmp.Or(cmp.Compare(b.OpenedMs, a.OpenedMs), strings.Compare(a.DeviceID, b.DeviceID), strings.Compare(a.Type, b.Type))
	})
	if q.Limit > 0 && len(alerts) > q.Limit {
		alerts = alerts[:q.Limit]
	}
	return alerts, nil
}

// FleetAlerts lists the alerts of a fleet that were opened between two instants of one day in Unix milliseconds, both
// included, in no order.
func (s *AlertStore) FleetAlerts(ctx context.Context, fleetID string, day Day, fromMs, toMs int64) ([]Alert, error) {
	parts, err := fanOut(ctx, s.db.config.Fanout, Severities, func(ctx context.Context, severity string) ([]Alert, error) {
		return s.fleetAlerts(ctx, fleetID, day, severity, fromMs, toMs, 0)
	})
	return slices.Concat(parts...), opError("read "+TableAlerts, err)
}

// fleetAlerts reads one partition, newest first. A limit of 0 reads all.
func (s *AlertStore) fleetAlerts(ctx context.Context, fleetID string, day Day, severity string, fromMs, toMs int64, limit int) ([]Alert, error) {
	statement, args := selectFleetAlerts, []any{fleetID, day.Time(), severity, time.UnixMilli(fromMs), time.UnixMilli(toMs)}
	if limit > 0 {
		statement, args = selectFleetAlertsLimit, append(args, limit)
	}
	return collect(s.db, s.db.query(ctx, statement, args...), func(iter *gocql.Iter) (Alert, bool) {
		r := Alert{FleetID: fleetID, Severity: severity}
		var ended time.Time
		ok := scanAlert(iter, &r, &r.DeviceID, &r.Resolved, &ended)
		r.EndedMs = unixMs(ended)
		return r, ok
	})
}

// aheadMs is how far the clock of a device may be ahead.
const aheadMs = 5 * 60 * 1000

// ApplyFleetAlerts applies alerts of one fleet, day and severity. An alert that was resolved by hand stays resolved: that
// it is open is written with a time before anyone can have seen it.
func (s *AlertStore) ApplyFleetAlerts(ctx context.Context, rows []Mutation[Alert]) error {
	a := newArena(2*len(rows), 14)
	b := s.db.batch(ctx, 2*len(rows))
	for i := range rows {
		r, at := &rows[i].Row, rows[i].WriteTimeUs
		if rows[i].Delete {
			from := len(a.args)
			a.bigint(at)
			a.fleetAlertKey(r)
			b.add(deleteFleetAlert, a.row(from))
			continue
		}
		from := a.fleetAlertKey(r)
		a.alert(r)
		a.bigint(at)
		b.add(insertFleetAlert, a.row(from))

		from = a.fleetAlertKey(r)
		a.bool(r.EndedMs != 0)
		if r.EndedMs != 0 {
			a.timestamp(r.EndedMs)
			a.bigint(at)
		} else {
			a.unset()
			a.bigint((r.OpenedMs - aheadMs) * 1000)
		}
		b.add(insertFleetAlertEnd, a.row(from))
	}
	return b.exec(TableAlerts)
}

// fleetAlertKey adds the primary key of alerts_by_fleet_day, and returns where it begins.
func (a *arena) fleetAlertKey(r *Alert) (from int) {
	from = len(a.args)
	a.text(r.FleetID)
	a.date(DayOf(r.OpenedMs))
	a.text(r.Severity)
	a.timestamp(r.OpenedMs)
	a.text(r.DeviceID)
	a.text(r.Type)
	return from
}

// ResolveAlert marks an alert of a fleet as resolved by hand. It needs the fields of the key: fleet, severity, OpenedMs,
// device and type.
func (s *AlertStore) ResolveAlert(ctx context.Context, r *Alert, writeTimeUs int64) error {
	return s.db.exec(ctx, TableAlerts, insertAlertResolved, r.FleetID, DayOf(r.OpenedMs).Time(), r.Severity, time.UnixMilli(r.OpenedMs),
		r.DeviceID, r.Type, writeTimeUs)
}

// ApplyDeviceAlerts applies alerts of one device and month.
func (s *AlertStore) ApplyDeviceAlerts(ctx context.Context, rows []Mutation[Alert]) error {
	return apply(ctx, s.db, TableDeviceAlerts, 16, rows, insertDeviceAlert, deleteDeviceAlert,
		func(a *arena, r *Alert) {
			a.text(r.DeviceID)
			a.date(DayOf(r.OpenedMs).Month())
			a.timestamp(r.OpenedMs)
			a.text(r.Type)
		}, func(a *arena, r *Alert) {
			a.text(r.FleetID)
			a.text(r.Severity)
			a.bool(r.EndedMs != 0)
			if r.EndedMs != 0 {
				a.timestamp(r.EndedMs)
			} else {
				a.null() // a late record may have removed the end
			}
			a.alert(r)
		})
}

// DeviceAlerts lists the alerts of a device that were opened between two instants in Unix milliseconds, both included,
// oldest first.
func (s *AlertStore) DeviceAlerts(ctx context.Context, deviceID string, fromMs, toMs int64) ([]Alert, error) {
	rows, err := byMonth(ctx, s.db, fromMs, toMs, func(ctx context.Context, month Day) ([]Alert, error) {
		q := s.db.query(ctx, selectDeviceAlerts, deviceID, month.Time(), time.UnixMilli(fromMs), time.UnixMilli(toMs))
		return collect(s.db, q, func(iter *gocql.Iter) (Alert, bool) {
			r := Alert{DeviceID: deviceID}
			var ended time.Time
			ok := scanAlert(iter, &r, &r.FleetID, &r.Severity, &ended)
			r.EndedMs = unixMs(ended)
			r.Resolved = r.EndedMs != 0
			return r, ok
		})
	})
	return rows, opError("read "+TableDeviceAlerts, err)
}

// ApplyOpenAlerts applies open alerts of one fleet.
func (s *AlertStore) ApplyOpenAlerts(ctx context.Context, rows []Mutation[Alert]) error {
	return apply(ctx, s.db, TableOpenAlerts, 14, rows, insertOpenAlert, deleteOpenAlert,
		func(a *arena, r *Alert) {
			a.text(r.FleetID)
			a.text(r.DeviceID)
			a.text(r.Type)
		}, func(a *arena, r *Alert) {
			a.timestamp(r.OpenedMs)
			a.text(r.Severity)
			a.bool(r.Notify)
			a.alert(r)
		})
}

// DeleteOpenAlert removes an alert from the open alerts of its fleet.
func (s *AlertStore) DeleteOpenAlert(ctx context.Context, fleetID, deviceID, alertType string, writeTimeUs int64) error {
	return s.db.exec(ctx, TableOpenAlerts, deleteOpenAlert, writeTimeUs, fleetID, deviceID, alertType)
}

// OpenAlerts lists the open alerts of a fleet.
func (s *AlertStore) OpenAlerts(ctx context.Context, fleetID string) ([]Alert, error) {
	return s.openAlerts(fleetID, s.db.query(ctx, selectOpenAlerts, fleetID))
}

// OpenAlertsOfDevice lists the open alerts of a device in a fleet.
func (s *AlertStore) OpenAlertsOfDevice(ctx context.Context, fleetID, deviceID string) ([]Alert, error) {
	return s.openAlerts(fleetID, s.db.query(ctx, selectOpenAlertsOfDevice, fleetID, deviceID))
}

func (s *AlertStore) openAlerts(fleetID string, q *gocql.Query) ([]Alert, error) {
	rows, err := collect(s.db, q, func(iter *gocql.Iter) (Alert, bool) {
		r := Alert{FleetID: fleetID}
		ok := scanAlert(iter, &r, &r.DeviceID, &r.Severity, &r.Notify)
		return r, ok
	})
	return rows, opError("read "+TableOpenAlerts, err)
}

// alert adds the values of alertCells.
func (a *arena) alert(r *Alert) {
	a.text(r.Message)
	a.timestamp(r.StartedMs)
	a.double(r.Peak)
	a.double(r.Threshold)
	a.text(r.Zone)
	a.double(r.Lat)
	a.double(r.Lon)
}

// scanAlert reads ts, alert_type, alertCells and then the given columns.
func scanAlert(iter *gocql.Iter, r *Alert, more ...any) bool {
	var opened, started time.Time
	row := []any{&opened, &r.Type, &r.Message, &started, &r.Peak, &r.Threshold, &r.Zone, &r.Lat, &r.Lon}
	ok := iter.Scan(append(row, more...)...)
	r.OpenedMs, r.StartedMs = unixMs(opened), unixMs(started)
	return ok
}

// unixMs is a time in Unix milliseconds; 0 if it is absent.
func unixMs(t time.Time) int64 {
	if t.IsZero() {
		return 0
	}
	return t.UnixMilli()
}

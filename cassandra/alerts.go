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
type AlertStore struct{ *Session }

const (
	alertCells = "message, started_at, peak, threshold, zone, lat, lon" // the same in all three tables

	insertFleetAlert = "INSERT INTO alerts_by_fleet_day (fleet_id, day, severity, ts, device_id, alert_type, " + alertCells + ")" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	insertFleetAlertEnded = "INSERT INTO alerts_by_fleet_day (fleet_id, day, severity, ts, device_id, alert_type, " + alertCells + ", resolved, resolved_at)" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, true, ?) USING TIMESTAMP ?"
	insertFleetAlertOpen = "INSERT INTO alerts_by_fleet_day (fleet_id, day, severity, ts, device_id, alert_type, resolved)" +
		" VALUES (?, ?, ?, ?, ?, ?, false) USING TIMESTAMP ?"
	deleteFleetAlert    = "DELETE FROM alerts_by_fleet_day USING TIMESTAMP ? WHERE fleet_id = ? AND day = ? AND severity = ? AND ts = ? AND device_id = ? AND alert_type = ?"
	insertAlertResolved = "INSERT INTO alerts_by_fleet_day (fleet_id, day, severity, ts, device_id, alert_type, resolved) VALUES (?, ?, ?, ?, ?, ?, true) USING TIMESTAMP ?"
	selectFleetAlerts   = "SELECT ts, alert_type, " + alertCells + ", device_id, resolved, resolved_at" +
		" FROM alerts_by_fleet_day WHERE fleet_id = ? AND day = ? AND severity = ? AND ts >= ? AND ts <= ?"
	selectFleetAlertsLimit = selectFleetAlerts + " LIMIT ?"

	insertDeviceAlert = "INSERT INTO alerts_by_device_month (device_id, month, ts, alert_type, fleet_id, severity, resolved, resolved_at, " + alertCells + ")" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ?"
	deleteDeviceAlert  = "DELETE FROM alerts_by_device_month USING TIMESTAMP ? WHERE device_id = ? AND month = ? AND ts = ? AND alert_type = ?"
	selectDeviceAlerts = "SELECT ts, alert_type, " + alertCells + ", fleet_id, severity, resolved, resolved_at" +
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
	inParallel := max(1, s.config.Fanout/len(severities))
	alerts, err := newestFirst(ctx, inParallel, from, to, q.Limit, func(ctx context.Context, day Day) ([]Alert, error) {
		return s.fleetAlerts(ctx, q.FleetID, day, severities, from, to, q.Limit)
	})
	if err != nil {
		return nil, opError(op, err)
	}
	slices.SortFunc(alerts, func(a, b Alert) int {
		return cmp.Or(cmp.Compare(b.OpenedMs, a.OpenedMs), strings.Compare(a.DeviceID, b.DeviceID), strings.Compare(a.Type, b.Type))
	})
	if q.Limit > 0 && len(alerts) > q.Limit {
		alerts = alerts[:q.Limit]
	}
	return alerts, nil
}

// fleetAlerts reads the partitions of a day. A limit, unless it is 0, applies to each severity.
func (s *AlertStore) fleetAlerts(ctx context.Context, fleetID string, day Day, severities []string, fromMs, toMs int64, limit int) ([]Alert, error) {
	parts, err := fanOut(ctx, len(severities), severities, func(ctx context.Context, severity string) ([]Alert, error) {
		statement, args := selectFleetAlerts, []any{fleetID, day, severity, time.UnixMilli(fromMs), time.UnixMilli(toMs)}
		if limit > 0 {
			statement, args = selectFleetAlertsLimit, append(args, limit)
		}
		return collect(s.Session, s.query(ctx, statement, args...), func(r *Alert) []any {
			r.FleetID, r.Severity = fleetID, severity
			return append(r.columns(), &r.DeviceID, &r.Resolved, &r.EndedMs)
		})
	})
	return slices.Concat(parts...), err
}

// aheadMs is how far the clock of a device may be ahead.
const aheadMs = 5 * 60 * 1000

// ApplyFleetAlerts applies alerts of one fleet, day and severity. An alert that was resolved by hand stays resolved: that
// it is open is written with a time before anyone can have seen it.
func (s *AlertStore) ApplyFleetAlerts(ctx context.Context, rows []Mutation[Alert]) error {
	a := newArena(2*len(rows), 15)
	b := s.batch(ctx, 2*len(rows))
	for i := range rows {
		r, at := &rows[i].Row, rows[i].WriteTimeUs
		from := len(a.args)
		if rows[i].Delete {
			a.add(&at)
			a.fleetAlertKey(r)
			b.add(deleteFleetAlert, a.row(from))
			continue
		}
		a.fleetAlertKey(r)
		a.alert(r)
		if r.EndedMs != 0 {
			a.add(&r.EndedMs, &at)
			b.add(insertFleetAlertEnded, a.row(from))
			continue
		}
		a.add(&at)
		b.add(insertFleetAlert, a.row(from))

		from, at = len(a.args), (r.OpenedMs-aheadMs)*1000
		a.fleetAlertKey(r)
		a.add(&at)
		b.add(insertFleetAlertOpen, a.row(from))
	}
	return b.exec(TableAlerts)
}

// fleetAlertKey adds the primary key of alerts_by_fleet_day.
func (a *arena) fleetAlertKey(r *Alert) {
	day := DayOf(r.OpenedMs)
	a.add(&r.FleetID, &day, &r.Severity, &r.OpenedMs, &r.DeviceID, &r.Type)
}

// ResolveAlert marks an alert of a fleet as resolved by hand. It needs the fields of the key: fleet, severity, OpenedMs,
// device and type.
func (s *AlertStore) ResolveAlert(ctx context.Context, r *Alert, writeTimeUs int64) error {
	return s.exec(ctx, TableAlerts, insertAlertResolved, r.FleetID, DayOf(r.OpenedMs), r.Severity, time.UnixMilli(r.OpenedMs),
		r.DeviceID, r.Type, writeTimeUs)
}

// ApplyDeviceAlerts applies alerts of one device and month.
func (s *AlertStore) ApplyDeviceAlerts(ctx context.Context, rows []Mutation[Alert]) error {
	return apply(ctx, s.Session, TableDeviceAlerts, 16, rows, insertDeviceAlert, deleteDeviceAlert,
		func(a *arena, r *Alert) {
			month := DayOf(r.OpenedMs).Month()
			a.add(&r.DeviceID, &month, &r.OpenedMs, &r.Type)
		}, func(a *arena, r *Alert) {
			ended, end := r.EndedMs != 0, &r.EndedMs
			if !ended {
				end = nil
			}
			a.add(&r.FleetID, &r.Severity, &ended)
			a.set(&end) // a late record may have removed it
			a.alert(r)
		})
}

// DeviceAlerts lists the alerts of a device that were opened between two instants in Unix milliseconds, both included,
// oldest first.
func (s *AlertStore) DeviceAlerts(ctx context.Context, deviceID string, fromMs, toMs int64) ([]Alert, error) {
	rows, err := byMonth(ctx, s.Session, fromMs, toMs, func(ctx context.Context, month Day) ([]Alert, error) {
		q := s.query(ctx, selectDeviceAlerts, deviceID, month, time.UnixMilli(fromMs), time.UnixMilli(toMs))
		return collect(s.Session, q, func(r *Alert) []any {
			r.DeviceID = deviceID
			return append(r.columns(), &r.FleetID, &r.Severity, &r.Resolved, &r.EndedMs)
		})
	})
	return rows, opError("read "+TableDeviceAlerts, err)
}

// ApplyOpenAlerts applies open alerts of one fleet.
func (s *AlertStore) ApplyOpenAlerts(ctx context.Context, rows []Mutation[Alert]) error {
	return apply(ctx, s.Session, TableOpenAlerts, 14, rows, insertOpenAlert, deleteOpenAlert,
		func(a *arena, r *Alert) {
			a.add(&r.FleetID, &r.DeviceID, &r.Type)
		}, func(a *arena, r *Alert) {
			a.add(&r.OpenedMs, &r.Severity, &r.Notify)
			a.alert(r)
		})
}

// DeleteOpenAlert removes an alert from the open alerts of its fleet.
func (s *AlertStore) DeleteOpenAlert(ctx context.Context, fleetID, deviceID, alertType string, writeTimeUs int64) error {
	return s.exec(ctx, TableOpenAlerts, deleteOpenAlert, writeTimeUs, fleetID, deviceID, alertType)
}

// OpenAlerts lists the open alerts of a fleet.
func (s *AlertStore) OpenAlerts(ctx context.Context, fleetID string) ([]Alert, error) {
	return s.openAlerts(fleetID, s.query(ctx, selectOpenAlerts, fleetID))
}

// OpenAlertsOfDevice lists the open alerts of a device in a fleet.
func (s *AlertStore) OpenAlertsOfDevice(ctx context.Context, fleetID, deviceID string) ([]Alert, error) {
	return s.openAlerts(fleetID, s.query(ctx, selectOpenAlertsOfDevice, fleetID, deviceID))
}

func (s *AlertStore) openAlerts(fleetID string, q *gocql.Query) ([]Alert, error) {
	rows, err := collect(s.Session, q, func(r *Alert) []any {
		r.FleetID = fleetID
		return append(r.columns(), &r.DeviceID, &r.Severity, &r.Notify)
	})
	return rows, opError("read "+TableOpenAlerts, err)
}

// alert adds the values of alertCells.
func (a *arena) alert(r *Alert) {
	a.add(&r.Message, &r.StartedMs, &r.Peak, &r.Threshold, &r.Zone, &r.Lat, &r.Lon)
}

// columns are where ts, alert_type and alertCells go.
func (a *Alert) columns() []any {
	return []any{&a.OpenedMs, &a.Type, &a.Message, &a.StartedMs, &a.Peak, &a.Threshold, &a.Zone, &a.Lat, &a.Lon}
}

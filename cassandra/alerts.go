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
	Expiring bool // open alerts: the row expires before long unless it is written again; only reads set it
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

	insertOpenAlert = "INSERT INTO open_alerts_by_fleet (fleet_id, bucket, device_id, alert_type, ts, severity, notify, " + alertCells + ")" +
		" VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) USING TIMESTAMP ? AND TTL 86400"
	deleteOpenAlert  = "DELETE FROM open_alerts_by_fleet USING TIMESTAMP ? WHERE fleet_id = ? AND bucket = ? AND device_id = ? AND alert_type = ?"
	selectOpenAlerts = "SELECT ts, alert_type, " + alertCells + ", device_id, severity, notify, TTL(ts)" +
		" FROM open_alerts_by_fleet WHERE fleet_id = ? AND bucket = ?"
	selectOpenAlertsOfDevice = selectOpenAlerts + " AND device_id = ?"
)

// OpenAlertTTL is how long an open alert is stored unless it is written again. The TTL of insertOpenAlert has the same value.
const OpenAlertTTL = 24 * time.Hour

// OpenAlertBuckets is the number of partitions over which the open alerts of a fleet are spread.
const OpenAlertBuckets = 16

// OpenAlertBucket is the partition of a device's open alerts in its fleet.
func OpenAlertBucket(deviceID string) int32 { return bucketOf(deviceID, OpenAlertBuckets) }

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

// ApplyOpenAlerts applies open alerts of one fleet and OpenAlertBucket.
func (s *AlertStore) ApplyOpenAlerts(ctx context.Context, rows []Mutation[Alert]) error {
	return apply(ctx, s.Session, TableOpenAlerts, 15, rows, insertOpenAlert, deleteOpenAlert,
		func(a *arena, r *Alert) {
			bucket := OpenAlertBucket(r.DeviceID)
			a.add(&r.FleetID, &bucket, &r.DeviceID, &r.Type)
		}, func(a *arena, r *Alert) {
			a.add(&r.OpenedMs, &r.Severity, &r.Notify)
			a.alert(r)
		})
}

// DeleteOpenAlert removes an alert from the open alerts of its fleet.
func (s *AlertStore) DeleteOpenAlert(ctx context.Context, fleetID, deviceID, alertType string, writeTimeUs int64) error {
	return s.exec(ctx, TableOpenAlerts, deleteOpenAlert, writeTimeUs, fleetID, OpenAlertBucket(deviceID), deviceID, alertType)
}

// OpenAlerts lists the open alerts of a fleet, sorted by device and type. Like the other reads of open alerts, it leaves out a
// row that has not been written again in time, with less than a quarter of OpenAlertTTL left: whether it holds is not known.
func (s *AlertStore) OpenAlerts(ctx context.Context, fleetID string) ([]Alert, error) {
	parts, err := fanOut(ctx, s.config.Fanout, buckets(OpenAlertBuckets), func(ctx context.Context, bucket int32) ([]Alert, error) {
		return s.OpenAlertsOfBucket(ctx, fleetID, bucket)
	})
	rows := slices.Concat(parts...)
	slices.SortFunc(rows, func(a, b Alert) int {
		return cmp.Or(strings.Compare(a.DeviceID, b.DeviceID), strings.Compare(a.Type, b.Type))
	})
	return rows, err
}

// OpenAlertsOfBucket lists the open alerts of a fleet whose devices have an OpenAlertBucket.
func (s *AlertStore) OpenAlertsOfBucket(ctx context.Context, fleetID string, bucket int32) ([]Alert, error) {
	return s.openAlerts(fleetID, s.query(ctx, selectOpenAlerts, fleetID, bucket))
}

// OpenAlertsOfDevice lists the open alerts of a device in a fleet.
func (s *AlertStore) OpenAlertsOfDevice(ctx context.Context, fleetID, deviceID string) ([]Alert, error) {
	return s.openAlerts(fleetID, s.query(ctx, selectOpenAlertsOfDevice, fleetID, OpenAlertBucket(deviceID), deviceID))
}

func (s *AlertStore) openAlerts(fleetID string, q *gocql.Query) ([]Alert, error) {
	type expiring struct {
		Alert
		leftS int
	}
	found, err := collect(s.Session, q, func(r *expiring) []any {
		r.FleetID = fleetID
		return append(r.columns(), &r.DeviceID, &r.Severity, &r.Notify, &r.leftS)
	})
	rows := make([]Alert, 0, len(found))
	for _, r := range found {
		left := time.Duration(r.leftS) * time.Second
		if r.Expiring = left < OpenAlertTTL/2; left >= OpenAlertTTL/4 {
			rows = append(rows, r.Alert)
		}
	}
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

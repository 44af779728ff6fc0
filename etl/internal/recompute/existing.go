package recompute

import (
	"context"
	"slices"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/derived"
)

// Existing is the stored rows that can change when a device is recomputed.
type Existing struct {
	Days             []cassandra.DeviceDay
	Trips            []cassandra.TripRow
	Alerts           []cassandra.Alert
	Open             []cassandra.Alert         // those in the table of open alerts
	ManuallyResolved map[derived.AlertKey]bool // alerts without an end that a person resolved
}

// ReadExisting reads the rows that can change when a device is recomputed from the first day on, beginning with base.
func ReadExisting(ctx context.Context, s Store, deviceID string, first cassandra.Day, base *derived.State, untilMs int64, fleets []string) (e Existing, err error) {
	from := first.Time().UnixMilli()
	if e.Days, err = s.DeviceDays(ctx, deviceID, first); err != nil {
		return e, err
	}
	tripsFrom := from
	if open := base.Roll.OpenFromMs(); base.Roll.LastMs() != 0 && open < tripsFrom {
		tripsFrom = open
	}
	if e.Trips, err = s.Trips(ctx, deviceID, tripsFrom, untilMs); err != nil {
		return e, err
	}
	// Alerts that were open at the begin may end at another time, and the silence after the last record may count too.
	if base.Roll.LastMs() != 0 {
		from = min(from, base.Roll.LastMs()+1)
	}
	open, oldest := map[derived.AlertKey]bool{}, from
	for a := range base.Alerts.Open() {
		open[derived.KeyOf(a)] = true
		oldest = min(oldest, a.OpenedMs)
	}
	if e.Alerts, err = s.DeviceAlerts(ctx, deviceID, oldest, untilMs); err != nil {
		return e, err
	}
	e.Alerts = slices.DeleteFunc(e.Alerts, func(a cassandra.Alert) bool {
		return a.OpenedMs < from && !open[derived.KeyOfRow(a)]
	})
	fleets = slices.Clone(fleets)
	for _, a := range e.Alerts {
		fleets = append(fleets, a.FleetID)
	}
	if e.Open, err = OpenAlerts(ctx, s, deviceID, fleets); err != nil {
		return e, err
	}
	for _, a := range e.Alerts {
		if a.EndedMs != 0 || e.IsOpen(derived.KeyOfRow(a)) {
			continue
		}
		rows, err := FleetRows(ctx, s, &a)
		if err != nil {
			return e, err
		}
		if slices.ContainsFunc(rows, func(r cassandra.Alert) bool { return r.Resolved && r.EndedMs == 0 }) {
			if e.ManuallyResolved == nil {
				e.ManuallyResolved = map[derived.AlertKey]bool{}
			}
			e.ManuallyResolved[derived.KeyOfRow(a)] = true
		}
	}
	return e, nil
}

// IsOpen reports whether an alert is in the table of open alerts.
func (e *Existing) IsOpen(key derived.AlertKey) bool {
	return slices.ContainsFunc(e.Open, func(row cassandra.Alert) bool { return derived.KeyOfRow(row) == key })
}

// OpenAlerts reads the open alerts of a device in some fleets, which may repeat.
func OpenAlerts(ctx context.Context, s Store, deviceID string, fleets []string) (open []cassandra.Alert, err error) {
	for _, fleet := range slices.Compact(slices.Sorted(slices.Values(fleets))) {
		rows, err := s.OpenAlertsOfDevice(ctx, fleet, deviceID)
		if err != nil {
			return nil, err
		}
		open = append(open, rows...)
	}
	return open, nil
}

// FleetRows reads the rows of a device's alert in alerts_by_fleet_day: one, unless it is there with several severities.
func FleetRows(ctx context.Context, s Store, a *cassandra.Alert) ([]cassandra.Alert, error) {
	rows, err := s.Alerts(ctx, cassandra.AlertQuery{FleetID: a.FleetID, From: a.Opened(), To: a.Opened()})
	return slices.DeleteFunc(rows, func(r cassandra.Alert) bool { return r.DeviceID != a.DeviceID || r.Type != a.Type }), err
}

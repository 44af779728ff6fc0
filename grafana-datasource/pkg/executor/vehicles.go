package executor

import (
	"cmp"
	"context"
	"slices"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/memory"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

// latest returns all vehicles of the fleets in one frame, because a map draws only one.
func (x *execution) latest(ctx context.Context, q *query.Latest) error {
	fleets, rows, err := forEachFleet(ctx, x, &q.Common, cassandra.FleetBuckets, x.reader.Latest)
	if err != nil {
		return err
	}
	vehicles := limitRows(x, x.selectVehicles(q, rows...), &q.Common, "Only %d of %d vehicles: the row limit. Raise the limit, or add a filter.")
	if err := takeCells(ctx, len(vehicles), vehicleFields); err != nil {
		return err
	}
	if q.Format == query.FormatNumeric {
		return x.show(frames.VehicleMeasures(vehicles, query.Selected(q.Fields, []string{"age_s"})))
	}
	frame := frames.Vehicles(vehicles, x.links)
	if q.Live {
		x.goLive(frame, q, fleets)
	}
	return x.show(frame)
}

// vehicleFields is the number of fields of a map of vehicles, and one for the vehicle itself.
const vehicleFields = 13

// goLive adds the live channel to a frame, or a notice that explains why there is none.
func (x *execution) goLive(frame *data.Frame, q *query.Latest, fleets []string) {
	notice := "Live streaming needs a single fleet; using panel refresh."
	if len(fleets) == 1 {
		channel, ok := query.Channel(x.links.UID, fleets[0], q)
		if ok {
			frame.Meta.Channel = channel
			return
		}
		notice = "Too many filters for live streaming; using panel refresh."
	}
	frame.AppendNotices(data.Notice{Severity: data.NoticeSeverityInfo, Text: notice})
}

// LiveVehicles reads the vehicles of a fleet that a live stream shows.
func (e *Executor) LiveVehicles(ctx context.Context, q *query.Latest) ([]frames.Vehicle, error) {
	ctx, cancel := context.WithTimeout(ctx, e.settings.QueryTimeout)
	defer cancel()
	rows, err := e.reader.Latest(ctx, q.Fleets[0])
	vehicles := e.selectVehicles(q, rows)
	vehicles = vehicles[:min(len(vehicles), q.RowLimit(e.settings.MaxRows))]
	if err == nil {
		err = takeCells(ctx, len(vehicles), vehicleFields)
	}
	return vehicles, err
}

// LiveFrame makes the frame that a live stream sends.
func (e *Executor) LiveFrame(vehicles []frames.Vehicle) *data.Frame {
	return frames.Vehicles(vehicles, e.links)
}

// selectVehicles returns the vehicles that a query selects. An unknown value lies in no range.
func (e *Executor) selectVehicles(q *query.Latest, parts ...[]cassandra.Telemetry) []frames.Vehicle {
	var vehicles []frames.Vehicle
	anyState, anyZone, anyDevice := anyOf(q.States), anyOf(q.Zones), anyOf(q.Devices)
	now := e.now()
	for _, rows := range parts {
		for i := range rows {
			v := e.vehicle(&rows[i], now)
			if anyState(v.State) && anyZone(v.Zone) && anyDevice(v.DeviceID) &&
				within(v.SpeedKmh, q.MinSpeedKmh, q.MaxSpeedKmh) && within(v.Battery(), q.MinBatteryPct, q.MaxBatteryPct) &&
				query.Match(q.Filters, vehicleColumns, &v) {
				vehicles = append(vehicles, v)
			}
		}
	}
	return vehicles
}

func (e *Executor) vehicle(t *cassandra.Telemetry, now time.Time) frames.Vehicle {
	age := max(now.Sub(t.Ts), 0)
	v := frames.Vehicle{Telemetry: t, AgeS: age.Truncate(time.Millisecond).Seconds(), State: query.StateStopped}
	switch {
	case age > e.settings.OfflineAfter:
		v.State = query.StateOffline
	case age > e.settings.StaleAfter:
		v.State = query.StateStale
	case t.SpeedKmh != nil && *t.SpeedKmh >= e.settings.MovingAboveKmh:
		v.State = query.StateMoving
	}
	return v
}

func within(value, least, most *float64) bool {
	if least == nil && most == nil {
		return true
	}
	return value != nil && (least == nil || *value >= *least) && (most == nil || *value <= *most)
}

var vehicleColumns = query.Columns[frames.Vehicle]{
	"device_id":   func(v *frames.Vehicle) query.Cell { return query.Text(v.DeviceID) },
	"fleet_id":    func(v *frames.Vehicle) query.Cell { return query.Text(v.FleetID) },
	"status":      func(v *frames.Vehicle) query.Cell { return query.Text(v.State) },
	"zone":        func(v *frames.Vehicle) query.Cell { return query.Text(v.Zone) },
	"speed_kmh":   func(v *frames.Vehicle) query.Cell { return query.Number(v.SpeedKmh) },
	"battery_pct": func(v *frames.Vehicle) query.Cell { return query.Number(v.Battery()) },
	"temp_c":      func(v *frames.Vehicle) query.Cell { return query.Number(v.TempC) },
	"age_s":       func(v *frames.Vehicle) query.Cell { return query.Number(&v.AgeS) },
}

// fleets returns the fleets and the number of their vehicles in each state.
func (x *execution) fleets(ctx context.Context, q *query.Fleets) error {
	fleets, err := x.fleetsOf(ctx, &q.Common)
	if err != nil {
		return err
	}
	fleets = keep(fleets, func(fleet *string) bool { return query.MatchFleet(q.Filters, *fleet) })
	fleets = limitRows(x, x.limitFleets(fleets, cassandra.FleetBuckets), &q.Common, "Only the first %d of %d fleets: the row limit.")
	summaries, err := forEach(ctx, concurrentFleets, fleets, func(ctx context.Context, fleet string) (frames.FleetSummary, error) {
		ctx, release := memory.Scope(ctx)
		defer release()
		rows, err := x.reader.Latest(ctx, fleet)
		summary := frames.FleetSummary{Fleet: fleet, Vehicles: int64(len(rows)), ByState: map[string]int64{}}
		now := x.now()
		for i := range rows {
			summary.ByState[x.vehicle(&rows[i], now).State]++
			if ts := rows[i].Ts; summary.NewestTs == nil || ts.After(*summary.NewestTs) {
				summary.NewestTs = &ts
			}
		}
		return summary, err
	})
	if err != nil {
		return err
	}
	if q.Format == query.FormatNumeric {
		return x.show(frames.FleetCounts(summaries))
	}
	return x.show(frames.Fleets(summaries))
}

var deviceColumns = query.Columns[cassandra.Device]{
	"device_id": func(d *cassandra.Device) query.Cell { return query.Text(d.DeviceID) },
	"fleet_id":  func(d *cassandra.Device) query.Cell { return query.Text(d.FleetID) },
}

// The number of fields of tables.
const (
	deviceFields   = 5
	geofenceFields = 8
)

// devices returns the registered devices of fleets.
func (x *execution) devices(ctx context.Context, q *query.Devices) error {
	fleets, parts, err := forEachFleet(ctx, x, &q.Common, 1, x.reader.Devices)
	if err != nil {
		return err
	}
	anyDevice := anyOf(q.Devices)
	rows, err := gather(ctx, parts, func(d *cassandra.Device) bool {
		return anyDevice(d.DeviceID) && query.Match(q.Filters, deviceColumns, d)
	})
	if err != nil {
		return err
	}
	if q.Format == query.FormatNumeric {
		return x.show(frames.CountsByFleet("devices", fleets, rows, func(d *cassandra.Device) string { return d.FleetID }))
	}
	// The reader stops one row beyond the limit, so the number of all devices is unknown.
	rows = limitRows(x, rows, &q.Common, "Only the first %[1]d devices: the row limit.")
	if err := takeCells(ctx, len(rows), deviceFields); err != nil {
		return err
	}
	return x.show(frames.Devices(rows, x.links))
}

// geofences returns the geofences of fleets.
func (x *execution) geofences(ctx context.Context, q *query.Geofences) error {
	geofences, fleets, err := x.selectGeofences(ctx, q)
	if err != nil {
		return err
	}
	if q.Format == query.FormatNumeric {
		return x.show(frames.CountsByFleet("geofences", fleets, geofences, func(g *cassandra.Geofence) string { return g.FleetID }))
	}
	return x.show(frames.Geofences(limitRows(x, geofences, &q.Common, "Only the first %d of %d geofences: the row limit.")))
}

func (x *execution) selectGeofences(ctx context.Context, q *query.Geofences) ([]cassandra.Geofence, []string, error) {
	fleets, parts, err := forEachFleet(ctx, x, &q.Common, 1, x.reader.Geofences)
	if err != nil {
		return nil, nil, err
	}
	anyName := anyOf(q.Zones)
	geofences, err := gather(ctx, parts, func(g *cassandra.Geofence) bool {
		return anyName(g.Name) && query.MatchFleet(q.Filters, g.FleetID)
	})
	bytes := len(geofences) * geofenceFields * memory.CellBytes
	for i := range geofences {
		bytes += 2 * len(geofences[i].Geometry) // encoded
	}
	return geofences, fleets, cmp.Or(err, memory.Take(ctx, bytes))
}

// Geofences returns the geofences that a query selects, for map layers.
func (e *Executor) Geofences(ctx context.Context, q *query.Geofences) ([]cassandra.Geofence, error) {
	if err := e.Authorize(q); err != nil {
		return nil, err
	}
	geofences, _, err := (&execution{Executor: e}).selectGeofences(ctx, q)
	return geofences, err
}

// variable returns the values of a dashboard variable.
func (x *execution) variable(ctx context.Context, q *query.Variable) error {
	values, err := x.values(ctx, q)
	if err != nil {
		return err
	}
	return x.show(frames.Values(limitRows(x, values, &q.Common, "Only the first %d of %d values: the row limit.")))
}

// Values returns the values of a dashboard variable, for suggestions.
func (e *Executor) Values(ctx context.Context, q *query.Variable) ([]string, error) {
	if err := e.Authorize(q); err != nil {
		return nil, err
	}
	return (&execution{Executor: e}).values(ctx, q)
}

// valueBytes estimates the size of a value of a variable, and of its two fields.
const valueBytes = 200

func (x *execution) values(ctx context.Context, q *query.Variable) ([]string, error) {
	partitions := 1 // of each fleet
	var read func(ctx context.Context, fleet string) ([]string, error)
	switch q.Kind {
	case query.VariableSeverities:
		return cassandra.Severities, nil
	case query.VariableStates:
		return query.States, nil
	case query.VariableFleets:
		return x.fleetsOf(ctx, &q.Common)
	case query.VariableDevices:
		read = func(ctx context.Context, fleet string) ([]string, error) {
			rows, err := x.reader.Devices(ctx, fleet)
			return distinct(rows, func(d *cassandra.Device) string { return d.DeviceID }), err
		}
	case query.VariableZones: // the configured geofences, and those in the latest records
		partitions += cassandra.FleetBuckets
		read = func(ctx context.Context, fleet string) ([]string, error) {
			geofences, err := x.reader.Geofences(ctx, fleet)
			if err != nil {
				return nil, err
			}
			latest, err := x.reader.Latest(ctx, fleet)
			visited := distinct(latest, func(t *cassandra.Telemetry) string { return t.Zone })
			return append(visited, distinct(geofences, func(g *cassandra.Geofence) string { return g.Name })...), err
		}
	default: // the types of the alerts in the time range
		days := x.days(q.From, q.To, x.settings.MaxPartitions/len(cassandra.Severities))
		partitions = len(days) * len(cassandra.Severities)
		read = func(ctx context.Context, fleet string) ([]string, error) {
			rows, err := x.reader.Alerts(ctx, cassandra.AlertQuery{FleetID: fleet, From: days[0].Time(), To: q.To, Limit: x.settings.MaxRows})
			return distinct(rows, func(a *cassandra.Alert) string { return a.Type }), err
		}
	}
	_, parts, err := forEachFleet(ctx, x, &q.Common, partitions, func(ctx context.Context, fleet string) ([]string, error) {
		rowsCtx, release := memory.Scope(ctx)
		defer release()
		values, err := read(rowsCtx, fleet)
		return values, cmp.Or(err, memory.Take(ctx, len(values)*valueBytes))
	})
	values := slices.Concat(parts...)
	slices.Sort(values)
	return slices.Compact(values), err
}

// distinct returns the different texts of rows, without the empty text.
func distinct[T any](rows []T, text func(*T) string) []string {
	seen := map[string]bool{"": true}
	var different []string
	for i := range rows {
		if t := text(&rows[i]); !seen[t] {
			seen[t] = true
			different = append(different, t)
		}
	}
	return different
}

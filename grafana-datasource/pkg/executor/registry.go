package executor

import (
	"context"
	"slices"

	"github.com/grafana/grafana-plugin-sdk-go/data"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/reader"
)

// devices returns the registered devices of fleets.
func (x *execution) devices(ctx context.Context, q *query.Devices) error {
	fleets, err := x.plannedFleets(ctx, &q.Common, 1)
	if err != nil {
		return err
	}
	rows, err := x.readDevices(ctx, fleets)
	if err != nil {
		return err
	}
	rows = slices.DeleteFunc(rows, func(d cassandra.Device) bool {
		return !allows(q.Devices, d.DeviceID) || !query.Match(q.Filters, func(key string) (query.Cell, bool) {
			switch key {
			case "device_id":
				return query.Text(d.DeviceID), true
			case "fleet_id":
				return query.Text(d.FleetID), true
			}
			return query.Cell{}, false
		})
	})
	if q.Format == query.FormatNumeric {
		x.Frames = data.Frames{frames.CountsByFleet("devices", fleets, rows, func(d *cassandra.Device) string { return d.FleetID })}
		return nil
	}
	// The reader stops one row beyond the limit, so the number of all devices is unknown.
	x.Frames = data.Frames{frames.Devices(limitRows(x, rows, &q.Common, "Only the first %[1]d devices: the row limit."), x.links)}
	return nil
}

// fleets returns the fleets and the number of their vehicles in each state.
func (x *execution) fleets(ctx context.Context, q *query.Fleets) error {
	fleets, err := x.fleetsOf(ctx, &q.Common)
	if err != nil {
		return err
	}
	fleets = slices.DeleteFunc(slices.Clone(fleets), func(fleet string) bool { return !query.MatchFleet(q.Filters, fleet) })
	fleets = limitRows(x, x.limitFleets(fleets, cassandra.FleetBuckets), &q.Common, "Only the first %d of %d fleets: the row limit.")
	summaries, err := forEachFleet(ctx, fleets, func(ctx context.Context, fleet string) (frames.FleetSummary, error) {
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
		x.Frames = data.Frames{frames.FleetCounts(summaries)}
		return nil
	}
	x.Frames = data.Frames{frames.Fleets(summaries)}
	return nil
}

// geofences returns the geofences of fleets.
func (x *execution) geofences(ctx context.Context, q *query.Geofences) error {
	geofences, fleets, err := x.selectGeofences(ctx, q)
	if err != nil {
		return err
	}
	if q.Format == query.FormatNumeric {
		x.Frames = data.Frames{frames.CountsByFleet("geofences", fleets, geofences, func(g *cassandra.Geofence) string { return g.FleetID })}
		return nil
	}
	x.Frames = data.Frames{frames.Geofences(limitRows(x, geofences, &q.Common, "Only the first %d of %d geofences: the row limit."))}
	return nil
}

func (x *execution) selectGeofences(ctx context.Context, q *query.Geofences) ([]cassandra.Geofence, []string, error) {
	fleets, err := x.plannedFleets(ctx, &q.Common, 1)
	if err != nil {
		return nil, nil, err
	}
	geofences, err := x.readGeofences(ctx, fleets)
	return slices.DeleteFunc(geofences, func(g cassandra.Geofence) bool {
		return !allows(q.Zones, g.Name) || !query.MatchFleet(q.Filters, g.FleetID)
	}), fleets, err
}

// variable returns the values of a dashboard variable.
func (x *execution) variable(ctx context.Context, q *query.Variable) error {
	values, err := x.values(ctx, q)
	if err != nil {
		return err
	}
	x.Frames = data.Frames{frames.Values(limitRows(x, values, &q.Common, "Only the first %d of %d values: the row limit."))}
	return nil
}

func (x *execution) values(ctx context.Context, q *query.Variable) ([]string, error) {
	switch q.Kind {
	case query.VariableSeverities:
		return cassandra.Severities, nil
	case query.VariableStates:
		return query.States, nil
	case query.VariableFleets:
		return x.fleetsOf(ctx, &q.Common)
	case query.VariableDevices:
		fleets, err := x.plannedFleets(ctx, &q.Common, 1)
		if err != nil {
			return nil, err
		}
		rows, err := x.readDevices(ctx, fleets)
		return distinct(rows, func(d *cassandra.Device) string { return d.DeviceID }), err
	case query.VariableZones:
		return x.geofenceNames(ctx, q)
	default:
		return x.alertTypes(ctx, q)
	}
}

// geofenceNames returns the names of the configured geofences, and of the geofences in the latest records.
func (x *execution) geofenceNames(ctx context.Context, q *query.Variable) ([]string, error) {
	fleets, err := x.plannedFleets(ctx, &q.Common, cassandra.FleetBuckets+1)
	if err != nil {
		return nil, err
	}
	var geofences []cassandra.Geofence
	var latest []cassandra.Telemetry
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() (err error) {
		defer reader.CatchPanic(&err)
		geofences, err = x.readGeofences(ctx, fleets)
		return err
	})
	g.Go(func() (err error) {
		defer reader.CatchPanic(&err)
		latest, err = x.readLatest(ctx, fleets)
		return err
	})
	err = g.Wait()
	configured := distinct(geofences, func(g *cassandra.Geofence) string { return g.Name })
	visited := distinct(latest, func(t *cassandra.Telemetry) string { return t.Zone })
	names := append(configured, visited...)
	slices.Sort(names)
	return slices.Compact(names), err
}

// alertTypes returns the types of the alerts in the time range.
func (x *execution) alertTypes(ctx context.Context, q *query.Variable) ([]string, error) {
	days := x.days(q.From, q.To, x.settings.MaxPartitions/len(cassandra.Severities))
	fleets, err := x.plannedFleets(ctx, &q.Common, len(days)*len(cassandra.Severities))
	if err != nil {
		return nil, err
	}
	parts, err := forEachFleet(ctx, fleets, func(ctx context.Context, fleet string) ([]cassandra.Alert, error) {
		return x.reader.Alerts(ctx, cassandra.AlertQuery{FleetID: fleet, From: days[0].Time(), To: q.To, Limit: x.settings.MaxRows})
	})
	return distinct(slices.Concat(parts...), func(a *cassandra.Alert) string { return a.Type }), err
}

// distinct returns the different texts of rows, sorted, without the empty text.
func distinct[T any](rows []T, text func(*T) string) []string {
	seen := map[string]bool{"": true}
	values := []string{}
	for i := range rows {
		if v := text(&rows[i]); !seen[v] {
			seen[v] = true
			values = append(values, v)
		}
	}
	slices.Sort(values)
	return values
}

// Values returns the values of a dashboard variable, for suggestions.
func (e *Executor) Values(ctx context.Context, q *query.Variable) ([]string, error) {
	if err := e.Authorize(q); err != nil {
		return nil, err
	}
	return (&execution{Executor: e}).values(ctx, q)
}

// Geofences returns the geofences that a query selects, for map layers.
func (e *Executor) Geofences(ctx context.Context, q *query.Geofences) ([]cassandra.Geofence, error) {
	if err := e.Authorize(q); err != nil {
		return nil, err
	}
	geofences, _, err := (&execution{Executor: e}).selectGeofences(ctx, q)
	return geofences, err
}

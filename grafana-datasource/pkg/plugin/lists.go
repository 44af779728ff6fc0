package plugin

import (
	"context"
	"encoding/json"
	"slices"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"
	"golang.org/x/sync/errgroup"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// devices answers with the lists of devices of fleets.
func (d *Datasource) devices(ctx context.Context, q *query, c *cost) (answer, error) {
	var a answer
	fleets, err := d.fleetsOf(ctx, q, c)
	if err != nil {
		return a, err
	}
	fleets = d.within(fleets, 1, &a)
	most := q.rowLimit(&d.settings)
	parts, err := each(ctx, fleets, func(ctx context.Context, fleet string) ([]cassandra.Device, error) {
		return d.reader.devices(ctx, c, fleet, d.settings.maxRows)
	})
	if err != nil {
		return a, err
	}
	rows := slices.DeleteFunc(slices.Concat(parts...), func(v cassandra.Device) bool {
		return len(q.Devices) > 0 && !slices.Contains(q.Devices, v.DeviceID) || !passes(q.Filters, func(key string) (cell, bool) {
			switch key {
			case "device_id":
				return textCell(v.DeviceID), true
			case "fleet_id":
				return textCell(v.FleetID), true
			}
			return cell{}, false
		})
	})
	if q.Format == formatNumeric {
		a.frames = data.Frames{countsByFleet("devices", fleets, rows, func(v *cassandra.Device) string { return v.FleetID })}
		return a, nil
	}
	if len(rows) > most {
		a.cut("Only the first %d devices: the limit of rows.", most)
		rows = rows[:most]
	}
	n := len(rows)
	fleet, device, model, status, since := make([]string, n), make([]string, n), make([]*string, n), make([]string, n), make([]*time.Time, n)
	for i := range rows {
		r := &rows[i]
		fleet[i], device[i], status[i] = r.FleetID, r.DeviceID, string(r.Status)
		if r.Model != "" {
			model[i] = &r.Model
		}
		if !r.ActivatedAt.IsZero() {
			since[i] = &r.ActivatedAt
		}
	}
	vehicle := field("device_id", nil, device)
	vehicle.Config.Links = []data.DataLink{d.trackLink("Track of ${__value.raw}", "${__value.raw}")}
	state := field("status", nil, status)
	state.Config.Mappings = nil // of a registration, not of a vehicle on the road
	a.frames = data.Frames{table("devices", field("fleet_id", nil, fleet), vehicle, field("model", nil, model), field("activated_at", nil, since), state)}
	return a, nil
}

// countsByFleet counts rows for a rule, by fleet; fleets are sorted, and those without any count zero.
func countsByFleet[T any](name string, fleets []string, rows []T, fleetOf func(*T) string) *data.Frame {
	counts := make([]int64, len(fleets))
	for i := range rows {
		at, _ := slices.BinarySearch(fleets, fleetOf(&rows[i]))
		counts[at]++
	}
	return numeric(name, field("fleet_id", nil, fleets), field("count", nil, counts))
}

// fleets answers with the fleets and how their vehicles are.
func (d *Datasource) fleets(ctx context.Context, q *query, c *cost) (answer, error) {
	var a answer
	fleets, err := d.fleetsOf(ctx, q, c)
	if err != nil {
		return a, err
	}
	fleets = slices.DeleteFunc(slices.Clone(fleets), func(fleet string) bool { return !passes(q.Filters, fleetColumn(fleet)) })
	fleets = d.within(fleets, cassandra.FleetBuckets, &a)
	if most := q.rowLimit(&d.settings); len(fleets) > most {
		a.cut("Only the first %d of %d fleets: the limit of rows.", most, len(fleets))
		fleets = fleets[:most]
	}
	parts, err := each(ctx, fleets, func(ctx context.Context, fleet string) ([]vehicle, error) {
		rows, err := d.reader.latest(ctx, c, fleet)
		return d.vehicles(rows, &model{}), err
	})
	if err != nil {
		return a, err
	}
	counts := make([][]int64, 1+len(states))
	for j := range counts {
		counts[j] = make([]int64, len(fleets))
	}
	newest := make([]*time.Time, len(fleets))
	for i, vehicles := range parts {
		counts[0][i] = int64(len(vehicles))
		for j := range vehicles {
			counts[1+slices.Index(states, vehicles[j].state)][i]++
			if ts := vehicles[j].Ts; newest[i] == nil || ts.After(*newest[i]) {
				newest[i] = &ts
			}
		}
	}
	fields := []*data.Field{field("fleet_id", nil, fleets), field("vehicles", nil, counts[0])}
	for j, state := range states {
		fields = append(fields, field(state, nil, counts[1+j]))
	}
	if q.Format == formatNumeric {
		a.frames = data.Frames{numeric("fleets", fields...)}
		return a, nil
	}
	a.frames = data.Frames{table("fleets", append(fields, field("newest_ts", nil, newest))...)}
	return a, nil
}

// geofences answers with the zones of fleets.
func (d *Datasource) geofences(ctx context.Context, q *query, c *cost) (answer, error) {
	var a answer
	zones, fleets, err := d.zonesOf(ctx, q, c, &a)
	if err != nil {
		return a, err
	}
	if q.Format == formatNumeric {
		a.frames = data.Frames{countsByFleet("geofences", fleets, zones, func(z *cassandra.Geofence) string { return z.FleetID })}
		return a, nil
	}
	if most := q.rowLimit(&d.settings); len(zones) > most {
		a.cut("Only the first %d of %d zones: the limit of rows.", most, len(zones))
		zones = zones[:most]
	}
	n := len(zones)
	fleet, name, kind, geometry := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	lat, lon, radius, limit, dwell := make([]*float64, n), make([]*float64, n), make([]*float64, n), make([]*float64, n), make([]*int32, n)
	for i := range zones {
		z := &zones[i]
		fleet[i], name[i], kind[i], geometry[i] = z.FleetID, z.Name, z.Kind, z.Geometry
		lat[i], lon[i] = centre(z.Geometry)
		radius[i], limit[i], dwell[i] = z.RadiusM, z.SpeedLimitKmh, z.DwellS
	}
	a.frames = data.Frames{table("geofences", field("fleet_id", nil, fleet), field("name", nil, name), field("kind", nil, kind),
		field("lat", nil, lat), field("lon", nil, lon), field("radius_m", nil, radius), field("speed_limit_kmh", nil, limit), field("dwell_s", nil, dwell),
		field("geometry", nil, geometry))}
	return a, nil
}

func (d *Datasource) zonesOf(ctx context.Context, q *query, c *cost, a *answer) ([]cassandra.Geofence, []string, error) {
	fleets, err := d.fleetsOf(ctx, q, c)
	if err != nil {
		return nil, nil, err
	}
	fleets = d.within(fleets, 1, a)
	parts, err := each(ctx, fleets, func(ctx context.Context, fleet string) ([]cassandra.Geofence, error) {
		return d.reader.geofences(ctx, c, fleet)
	})
	zones := slices.DeleteFunc(slices.Concat(parts...), func(z cassandra.Geofence) bool {
		return len(q.Zones) > 0 && !slices.Contains(q.Zones, z.Name) || !passes(q.Filters, fleetColumn(z.FleetID))
	})
	return zones, fleets, err
}

// variable answers with the values of a dashboard's variable.
func (d *Datasource) variable(ctx context.Context, q *query, c *cost) (answer, error) {
	var a answer
	values, err := d.values(ctx, q, c, &a)
	if err != nil {
		return a, err
	}
	if most := q.rowLimit(&d.settings); len(values) > most {
		a.cut("Only the first %d of %d values: the limit of rows.", most, len(values))
		values = values[:most]
	}
	a.frames = data.Frames{table("values", data.NewField("value", nil, values), data.NewField("text", nil, values))}
	return a, nil
}

func (d *Datasource) values(ctx context.Context, q *query, c *cost, a *answer) ([]string, error) {
	switch q.Variable {
	case "severities":
		return cassandra.Severities, nil
	case "states":
		return states, nil
	}
	fleets, err := d.fleetsOf(ctx, q, c)
	if err != nil || q.Variable == "fleets" {
		return fleets, err
	}
	switch q.Variable {
	case "devices":
		fleets = d.within(fleets, 1, a)
		parts, err := each(ctx, fleets, func(ctx context.Context, fleet string) ([]cassandra.Device, error) {
			return d.reader.devices(ctx, c, fleet, d.settings.maxRows)
		})
		return distinct(parts, func(v *cassandra.Device) string { return v.DeviceID }), err
	case "zones":
		fleets = d.within(fleets, cassandra.FleetBuckets+1, a)
		var found, drawn []string
		g, ctx := errgroup.WithContext(ctx)
		g.Go(func() error {
			parts, err := each(ctx, fleets, func(ctx context.Context, fleet string) ([]cassandra.Telemetry, error) {
				return d.reader.latest(ctx, c, fleet)
			})
			found = distinct(parts, func(v *cassandra.Telemetry) string { return v.Zone })
			return err
		})
		g.Go(func() error {
			parts, err := each(ctx, fleets, func(ctx context.Context, fleet string) ([]cassandra.Geofence, error) {
				return d.reader.geofences(ctx, c, fleet)
			})
			drawn = distinct(parts, func(v *cassandra.Geofence) string { return v.Name })
			return err
		})
		err := g.Wait()
		zones := append(found, drawn...)
		slices.Sort(zones)
		return slices.Compact(zones), err
	default: // alert types, of the time range
		days := daysOf(q.from, q.to, max(d.settings.maxPartitions/len(cassandra.Severities), 1), a)
		fleets = d.within(fleets, len(days)*len(cassandra.Severities), a)
		parts, err := each(ctx, fleets, func(ctx context.Context, fleet string) ([]cassandra.Alert, error) {
			return d.reader.alerts(ctx, c, cassandra.AlertQuery{FleetID: fleet, From: days[0].Time(), To: q.to, Limit: d.settings.maxRows})
		})
		return distinct(parts, func(v *cassandra.Alert) string { return v.Type }), err
	}
}

// distinct gives the different texts of rows, sorted, without the empty one.
func distinct[T any](parts [][]T, text func(*T) string) []string {
	seen := map[string]bool{}
	values := []string{}
	for _, part := range parts {
		for i := range part {
			if v := text(&part[i]); v != "" && !seen[v] {
				seen[v] = true
				values = append(values, v)
			}
		}
	}
	slices.Sort(values)
	return values
}

// geometry is a GeoJSON geometry of the kinds that zones have.
type geometry struct {
	Type        string          `json:"type"`
	Coordinates json.RawMessage `json:"coordinates"`
}

// centre is the point of a circle, or the middle of a polygon's outline, of several that of the largest; nil where the
// geometry is none of these.
func centre(text string) (lat, lon *float64) {
	var g geometry
	if json.Unmarshal([]byte(text), &g) != nil {
		return nil, nil
	}
	var point []float64
	var parts [][][][]float64
	switch g.Type {
	case "Point":
		if json.Unmarshal(g.Coordinates, &point) != nil || len(point) < 2 {
			return nil, nil
		}
		return &point[1], &point[0]
	case "Polygon":
		parts = make([][][][]float64, 1)
		if json.Unmarshal(g.Coordinates, &parts[0]) != nil {
			return nil, nil
		}
	case "MultiPolygon":
		if json.Unmarshal(g.Coordinates, &parts) != nil {
			return nil, nil
		}
	}
	largest := 0.0
	for _, rings := range parts {
		if len(rings) == 0 || len(rings[0]) == 0 {
			return nil, nil
		}
		west, east, south, north := 180.0, -180.0, 90.0, -90.0
		for _, p := range rings[0] {
			if len(p) < 2 {
				return nil, nil
			}
			west, east, south, north = min(west, p[0]), max(east, p[0]), min(south, p[1]), max(north, p[1])
		}
		if size := (east - west) * (north - south); lat == nil || size > largest {
			y, x := (south+north)/2, (west+east)/2
			lat, lon, largest = &y, &x, size
		}
	}
	return lat, lon
}

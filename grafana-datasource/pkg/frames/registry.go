package frames

import (
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/geojson"
)

// Devices makes a table of registered devices.
func Devices(rows []cassandra.Device, links Links) *data.Frame {
	status := field("status", nil, values(rows, func(d *cassandra.Device) string { return string(d.Status) }))
	status.Config.Mappings = nil // the status of the registration, which is not a vehicle state
	return table("devices",
		field("fleet_id", nil, values(rows, func(d *cassandra.Device) string { return d.FleetID })),
		links.deviceField(values(rows, func(d *cassandra.Device) string { return d.DeviceID })),
		field("model", nil, values(rows, func(d *cassandra.Device) *string { return nonZero(&d.Model) })),
		field("activated_at", nil, values(rows, func(d *cassandra.Device) *time.Time { return nonZero(&d.ActivatedAt) })),
		status)
}

// nonZero returns v, or nil for a zero value.
func nonZero[T comparable](v *T) *T {
	var zero T
	if *v == zero {
		return nil
	}
	return v
}

// Geofences makes a table of geofences.
func Geofences(rows []cassandra.Geofence) *data.Frame {
	lat, lon := make([]*float64, len(rows)), make([]*float64, len(rows))
	for i := range rows {
		lat[i], lon[i] = geojson.Center(rows[i].Geometry)
	}
	return table("geofences",
		field("fleet_id", nil, values(rows, func(g *cassandra.Geofence) string { return g.FleetID })),
		field("name", nil, values(rows, func(g *cassandra.Geofence) string { return g.Name })),
		field("kind", nil, values(rows, func(g *cassandra.Geofence) string { return g.Kind })),
		field("lat", nil, lat), field("lon", nil, lon),
		field("radius_m", nil, values(rows, func(g *cassandra.Geofence) *float64 { return g.RadiusM })),
		field("speed_limit_kmh", nil, values(rows, func(g *cassandra.Geofence) *float64 { return g.SpeedLimitKmh })),
		field("dwell_s", nil, values(rows, func(g *cassandra.Geofence) *int32 { return g.DwellS })),
		field("geometry", nil, values(rows, func(g *cassandra.Geofence) string { return g.Geometry })))
}

// CountsByFleet makes the frame of an alert rule that counts rows by fleet. A fleet without rows counts zero.
func CountsByFleet[T any](name string, fleets []string, rows []T, fleetOf func(*T) string) *data.Frame {
	counted := map[string]int64{}
	for i := range rows {
		counted[fleetOf(&rows[i])]++
	}
	return numeric(name, field("fleet_id", nil, fleets), field("count", nil, values(fleets, func(fleet *string) int64 { return counted[*fleet] })))
}

// Values makes the frame of a dashboard variable.
func Values(values []string) *data.Frame {
	return table("values", data.NewField("value", nil, values), data.NewField("text", nil, values))
}

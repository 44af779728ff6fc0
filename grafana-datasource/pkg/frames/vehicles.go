package frames

import (
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

// Vehicle is the latest record of a vehicle, with its age and the state that follows from both.
type Vehicle struct {
	*cassandra.Telemetry
	AgeS  float64
	State string
}

// Links builds the data links of frames.
type Links struct{ UID, Name string } // of the data source

// track opens the track of the vehicle that a field names in Explore.
func (l Links) track() []data.DataLink {
	return []data.DataLink{{Title: "Track of ${__value.raw}", Internal: &data.InternalDataLink{
		DatasourceUID: l.UID, DatasourceName: l.Name,
		Query: map[string]any{
			"refId": "A", "queryType": query.TypeTrack, "devices": []string{"${__value.raw}"}, "fields": []string{"speed_kmh"}, "format": query.FormatTimeSeries,
		},
	}}}
}

func (l Links) deviceField(devices []string) *data.Field {
	f := field("device_id", nil, devices)
	f.Config.Links = l.track()
	return f
}

// Vehicles makes the frame of a map. A position may be null: Grafana does not draw a null, but it would draw a zero.
func Vehicles(rows []Vehicle, links Links) *data.Frame {
	n := len(rows)
	lat, lon := make([]*float64, n), make([]*float64, n)
	for i := range rows {
		if v := rows[i].Telemetry; v.Lat != 0 || v.Lon != 0 { // 0, 0 is never stored: it stands for null
			lat[i], lon[i] = &v.Lat, &v.Lon
		}
	}
	f := table("vehicles",
		links.deviceField(values(rows, func(v *Vehicle) string { return v.DeviceID })),
		field("fleet_id", nil, values(rows, func(v *Vehicle) string { return v.FleetID })),
		field("status", nil, values(rows, func(v *Vehicle) string { return v.State })),
		field("lat", nil, lat), field("lon", nil, lon),
		field("heading_deg", nil, values(rows, func(v *Vehicle) *float64 { return v.HeadingDeg })),
		field("speed_kmh", nil, values(rows, func(v *Vehicle) *float64 { return v.SpeedKmh })),
		field("battery_pct", nil, values(rows, func(v *Vehicle) *int32 { return v.BatteryPct })),
		field("temp_c", nil, values(rows, func(v *Vehicle) *float64 { return v.TempC })),
		field("zone", nil, values(rows, func(v *Vehicle) string { return v.Zone })),
		field("last_ts", nil, values(rows, func(v *Vehicle) time.Time { return v.Ts })),
		field("age_s", nil, values(rows, func(v *Vehicle) float64 { return v.AgeS })))
	f.Meta.UniqueRowIDFields = []int{0}
	return f
}

// VehicleMeasures makes the frame of an alert rule. Only the device and the fleet are labels: with the geofence among
// them, a vehicle that moves on would raise a new alert.
func VehicleMeasures(rows []Vehicle, fields []string) *data.Frame {
	f := numeric("vehicles",
		field("device_id", nil, values(rows, func(v *Vehicle) string { return v.DeviceID })),
		field("fleet_id", nil, values(rows, func(v *Vehicle) string { return v.FleetID })))
	for _, name := range fields {
		f.Fields = append(f.Fields, field(name, nil, values(rows, measures[name])))
	}
	return f
}

var measures = map[string]func(*Vehicle) *float64{
	"age_s":       func(v *Vehicle) *float64 { return &v.AgeS },
	"speed_kmh":   func(v *Vehicle) *float64 { return v.SpeedKmh },
	"battery_pct": (*Vehicle).Battery,
	"temp_c":      func(v *Vehicle) *float64 { return v.TempC },
}

// Battery returns the battery charge in percent, or nil.
func (v *Vehicle) Battery() *float64 {
	if v.BatteryPct == nil {
		return nil
	}
	pct := float64(*v.BatteryPct)
	return &pct
}

// FleetSummary is the number of vehicles of a fleet, by state, and the time of its latest record.
type FleetSummary struct {
	Fleet    string
	Vehicles int64
	ByState  map[string]int64
	NewestTs *time.Time
}

func fleetFields(rows []FleetSummary) []*data.Field {
	fields := []*data.Field{
		field("fleet_id", nil, values(rows, func(f *FleetSummary) string { return f.Fleet })),
		field("vehicles", nil, values(rows, func(f *FleetSummary) int64 { return f.Vehicles })),
	}
	for _, state := range query.States {
		fields = append(fields, field(state, nil, values(rows, func(f *FleetSummary) int64 { return f.ByState[state] })))
	}
	return fields
}

// Fleets makes a table of fleets.
func Fleets(rows []FleetSummary) *data.Frame {
	return table("fleets", append(fleetFields(rows), field("newest_ts", nil, values(rows, func(f *FleetSummary) *time.Time { return f.NewestTs })))...)
}

// FleetCounts makes the frame of an alert rule on fleets.
func FleetCounts(rows []FleetSummary) *data.Frame { return numeric("fleets", fleetFields(rows)...) }

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
		lat[i], lon[i] = center(rows[i].Geometry)
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

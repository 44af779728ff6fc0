package plugin

import (
	"context"
	"slices"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// latest answers with all vehicles of the fleets in one frame: a map draws no other.
func (d *Datasource) latest(ctx context.Context, q *query, c *cost) (answer, error) {
	var a answer
	fleets, err := d.fleetsOf(ctx, q, c)
	if err != nil {
		return a, err
	}
	fleets = d.within(fleets, cassandra.FleetBuckets, &a)
	parts, err := each(ctx, fleets, func(ctx context.Context, fleet string) ([]cassandra.Telemetry, error) {
		return d.reader.latest(ctx, c, fleet)
	})
	if err != nil {
		return a, err
	}
	rows := d.vehicles(slices.Concat(parts...), &q.model)
	if most := q.rowLimit(&d.settings); len(rows) > most {
		a.cut("Only %d of %d vehicles: the limit of rows. Raise the limit, or filter.", most, len(rows))
		rows = rows[:most]
	}
	if q.Format == formatNumeric {
		a.frames = data.Frames{latestNumeric(rows, q.fields("age_s"))}
		return a, nil
	}
	frame := d.latestFrame(rows)
	if q.Live {
		switch channel, ok := d.channel(fleets, &q.model); {
		case len(fleets) != 1:
			frame.AppendNotices(data.Notice{Severity: data.NoticeSeverityInfo, Text: "Live needs a single fleet; the panel's refresh is used."})
		case !ok:
			frame.AppendNotices(data.Notice{Severity: data.NoticeSeverityInfo, Text: "Live has no room for so many conditions; the panel's refresh is used."})
		default:
			frame.Meta.Channel = channel
		}
	}
	a.frames = data.Frames{frame}
	return a, nil
}

// vehicle is a newest fix and what it says of the vehicle now.
type vehicle struct {
	*cassandra.Telemetry
	ageS  float64
	state string
}

// vehicles filters the newest fixes of fleets.
func (d *Datasource) vehicles(rows []cassandra.Telemetry, m *model) []vehicle {
	now := d.now()
	kept := make([]vehicle, 0, len(rows))
	for i := range rows {
		t := &rows[i]
		age := max(now.Sub(t.Ts), 0)
		v := vehicle{Telemetry: t, ageS: age.Truncate(time.Millisecond).Seconds(), state: d.state(t, age)}
		if v.passes(m) {
			kept = append(kept, v)
		}
	}
	return kept
}

// state tells how a vehicle is, by its newest fix.
func (d *Datasource) state(t *cassandra.Telemetry, age time.Duration) string {
	switch {
	case age > d.settings.offlineAfter:
		return stateOffline
	case age > d.settings.staleAfter:
		return stateStale
	case t.SpeedKmh != nil && *t.SpeedKmh >= d.settings.movingAboveKmh:
		return stateMoving
	default:
		return stateIdle
	}
}

// passes tells whether a vehicle is one that the query asks for. A value that is not known lies in no range.
func (v *vehicle) passes(m *model) bool {
	if len(m.States) > 0 && !slices.Contains(m.States, v.state) ||
		len(m.Zones) > 0 && !slices.Contains(m.Zones, v.Zone) ||
		len(m.Devices) > 0 && !slices.Contains(m.Devices, v.DeviceID) {
		return false
	}
	battery := toFloat(v.BatteryPct)
	if outside(v.SpeedKmh, m.MinSpeedKmh, m.MaxSpeedKmh) || outside(battery, m.MinBatteryPct, m.MaxBatteryPct) {
		return false
	}
	return passes(m.Filters, func(key string) (cell, bool) {
		switch key {
		case "device_id":
			return textCell(v.DeviceID), true
		case "fleet_id":
			return textCell(v.FleetID), true
		case "status":
			return textCell(v.state), true
		case "zone":
			return textCell(v.Zone), true
		case "speed_kmh":
			return numberCell(v.SpeedKmh), true
		case "battery_pct":
			return numberCell(battery), true
		case "temp_c":
			return numberCell(v.TempC), true
		case "age_s":
			return numberCell(&v.ageS), true
		}
		return cell{}, false
	})
}

func outside(value, least, most *float64) bool {
	if least == nil && most == nil {
		return false
	}
	return value == nil || least != nil && *value < *least || most != nil && *value > *most
}

func toFloat(v *int32) *float64 {
	if v == nil {
		return nil
	}
	f := float64(*v)
	return &f
}

// latestFrame makes the frame of a map. Positions may be absent: a null is not drawn, where a zero would be.
func (d *Datasource) latestFrame(rows []vehicle) *data.Frame {
	n := len(rows)
	device, fleet, state, zone := make([]string, n), make([]string, n), make([]string, n), make([]string, n)
	lat, lon, heading, speed, temp := make([]*float64, n), make([]*float64, n), make([]*float64, n), make([]*float64, n), make([]*float64, n)
	battery := make([]*int32, n)
	ts, age := make([]time.Time, n), make([]float64, n)
	for i := range rows {
		v := &rows[i]
		device[i], fleet[i], state[i], zone[i] = v.DeviceID, v.FleetID, v.state, v.Zone
		if v.Lat != 0 || v.Lon != 0 { // no record with a zero position is ever stored: it is a null
			lat[i], lon[i] = &v.Lat, &v.Lon
		}
		heading[i], speed[i], temp[i], battery[i] = v.HeadingDeg, v.SpeedKmh, v.TempC, v.BatteryPct
		ts[i], age[i] = v.Ts, v.ageS
	}
	vehicleField := field("device_id", nil, device)
	vehicleField.Config.Links = []data.DataLink{d.trackLink("Track of ${__value.raw}", "${__value.raw}")}
	frame := table("vehicles",
		vehicleField, field("fleet_id", nil, fleet), field("status", nil, state),
		field("lat", nil, lat), field("lon", nil, lon), field("heading_deg", nil, heading),
		field("speed_kmh", nil, speed), field("battery_pct", nil, battery), field("temp_c", nil, temp),
		field("zone", nil, zone), field("last_ts", nil, ts), field("age_s", nil, age))
	frame.Meta.UniqueRowIDFields = []int{0}
	return frame
}

// trackLink opens the track of a vehicle in Explore.
func (d *Datasource) trackLink(title, device string) data.DataLink {
	return data.DataLink{Title: title, Internal: &data.InternalDataLink{
		DatasourceUID: d.uid, DatasourceName: d.name,
		Query: map[string]any{"refId": "A", "queryType": typeTrack, "devices": []string{device}, "fields": []string{"speed_kmh"}, "format": formatTimeSeries},
	}}
}

// latestNumeric is the measures of vehicles for a rule. Only names that last are labels: with a zone among them, a
// vehicle that moves on would be another.
func latestNumeric(rows []vehicle, fields []string) *data.Frame {
	n := len(rows)
	device, fleet := make([]string, n), make([]string, n)
	measures := make([][]*float64, len(fields))
	for j := range measures {
		measures[j] = make([]*float64, n)
	}
	for i := range rows {
		v := &rows[i]
		device[i], fleet[i] = v.DeviceID, v.FleetID
		for j, name := range fields {
			switch name {
			case "age_s":
				measures[j][i] = &v.ageS
			case "speed_kmh":
				measures[j][i] = v.SpeedKmh
			case "battery_pct":
				measures[j][i] = toFloat(v.BatteryPct)
			case "temp_c":
				measures[j][i] = v.TempC
			}
		}
	}
	frame := numeric("vehicles", field("device_id", nil, device), field("fleet_id", nil, fleet))
	for j, name := range fields {
		frame.Fields = append(frame.Fields, field(name, nil, measures[j]))
	}
	return frame
}

package executor

import (
	"context"
	"slices"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/frames"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

// latest returns all vehicles of the fleets in one frame, because a map draws only one.
func (x *execution) latest(ctx context.Context, q *query.Latest) error {
	fleets, err := x.plannedFleets(ctx, &q.Common, cassandra.FleetBuckets)
	if err != nil {
		return err
	}
	rows, err := x.readLatest(ctx, fleets)
	if err != nil {
		return err
	}
	vehicles := limitRows(x, x.selectVehicles(rows, q), &q.Common, "Only %d of %d vehicles: the row limit. Raise the limit, or add a filter.")
	if q.Format == query.FormatNumeric {
		x.Frames = data.Frames{frames.VehicleMeasures(vehicles, q.SelectedFields())}
		return nil
	}
	frame := frames.Vehicles(vehicles, x.links)
	if q.Live {
		x.goLive(frame, q, fleets)
	}
	x.Frames = data.Frames{frame}
	return nil
}

// goLive adds the live channel to a frame, or a notice that explains why there is none.
func (x *execution) goLive(frame *data.Frame, q *query.Latest, fleets []string) {
	notice := "Live streaming needs a single fleet; using panel refresh."
	if len(fleets) == 1 {
		channel, ok := x.channel(q, fleets[0])
		if ok {
			frame.Meta.Channel = channel
			return
		}
		notice = "Too many filters for live streaming; using panel refresh."
	}
	frame.AppendNotices(data.Notice{Severity: data.NoticeSeverityInfo, Text: notice})
}

// LiveVehicles selects the vehicles of a fleet that a live stream shows.
func (e *Executor) LiveVehicles(rows []cassandra.Telemetry, q *query.Latest) []frames.Vehicle {
	vehicles := e.selectVehicles(rows, q)
	return vehicles[:min(len(vehicles), q.RowLimit(e.settings.MaxRows))]
}

// LiveFrame makes the frame that a live stream sends.
func (e *Executor) LiveFrame(vehicles []frames.Vehicle) *data.Frame {
	return frames.Vehicles(vehicles, e.links)
}

// selectVehicles returns the vehicles that a query selects.
func (e *Executor) selectVehicles(rows []cassandra.Telemetry, q *query.Latest) []frames.Vehicle {
	now := e.now()
	selected := make([]frames.Vehicle, 0, len(rows))
	for i := range rows {
		v := e.vehicle(&rows[i], now)
		if selects(&q.VehicleFilter, &v) && matchVehicle(q.Filters, &v) {
			selected = append(selected, v)
		}
	}
	return selected
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

// selects reports whether a filter selects a vehicle. An unknown value lies in no range.
func selects(f *query.VehicleFilter, v *frames.Vehicle) bool {
	return allows(f.States, v.State) && allows(f.Zones, v.Zone) && allows(f.Devices, v.DeviceID) &&
		within(v.SpeedKmh, f.MinSpeedKmh, f.MaxSpeedKmh) && within(v.Battery(), f.MinBatteryPct, f.MaxBatteryPct)
}

// allows reports whether a list of choices has a value. An empty list allows every value.
func allows(choices []string, value string) bool {
	return len(choices) == 0 || slices.Contains(choices, value)
}

func within(value, least, most *float64) bool {
	if least == nil && most == nil {
		return true
	}
	return value != nil && (least == nil || *value >= *least) && (most == nil || *value <= *most)
}

func matchVehicle(filters []query.Filter, v *frames.Vehicle) bool {
	return query.Match(filters, func(key string) (query.Cell, bool) {
		switch key {
		case "device_id":
			return query.Text(v.DeviceID), true
		case "fleet_id":
			return query.Text(v.FleetID), true
		case "status":
			return query.Text(v.State), true
		case "zone":
			return query.Text(v.Zone), true
		case "speed_kmh":
			return query.Number(v.SpeedKmh), true
		case "battery_pct":
			return query.Number(v.Battery()), true
		case "temp_c":
			return query.Number(v.TempC), true
		case "age_s":
			return query.Number(&v.AgeS), true
		}
		return query.Cell{}, false
	})
}

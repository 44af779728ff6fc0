package frames

import (
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/query"
)

// FleetHours are the hourly statistics of one fleet, oldest first.
type FleetHours struct {
	Fleet string
	Hours []cassandra.AnalyticsRow
}

// HourSeries makes one time series for each fleet and field; none for fleets without hours.
func HourSeries(fleets []FleetHours, fields []string) data.Frames {
	var frames data.Frames
	for _, fleet := range fleets {
		if len(fleet.Hours) == 0 {
			continue
		}
		times := hourTimes(fleet.Hours)
		for _, name := range fields {
			value := hourField(name, data.Labels{"fleet_id": fleet.Fleet}, fleet.Hours)
			nameSeries(value, fleet.Fleet, len(fleets) > 1, len(fields) > 1)
			frames = append(frames, series(times, value))
		}
	}
	return frames
}

// HourTable makes a table of hourly statistics.
func HourTable(hours []cassandra.AnalyticsRow) *data.Frame {
	f := table("analytics", timeField(hourTimes(hours)), field("fleet_id", nil, values(hours, func(h *cassandra.AnalyticsRow) string { return h.FleetID })))
	for _, name := range query.AnalyticsFields {
		f.Fields = append(f.Fields, hourField(name, nil, hours))
	}
	return f
}

func hourTimes(hours []cassandra.AnalyticsRow) []time.Time {
	return values(hours, (*cassandra.AnalyticsRow).Start)
}

func hourField(name string, labels data.Labels, hours []cassandra.AnalyticsRow) *data.Field {
	return field(name, labels, values(hours, func(h *cassandra.AnalyticsRow) *float64 {
		var v float64
		switch name {
		case "total_distance_km":
			v = h.TotalDistanceKm
		case "avg_speed_kmh":
			return h.AvgSpeedKmh
		case "alerts_count":
			v = float64(h.AlertsCount)
		default:
			v = float64(h.ActiveDevicesCount)
		}
		return &v
	}))
}

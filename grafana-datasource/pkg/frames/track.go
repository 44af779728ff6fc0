package frames

import (
	"math"
	"time"

	"github.com/grafana/grafana-plugin-sdk-go/data"

	"github.com/fleettracing/fleet-tracing/grafana-datasource/pkg/downsample"
)

// Position is one position of a route. NaN stands for an unknown number.
type Position struct {
	Lat, Lon, SpeedKmh, HeadingDeg, BatteryPct, TempC float64
	Zone, Fleet                                       string
}

// TrackSeries makes the time series of one field of a track, or nil if it has no points.
func TrackSeries(device, name string, points []downsample.Point, severalDevices, severalFields bool) *data.Frame {
	if len(points) == 0 {
		return nil
	}
	value := field(name, data.Labels{"device_id": device}, values(points, func(p *downsample.Point) float64 { return p.Value }))
	nameSeries(value, device, severalDevices, severalFields)
	return series(values(points, func(p *downsample.Point) time.Time { return time.UnixMilli(p.TsMs).UTC() }), value)
}

// Route makes the frame of one vehicle: a route layer of a map connects all points of a frame.
func Route(device string, rows []downsample.Row[Position]) *data.Frame {
	number := func(name string, value func(*Position) float64) *data.Field {
		return field(name, nil, values(rows, func(r *downsample.Row[Position]) *float64 {
			if v := value(&r.Value); !math.IsNaN(v) {
				return &v
			}
			return nil
		}))
	}
	return table(device,
		timeField(values(rows, func(r *downsample.Row[Position]) time.Time { return time.UnixMilli(r.TsMs).UTC() })),
		field("device_id", nil, values(rows, func(*downsample.Row[Position]) string { return device })),
		number("lat", func(p *Position) float64 { return p.Lat }),
		number("lon", func(p *Position) float64 { return p.Lon }),
		number("speed_kmh", func(p *Position) float64 { return p.SpeedKmh }),
		number("heading_deg", func(p *Position) float64 { return p.HeadingDeg }),
		number("battery_pct", func(p *Position) float64 { return p.BatteryPct }),
		number("temp_c", func(p *Position) float64 { return p.TempC }),
		field("zone", nil, values(rows, func(r *downsample.Row[Position]) string { return r.Value.Zone })),
		field("fleet_id", nil, values(rows, func(r *downsample.Row[Position]) string { return r.Value.Fleet })))
}

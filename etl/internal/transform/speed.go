package transform

import (
	"math"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// SpeedDeriver gives records that have no speed the mean speed since their device's fix before. It must see the
// records of a device in event order. The first fix of a device, a second one at the same instant and one that is a
// jump (see telemetry.MaxLegKmh) stay without.
type SpeedDeriver struct {
	device string
	lat    float64
	lon    float64
	timeMs int64
}

// Apply looks at one more record, and sets its speed in km/h when it has none and one can be told. Records come sorted
// by device, then time.
func (s *SpeedDeriver) Apply(r *telemetry.Record) {
	if r.DeviceID != s.device {
		*s = SpeedDeriver{device: r.DeviceID, lat: r.Lat, lon: r.Lon, timeMs: r.TimeMs}
		return
	}
	from := *s
	s.lat, s.lon, s.timeMs = r.Lat, r.Lon, r.TimeMs
	hours := time.Duration((r.TimeMs - from.timeMs) * int64(time.Millisecond)).Hours()
	if hours <= 0 || r.SpeedKmh.Valid {
		return
	}
	if kmh := telemetry.DistanceKm(from.lat, from.lon, r.Lat, r.Lon) / hours; kmh <= telemetry.MaxLegKmh {
		r.SpeedKmh = telemetry.Some(math.Round(kmh*10) / 10)
	}
}

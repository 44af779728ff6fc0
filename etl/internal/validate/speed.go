package validate

import (
	"math"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// SpeedEstimator gives records without a speed the mean speed since the device's previous position. The first position
// of a device in a fleet, a second one at the same time and a jump (see telemetry.MaxSegmentKmh) get none.
type SpeedEstimator struct {
	device string
	fleet  string
	lat    float64
	lon    float64
	timeMs int64
}

// Apply sets a record's speed in km/h when it has none and it can be estimated. Records must come sorted by device, then
// time.
func (s *SpeedEstimator) Apply(r *telemetry.Record) {
	if r.DeviceID != s.device || r.FleetID != s.fleet {
		*s = SpeedEstimator{device: r.DeviceID, fleet: r.FleetID, lat: r.Lat, lon: r.Lon, timeMs: r.TimeMs}
		return
	}
	from := *s
	s.lat, s.lon, s.timeMs = r.Lat, r.Lon, r.TimeMs
	hours := time.Duration((r.TimeMs - from.timeMs) * int64(time.Millisecond)).Hours()
	if hours <= 0 || r.SpeedKmh.Valid {
		return
	}
	if kmh := telemetry.DistanceKm(from.lat, from.lon, r.Lat, r.Lon) / hours; kmh <= telemetry.MaxSegmentKmh {
		r.SpeedKmh = telemetry.Some(math.Round(kmh*10) / 10)
	}
}

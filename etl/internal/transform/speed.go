package transform

import (
	"math"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// MaxLegKmh is the speed beyond which two consecutive fixes are not a drive but an error of one of them.
const MaxLegKmh = 300

// earthRadiusKm is the mean radius of the earth, as the haversine formula takes it (IUGG 1980).
const earthRadiusKm = 6371.0088

// DistanceKm is the great-circle distance of two positions in degrees, by the haversine formula.
func DistanceKm(lat1, lon1, lat2, lon2 float64) float64 {
	const rad = math.Pi / 180
	dLat, dLon := (lat2-lat1)*rad/2, (lon2-lon1)*rad/2
	h := math.Sin(dLat)*math.Sin(dLat) + math.Cos(lat1*rad)*math.Cos(lat2*rad)*math.Sin(dLon)*math.Sin(dLon)
	return 2 * earthRadiusKm * math.Asin(math.Sqrt(min(1, h)))
}

// SpeedDeriver gives records that have no speed the mean speed since their device's fix before. It must see the
// records of a device in event order. The first fix of a device, a second one at the same instant and one that is a
// jump (see MaxLegKmh) stay without.
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
	if kmh := DistanceKm(from.lat, from.lon, r.Lat, r.Lon) / hours; kmh <= MaxLegKmh {
		r.SpeedKmh = telemetry.Some(math.Round(kmh*10) / 10)
	}
}

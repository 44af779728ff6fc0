package telemetry

import "math"

// MaxSegmentKmh is the speed above which a segment between two consecutive positions is an error of one of them.
const MaxSegmentKmh = 300

// EarthRadiusM is the mean radius of the earth in meters (IUGG 1980).
const EarthRadiusM = 6_371_008.8

// DistanceKm returns the great-circle distance of two positions in degrees, by the haversine formula.
func DistanceKm(lat1, lon1, lat2, lon2 float64) float64 {
	const rad = math.Pi / 180
	dLat, dLon := (lat2-lat1)*rad/2, (lon2-lon1)*rad/2
	h := math.Sin(dLat)*math.Sin(dLat) + math.Cos(lat1*rad)*math.Cos(lat2*rad)*math.Sin(dLon)*math.Sin(dLon)
	return 2 * (EarthRadiusM / 1000) * math.Asin(math.Sqrt(min(1, h)))
}

package telemetry

import "math"

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

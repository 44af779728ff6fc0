package geofence

import (
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// rings is an area in the order of GeoJSON: polygons of rings of longitude and latitude.
type rings [][][][2]float64

func (r rings) text() string {
	text, _ := json.Marshal(r)
	return `{"type":"MultiPolygon","coordinates":` + string(text) + `}`
}

// contains is the oracle: seen from inside, the angles of the edges of a ring add up to full turns.
func (r rings) contains(lat, lon float64) bool {
	in := false
	for _, polygon := range r {
		for _, ring := range polygon {
			sum := 0.0
			for i := 1; i < len(ring); i++ {
				ax, ay, bx, by := ring[i-1][0]-lon, ring[i-1][1]-lat, ring[i][0]-lon, ring[i][1]-lat
				sum += math.Atan2(ax*by-ay*bx, ax*bx+ay*by)
			}
			if math.Abs(sum) > math.Pi {
				in = !in
			}
		}
	}
	return in
}

// distance is the oracle: the least haversine distance in meters to a point of an edge, found by sampling, then by
// bisection.
func (r rings) distance(lat, lon float64) float64 {
	least := math.Inf(1)
	for _, polygon := range r {
		for _, ring := range polygon {
			for i := 1; i < len(ring); i++ {
				a, b := ring[i-1], ring[i]
				to := func(t float64) float64 {
					return 1000 * telemetry.DistanceKm(lat, lon, a[1]+t*(b[1]-a[1]), a[0]+t*(b[0]-a[0]))
				}
				const tries = 20
				best := 0
				for k := range tries + 1 {
					if to(float64(k)/tries) < to(float64(best)/tries) {
						best = k
					}
				}
				if to(float64(best)/tries) > least+1000*telemetry.DistanceKm(a[1], a[0], b[1], b[0])/tries {
					continue // it can't be closer than the best so far
				}
				lo, hi := max(0, float64(best-1)/tries), min(1, float64(best+1)/tries)
				for range 40 {
					if t, u := lo+(hi-lo)/3, hi-(hi-lo)/3; to(t) < to(u) {
						hi = u
					} else {
						lo = t
					}
				}
				least = min(least, to(lo))
			}
		}
	}
	return least
}

// star returns a ring around a position, with corners at between half and all of the radius.
func star(r *rand.Rand, lat, lon, radiusM float64, corners int) [][2]float64 {
	ring := make([][2]float64, corners, corners+1)
	for i := range ring {
		angle := 2 * math.Pi * (float64(i) + 0.3*r.Float64()) / float64(corners)
		far := radiusM * (1 + r.Float64()) / 2
		ring[i] = [2]float64{lon + far*math.Cos(angle)/metersPerDeg/math.Cos(lat*rad), lat + far*math.Sin(angle)/metersPerDeg}
	}
	return append(ring, ring[0])
}

func mustParse(t testing.TB, features ...string) []Geofence {
	geofences, err := Parse("test", collection(features...))
	require.NoError(t, err)
	return geofences
}

func mustIndex(t testing.TB, geofences []Geofence) *Index {
	x, err := NewIndex(geofences)
	require.NoError(t, err)
	return x
}

func circleAt(lat, lon, radiusM float64, name string) string {
	return feature(fmt.Sprintf(`{"type":"Point","coordinates":[%v,%v]}`, lon, lat), named(name, fmt.Sprintf(`"radius_m":%v`, radiusM)))
}

// moved returns the position at a distance and bearing (0 north, 90 east) on the sphere.
func moved(lat, lon, meters, bearing float64) (float64, float64) {
	d, b := meters/earthRadiusM, bearing*rad
	sinLat := math.Sin(lat*rad)*math.Cos(d) + math.Cos(lat*rad)*math.Sin(d)*math.Cos(b)
	dLon := math.Atan2(math.Sin(b)*math.Sin(d)*math.Cos(lat*rad), math.Cos(d)-math.Sin(lat*rad)*sinLat)
	return math.Asin(sinLat) / rad, math.Remainder(lon+dLon/rad, 360)
}

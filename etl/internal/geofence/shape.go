package geofence

import (
	"math"

	"github.com/peterstace/simplefeatures/geom"
	"github.com/peterstace/simplefeatures/rtree"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

const (
	earthRadiusM = telemetry.EarthRadiusM
	rad          = math.Pi / 180
	metersPerDeg = earthRadiusM * rad
)

// shape is the area of a geofence: an outline or a circle.
//
// A circle is a circle on the sphere. An outline's edges are straight in longitude and latitude, as RFC 7946 defines. It is
// projected once, to meters north and meters along the equator from the center of its box. A query shrinks the latter by
// the cosine of its own latitude, so distances are exact near the position, where margins matter, even in a large
// geofence. Farther away the error is about tan(latitude) x distance / earth's diameter: half a percent at 40 km and 57
// degrees, one percent at 100 km.
type shape struct {
	box    rtree.Box // degrees; longitudes may exceed 180 degrees if it crosses the date line
	areaM2 float64

	radiusM float64
	center  vector

	outline  outline
	lat, lon float64 // center of the outline's box
}

// vector is a point of the unit sphere.
type vector struct{ x, y, z float64 }

func newCircle(lat, lon, radiusM float64) *shape {
	angle := radiusM / earthRadiusM
	half := math.Sin(angle / 2)
	s := &shape{radiusM: radiusM, center: positionOf(lat, lon).sphere, areaM2: 4 * math.Pi * earthRadiusM * earthRadiusM * half * half}
	dLat, dLon := angle/rad, float64(180)
	if math.Abs(lat)+dLat < 90 {
		dLon = math.Asin(min(1, math.Sin(angle)/math.Cos(lat*rad))) / rad
	}
	const slack = 1e-9 // a tenth of a millimeter, for rounding errors
	dLat, dLon = dLat+slack, dLon+slack
	s.box = rtree.Box{MinX: lon - dLon, MinY: lat - dLat, MaxX: lon + dLon, MaxY: lat + dLat}
	return s
}

func newArea(polygons geom.MultiPolygon) *shape {
	lo, hi, _ := polygons.Envelope().MinMaxXYs()
	s := &shape{
		box: rtree.Box{MinX: lo.X, MinY: lo.Y, MaxX: hi.X, MaxY: hi.Y},
		lat: (lo.Y + hi.Y) / 2, lon: (lo.X + hi.X) / 2,
	}
	var edges []edge
	for _, polygon := range polygons.Dump() {
		for i, ring := range polygon.DumpRings() {
			seq := ring.Coordinates()
			area := 0.0
			for j := 1; j < seq.Length(); j++ {
				a, b := seq.GetXY(j-1), seq.GetXY(j)
				if a == b {
					continue
				}
				area += s.under(a, b)
				edges = append(edges, edge{
					x1: (a.X - s.lon) * metersPerDeg, y1: (a.Y - s.lat) * metersPerDeg,
					x2: (b.X - s.lon) * metersPerDeg, y2: (b.Y - s.lat) * metersPerDeg,
				})
			}
			if i == 0 {
				s.areaM2 += math.Abs(area)
			} else {
				s.areaM2 -= math.Abs(area) // a hole
			}
		}
	}
	s.outline = newOutline(edges)
	return s
}

// under returns the area on the sphere between an edge and the parallel through the shape's center: the integral of
// sin(latitude) over the edge's longitudes, which has a closed form because the edge is straight in both.
func (s *shape) under(a, b geom.XY) float64 {
	mid, half := (a.Y+b.Y)/2*rad, (b.Y-a.Y)/2*rad
	mean := math.Sin(mid)
	if half != 0 {
		mean *= math.Sin(half) / half
	}
	return earthRadiusM * earthRadiusM * (b.X - a.X) * rad * (mean - math.Sin(s.lat*rad))
}

// position is a query's position with what is computed from it once.
type position struct {
	lat, lon float64 // degrees
	shrink   float64 // length of a degree of longitude relative to the equator
	sphere   vector
}

func positionOf(lat, lon float64) position {
	sinLat, cosLat := math.Sincos(lat * rad)
	sinLon, cosLon := math.Sincos(lon * rad)
	return position{lat: lat, lon: lon, shrink: cosLat, sphere: vector{cosLat * cosLon, cosLat * sinLon, sinLat}}
}

// contains reports whether a position is in the shape.
func (s *shape) contains(p *position) bool {
	if s.radiusM > 0 {
		_, inside := s.circleDistance(p, 0)
		return inside
	}
	return s.outline.contains(s.project(p))
}

// distance returns the distance of a position to the shape's edge in meters, positive inside, negative outside. It returns
// false if the position is outside by more than reachM.
func (s *shape) distance(p *position, reachM float64) (float64, bool) {
	if s.radiusM > 0 {
		return s.circleDistance(p, reachM)
	}
	x, y := s.project(p)
	inside := s.outline.contains(x, y)
	limit := math.Inf(1)
	if !inside {
		limit = math.Nextafter(reachM*reachM, math.Inf(1))
	}
	d2 := s.outline.distance2(x, y, p.shrink, limit)
	if inside {
		return math.Sqrt(d2), true
	}
	return 0 - math.Sqrt(d2), d2 < limit
}

// circleDistance is distance for a circle. It is the haversine formula, computed from the chord between the two points on
// the sphere.
func (s *shape) circleDistance(p *position, reachM float64) (float64, bool) {
	dx, dy, dz := p.sphere.x-s.center.x, p.sphere.y-s.center.y, p.sphere.z-s.center.z
	chord := math.Sqrt(dx*dx + dy*dy + dz*dz)
	if chord*earthRadiusM > s.radiusM+reachM { // and the arc is longer
		return 0, false
	}
	insideM := s.radiusM - 2*earthRadiusM*math.Asin(min(1, chord/2))
	return insideM, insideM >= -reachM
}

func (s *shape) project(p *position) (x, y float64) {
	dLon := p.lon - s.lon
	if dLon > 180 {
		dLon -= 360
	} else if dLon < -180 {
		dLon += 360
	}
	return dLon * metersPerDeg, (p.lat - s.lat) * metersPerDeg
}

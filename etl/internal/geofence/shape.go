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
	metresPerDeg = earthRadiusM * rad
)

// shape is where a zone is. It has either an outline or a radius.
//
// A circle is one on the sphere. An outline's edges are straight in longitude and latitude, as RFC 7946 says, and it is
// projected once: metres north and metres along the equator from the middle of its box. A query shrinks the latter by
// the cosine of its own latitude, so that distances are right near the position, where margins matter, however large
// the zone is. Farther away they err by about tan(latitude) x distance / earth's diameter: half a percent
// at 40 km and 57 degrees, one percent at 100 km.
type shape struct {
	box    rtree.Box // degrees; its longitudes may lie beyond 180 degrees where it crosses the date line
	areaM2 float64

	radiusM float64
	centre  vector

	outline  outline
	lat, lon float64 // the middle of the outline's box
}

// vector is a point of the unit sphere.
type vector struct{ x, y, z float64 }

func newCircle(lat, lon, radiusM float64) *shape {
	angle := radiusM / earthRadiusM
	half := math.Sin(angle / 2)
	s := &shape{radiusM: radiusM, centre: positionOf(lat, lon).sphere, areaM2: 4 * math.Pi * earthRadiusM * earthRadiusM * half * half}
	dLat, dLon := angle/rad, float64(180)
	if math.Abs(lat)+dLat < 90 {
		dLon = math.Asin(min(1, math.Sin(angle)/math.Cos(lat*rad))) / rad
	}
	const slack = 1e-9 // a tenth of a millimetre, for what arithmetic loses
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
					x1: (a.X - s.lon) * metresPerDeg, y1: (a.Y - s.lat) * metresPerDeg,
					x2: (b.X - s.lon) * metresPerDeg, y2: (b.Y - s.lat) * metresPerDeg,
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

// under is the area on the sphere between an edge and the parallel through the shape's middle: the integral of
// sin(latitude) over the edge's longitudes, which has a closed form as the edge is straight in both.
func (s *shape) under(a, b geom.XY) float64 {
	mid, half := (a.Y+b.Y)/2*rad, (b.Y-a.Y)/2*rad
	mean := math.Sin(mid)
	if half != 0 {
		mean *= math.Sin(half) / half
	}
	return earthRadiusM * earthRadiusM * (b.X - a.X) * rad * (mean - math.Sin(s.lat*rad))
}

// position is what a query works out once of where it looks.
type position struct {
	lat, lon float64 // degrees
	shrink   float64 // length of a degree of longitude, as a part of one on the equator
	sphere   vector
}

func positionOf(lat, lon float64) position {
	sinLat, cosLat := math.Sincos(lat * rad)
	sinLon, cosLon := math.Sincos(lon * rad)
	return position{lat: lat, lon: lon, shrink: cosLat, sphere: vector{cosLat * cosLon, cosLat * sinLon, sinLat}}
}

// contains tells whether a position lies in the shape.
func (s *shape) contains(p *position) bool {
	if s.radiusM > 0 {
		_, inside := s.fromCircle(p, 0)
		return inside
	}
	return s.outline.contains(s.project(p))
}

// at is the distance of a position to the shape's edge in metres, positive inside, negative outside; false where it
// lies farther outside than the reach.
func (s *shape) at(p *position, reachM float64) (float64, bool) {
	if s.radiusM > 0 {
		return s.fromCircle(p, reachM)
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

// fromCircle is at for a circle. The distance is the haversine formula's: of the chord between the two points of the
// sphere, whose vectors are at hand.
func (s *shape) fromCircle(p *position, reachM float64) (float64, bool) {
	dx, dy, dz := p.sphere.x-s.centre.x, p.sphere.y-s.centre.y, p.sphere.z-s.centre.z
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
	return dLon * metresPerDeg, (p.lat - s.lat) * metresPerDeg
}

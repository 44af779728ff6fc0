package geofence

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strconv"

	"github.com/peterstace/simplefeatures/geom"
)

// geometry reads a feature's geometry into the zone.
func (r *reader) geometry(z *Zone, raw json.RawMessage) {
	var g struct {
		Type        any
		Coordinates json.RawMessage
	}
	const wanted = "a zone is a Polygon, a MultiPolygon, or a Point with radius_m"
	if json.Unmarshal(orNull(raw), &g) != nil {
		r.add("geometry is %s: %s", show(raw), wanted)
		return
	}
	kind, _ := g.Type.(string)
	switch kind {
	case "Point":
		r.circle(z, g.Coordinates)
		return
	case "Polygon", "MultiPolygon":
	case "":
		r.add("geometry is missing: %s", wanted)
		return
	default:
		r.add("geometry is a %s: %s", show([]byte(strconv.Quote(kind))), wanted)
		return
	}
	if radius := r.property("radius_m"); radius != nil {
		r.add("radius_m is %s, and geometry is a %s: take it away, or make the geometry a Point", show(radius), kind)
	}
	var parts [][][][]float64
	var ok bool
	if kind == "Polygon" {
		parts = make([][][][]float64, 1)
		ok = r.coordinates(kind, g.Coordinates, &parts[0], "a list of rings, each a list of [longitude, latitude]")
	} else {
		ok = r.coordinates(kind, g.Coordinates, &parts, "a list of polygons, each a list of rings, each a list of [longitude, latitude]")
	}
	if !ok || !r.rings(kind, parts) {
		return
	}
	area := multiPolygon(parts)
	if err := carefully(area.Validate); err != nil {
		r.invalid(area, err)
		return
	}
	area = area.ForceCCW() // as RFC 7946 wants it of who writes
	text := area.AsGeometry()
	if kind == "Polygon" {
		text = area.PolygonN(0).AsGeometry()
	}
	if !r.marshal(z, text) {
		return
	}
	area, err := joinAtDateLine(area)
	if err != nil {
		r.add("coordinates: the parts on both sides of the date line don't join: %w: let their edges on it agree", err)
		return
	}
	if lo, hi, _ := area.Envelope().MinMaxXYs(); hi.X-lo.X > maxWidthDeg {
		r.add("coordinates span %.6g degrees of longitude, more than %d: make it several zones", hi.X-lo.X, maxWidthDeg)
		return
	}
	z.shape = newArea(area)
}

func (r *reader) circle(z *Zone, raw json.RawMessage) {
	if r.property("radius_m") == nil {
		r.add("radius_m is missing: a Point needs it to be a circle, in metres")
	} else {
		z.RadiusM = r.number("radius_m", "metres", MaxRadiusM)
	}
	var at []float64
	if !r.coordinates("Point", raw, &at, "[longitude, latitude]") {
		return
	}
	if wrong := wrongPosition(at); wrong != "" {
		r.add("coordinates are %s", wrong)
		return
	}
	if z.RadiusM.Valid && r.marshal(z, geom.XY{X: at[0], Y: at[1]}.AsPoint().AsGeometry()) {
		z.shape = newCircle(at[1], at[0], z.RadiusM.Value)
	}
}

func (r *reader) marshal(z *Zone, g geom.Geometry) bool {
	text, err := g.MarshalJSON()
	if err != nil {
		r.add("geometry: %w", err)
		return false
	}
	z.Geometry = string(text)
	return true
}

// coordinates reads nested lists of numbers.
func (r *reader) coordinates(kind string, raw json.RawMessage, into any, wanted string) bool {
	var wrong *json.UnmarshalTypeError
	err := json.Unmarshal(orNull(raw), into)
	switch {
	case errors.As(err, &wrong):
		r.add("coordinates of a %s are %s, and have no place for a %s: give %s", kind, show(raw), wrong.Value, wanted)
	case err != nil || bytes.Contains(orNull(raw), []byte("null")): // which reads as 0
		r.add("coordinates of a %s are %s: give %s", kind, show(raw), wanted)
	default:
		return true
	}
	return false
}

// rings checks what can be seen of rings one by one.
func (r *reader) rings(kind string, parts [][][][]float64) bool {
	before, positions := len(r.errs), 0
	if len(parts) == 0 {
		r.add("coordinates have no part: give at least one ring")
	}
	for i, rings := range parts {
		part := ""
		if kind == "MultiPolygon" {
			part = fmt.Sprintf("part %d ", i+1)
		}
		if len(rings) == 0 {
			r.add("coordinates: %sring 1 is missing: give the outline", part)
		}
		for j, ring := range rings {
			positions += len(ring)
			r.ring(fmt.Sprintf("%sring %d", part, j+1), ring)
		}
	}
	if positions > MaxPositions {
		r.add("coordinates have %d positions, more than %d: simplify the outline", positions, MaxPositions)
	}
	return len(r.errs) == before
}

func (r *reader) ring(where string, ring [][]float64) {
	if len(ring) < 4 {
		r.add("coordinates: %s has %d positions: an area needs at least 4, the last the same as the first", where, len(ring))
		return
	}
	west, east := math.Inf(1), math.Inf(-1)
	first, bad := "", 0
	for i, at := range ring {
		if wrong := wrongPosition(at); wrong != "" {
			if bad++; bad == 1 {
				first = fmt.Sprintf("position %d is %s", i+1, wrong)
			}
			continue
		}
		west, east = min(west, at[0]), max(east, at[0])
	}
	switch a, b := ring[0], ring[len(ring)-1]; {
	case bad == 1:
		r.add("coordinates: %s %s", where, first)
	case bad > 1:
		r.add("coordinates: %s %s (and %d more are wrong)", where, first, bad-1)
	case a[0] != b[0] || a[1] != b[1]:
		r.add("coordinates: %s begins at %v and ends at %v: close it, with the last position the same as the first", where, a[:2], b[:2])
	case east-west > maxWidthDeg:
		r.add("coordinates: %s spans %.6g degrees of longitude, more than %d: split it at the date line into a MultiPolygon with a part on each side",
			where, east-west, maxWidthDeg)
	}
}

// wrongPosition tells what is wrong with a position; nothing where it is one.
func wrongPosition(at []float64) string {
	if len(at) < 2 {
		return fmt.Sprintf("%v: give longitude and latitude", at)
	}
	lon, lat := at[0], at[1]
	switch {
	case math.Abs(lon) <= 180 && math.Abs(lat) <= 90:
		return ""
	case math.Abs(lon) <= 90 && math.Abs(lat) <= 180:
		return fmt.Sprintf("[%v, %v], and no latitude is %v: GeoJSON has the longitude first, swap them", lon, lat, lat)
	}
	return fmt.Sprintf("[%v, %v]: give a longitude of -180 to 180 and a latitude of -90 to 90 (degrees, WGS 84)", lon, lat)
}

// multiPolygon makes the library's shape of coordinates that are known to be good.
func multiPolygon(parts [][][][]float64) geom.MultiPolygon {
	polygons := make([]geom.Polygon, len(parts))
	for i, rings := range parts {
		lines := make([]geom.LineString, len(rings))
		for j, ring := range rings {
			flat := make([]float64, 0, 2*len(ring))
			for _, at := range ring {
				flat = append(flat, at[0], at[1])
			}
			lines[j] = geom.NewLineString(geom.NewSequence(flat, geom.DimXY))
		}
		polygons[i] = geom.NewPolygon(lines)
	}
	return geom.NewMultiPolygon(polygons)
}

// invalid tells what is wrong with an area that the library finds invalid. It says where a ring starts that crosses
// itself; people need to know where it does.
func (r *reader) invalid(area geom.MultiPolygon, err error) {
	for i, polygon := range area.Dump() {
		for j, ring := range polygon.DumpRings() {
			if ring.IsSimple() {
				continue
			}
			where := fmt.Sprintf("ring %d", j+1)
			if area.NumPolygons() > 1 {
				where = fmt.Sprintf("part %d ring %d", i+1, j+1)
			}
			a, b, ok := selfMeeting(ring.Coordinates())
			if !ok {
				r.add("coordinates: %s meets itself: draw it as one loop that never meets itself", where)
				return
			}
			at := ring.Coordinates().GetXY(a)
			r.add("coordinates: %s meets itself: the edge from position %d, [%v, %v], and the edge from position %d cross or touch: draw it as one loop that never meets itself",
				where, a+1, at.X, at.Y, b+1)
			return
		}
	}
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner // what wraps it counts from 0
	}
	r.add("coordinates make no valid area: %w: holes lie inside their outline, and parts and holes touch in single points at most", err)
}

// selfMeeting finds two edges of a ring, by their first positions, that meet elsewhere than neighbours do.
func selfMeeting(ring geom.Sequence) (int, int, bool) {
	var starts []int // of edges that have a length
	for i := range ring.Length() - 1 {
		if ring.GetXY(i) != ring.GetXY(i+1) {
			starts = append(starts, i)
		}
	}
	for k, i := range starts {
		a, b := ring.GetXY(i), ring.GetXY(i+1)
		for l, j := range starts[k+1:] {
			c, d := ring.GetXY(j), ring.GetXY(j+1)
			var meet bool
			switch {
			case max(c.X, d.X) < min(a.X, b.X) || min(c.X, d.X) > max(a.X, b.X) ||
				max(c.Y, d.Y) < min(a.Y, b.Y) || min(c.Y, d.Y) > max(a.Y, b.Y):
			case l == 0: // neighbours meet elsewhere where the second goes back over the first
				meet = turn(a, b, d) == 0 && d.Sub(c).Dot(a.Sub(b)) > 0
			case k == 0 && l == len(starts)-2: // so are the first and the last
				meet = turn(c, d, b) == 0 && b.Sub(a).Dot(c.Sub(d)) > 0
			default:
				meet = turn(a, b, c)*turn(a, b, d) <= 0 && turn(c, d, a)*turn(c, d, b) <= 0
			}
			if meet {
				return i, j, true
			}
		}
	}
	return 0, 0, false
}

// turn is 1 when the way over three points turns left, -1 when it turns right, 0 when it doesn't turn.
func turn(a, b, c geom.XY) int {
	cross := b.Sub(a).Cross(c.Sub(b))
	switch {
	case cross > 0:
		return 1
	case cross < 0:
		return -1
	}
	return 0
}

// joinAtDateLine puts parts that lie on both sides of the date line side by side, as they are on the earth, and takes
// away the line between them, which is no edge of the zone.
func joinAtDateLine(area geom.MultiPolygon) (geom.MultiPolygon, error) {
	parts := area.Dump()
	lo, hi, _ := parts[0].Envelope().MinMaxXYs()
	middle := (lo.X + hi.X) / 2
	var moved, fromWest, fromEast bool
	for i, part := range parts {
		lo, hi, _ := part.Envelope().MinMaxXYs()
		fromWest, fromEast = fromWest || hi.X == 180, fromEast || lo.X == -180
		shift := 0.0
		switch d := (lo.X+hi.X)/2 - middle; {
		case d > 180:
			shift = -360
		case d < -180:
			shift = 360
		default:
			continue
		}
		parts[i], moved = part.TransformXY(func(at geom.XY) geom.XY { return geom.XY{X: at.X + shift, Y: at.Y} }), true
	}
	switch {
	case !moved:
		return area, nil
	case !fromWest || !fromEast: // nothing to take away
		return geom.NewMultiPolygon(parts), nil
	}
	all := make([]geom.Geometry, len(parts))
	for i, part := range parts {
		all[i] = part.AsGeometry()
	}
	var joined geom.MultiPolygon
	err := carefully(func() error {
		union, err := geom.UnionMany(all)
		if err != nil {
			return err
		}
		if polygon, ok := union.AsPolygon(); ok {
			joined = polygon.AsMultiPolygon()
			return nil
		}
		var ok bool
		if joined, ok = union.AsMultiPolygon(); !ok {
			return fmt.Errorf("together they are a %s", union.Type())
		}
		return nil
	})
	return joined, err
}

// carefully runs what the library may panic in where arithmetic fails it, at edges that all but coincide.
func carefully(run func() error) (err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("its edges lie too close to each other to be told apart (%v)", panicked)
		}
	}()
	return run()
}

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

// geometry reads a feature's geometry into the geofence.
func (r *reader) geometry(f *Geofence, raw json.RawMessage) {
	var g struct {
		Type        any
		Coordinates json.RawMessage
	}
	const wanted = "a geofence is a Polygon, a MultiPolygon, or a Point with radius_m"
	if json.Unmarshal(orNull(raw), &g) != nil {
		r.add("geometry is %s: %s", show(raw), wanted)
		return
	}
	kind, _ := g.Type.(string)
	switch kind {
	case "Point":
		r.circle(f, g.Coordinates)
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
		r.add("radius_m is %s, and geometry is a %s: remove it, or make the geometry a Point", show(radius), kind)
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
	drawn, err := geom.UnmarshalGeoJSON(raw, geom.NoValidate{})
	if err != nil {
		r.add("geometry is %s: %w", show(raw), err)
		return
	}
	drawn = drawn.ForceCoordinatesType(geom.DimXY)
	area, ok := drawn.AsMultiPolygon()
	if !ok {
		area = drawn.MustAsPolygon().AsMultiPolygon()
	}
	if err := carefully(area.Validate); err != nil {
		r.invalid(area, err)
		return
	}
	area = area.ForceCCW() // RFC 7946 requires this of writers
	text := area.AsGeometry()
	if kind == "Polygon" {
		text = area.PolygonN(0).AsGeometry()
	}
	if !r.marshal(f, text) {
		return
	}
	area, err = joinAtDateLine(area)
	if err != nil {
		r.add("coordinates: the parts on both sides of the date line don't join: %w: make their edges on it equal", err)
		return
	}
	if lo, hi, _ := area.Envelope().MinMaxXYs(); hi.X-lo.X > maxWidthDeg {
		r.add("coordinates span %.6g degrees of longitude, more than %d: split it into several geofences", hi.X-lo.X, maxWidthDeg)
		return
	}
	f.shape = newArea(area)
}

func (r *reader) circle(f *Geofence, raw json.RawMessage) {
	if r.property("radius_m") == nil {
		r.add("radius_m is missing: a Point needs it to be a circle, in meters")
	} else {
		f.RadiusM = r.number("radius_m", "meters", MaxRadiusM)
	}
	var at []float64
	if !r.coordinates("Point", raw, &at, "[longitude, latitude]") {
		return
	}
	if wrong := wrongPosition(at); wrong != "" {
		r.add("coordinates are %s", wrong)
		return
	}
	if f.RadiusM.Valid && r.marshal(f, geom.XY{X: at[0], Y: at[1]}.AsPoint().AsGeometry()) {
		f.shape = newCircle(at[1], at[0], f.RadiusM.Value)
	}
}

func (r *reader) marshal(f *Geofence, g geom.Geometry) bool {
	text, err := g.MarshalJSON()
	if err != nil {
		r.add("geometry: %w", err)
		return false
	}
	f.Geometry = string(text)
	return true
}

// coordinates reads nested lists of numbers.
func (r *reader) coordinates(kind string, raw json.RawMessage, into any, wanted string) bool {
	var wrong *json.UnmarshalTypeError
	err := json.Unmarshal(orNull(raw), into)
	switch {
	case errors.As(err, &wrong):
		r.add("coordinates of a %s are %s, which has a %s in the wrong place: give %s", kind, show(raw), wrong.Value, wanted)
	case err != nil || bytes.Contains(orNull(raw), []byte("null")): // which reads as 0
		r.add("coordinates of a %s are %s: give %s", kind, show(raw), wanted)
	default:
		return true
	}
	return false
}

// rings checks each ring on its own.
func (r *reader) rings(kind string, parts [][][][]float64) bool {
	before, positions := len(r.errs), 0
	if len(parts) == 0 {
		r.add("coordinates are empty: give at least one ring")
	}
	for i, rings := range parts {
		several := kind == "MultiPolygon"
		if len(rings) == 0 {
			r.add("coordinates: %s is missing: give the outline", ringName(i, 0, several))
		}
		for j, ring := range rings {
			positions += len(ring)
			r.ring(ringName(i, j, several), ring)
		}
	}
	if positions > MaxPositions {
		r.add("coordinates have %d positions, more than %d: simplify the outline", positions, MaxPositions)
	}
	return len(r.errs) == before
}

// ringName names a ring of a part, counted from 1. Only several parts are numbered.
func ringName(part, ring int, several bool) string {
	if several {
		return fmt.Sprintf("part %d ring %d", part+1, ring+1)
	}
	return fmt.Sprintf("ring %d", ring+1)
}

func (r *reader) ring(where string, ring [][]float64) {
	if len(ring) < 4 {
		r.add("coordinates: %s has %d positions: an area needs at least 4, and the last must equal the first", where, len(ring))
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
		r.add("coordinates: %s begins at %v and ends at %v: close it by repeating the first position", where, a[:2], b[:2])
	case east-west > maxWidthDeg:
		r.add("coordinates: %s spans %.6g degrees of longitude, more than %d: split it at the date line into a MultiPolygon with a part on each side",
			where, east-west, maxWidthDeg)
	}
}

// wrongPosition returns the problem of a position; empty if it is valid.
func wrongPosition(at []float64) string {
	if len(at) < 2 {
		return fmt.Sprintf("%v: give longitude and latitude", at)
	}
	lon, lat := at[0], at[1]
	switch {
	case math.Abs(lon) <= 180 && math.Abs(lat) <= 90:
		return ""
	case math.Abs(lon) <= 90 && math.Abs(lat) <= 180:
		return fmt.Sprintf("[%v, %v], and %v is not a latitude: GeoJSON has the longitude first, swap them", lon, lat, lat)
	}
	return fmt.Sprintf("[%v, %v]: give a longitude of -180 to 180 and a latitude of -90 to 90 (degrees, WGS 84)", lon, lat)
}

// invalid reports why the library rejects an area. The library gives the start of a ring that crosses itself; people need
// to know where it crosses.
func (r *reader) invalid(area geom.MultiPolygon, err error) {
	for i, polygon := range area.Dump() {
		for j, ring := range polygon.DumpRings() {
			if ring.IsSimple() {
				continue
			}
			where := ringName(i, j, area.NumPolygons() > 1)
			var a, b int
			if carefully(func() (err error) { a, b, err = selfCrossing(ring.Coordinates()); return err }) != nil {
				r.add("coordinates: %s crosses or touches itself: draw it as one simple loop", where)
				return
			}
			at := ring.Coordinates().GetXY(a)
			r.add("coordinates: %s crosses or touches itself at the edges from position %d, [%v, %v], and from position %d: draw it as one simple loop",
				where, a+1, at.X, at.Y, b+1)
			return
		}
	}
	for inner := err; inner != nil; inner = errors.Unwrap(inner) {
		err = inner // the wrapping errors count from 0
	}
	r.add("coordinates are not a valid area: %w: holes must lie inside their outline, and parts and holes may touch in single points only", err)
}

// selfCrossing finds two edges of a ring, by their first positions, that cross or touch other than at a shared end.
func selfCrossing(ring geom.Sequence) (first, second int, err error) {
	type edge struct {
		start int
		line  geom.Geometry
		box   geom.Envelope
	}
	var edges []edge
	for i := range ring.Length() - 1 {
		if ring.GetXY(i) != ring.GetXY(i+1) {
			line := geom.NewLineString(ring.Slice(i, i+2)).AsGeometry()
			edges = append(edges, edge{i, line, line.Envelope()})
		}
	}
	for i, a := range edges {
		for j := i + 1; j < len(edges); j++ {
			b := edges[j]
			if !a.box.Intersects(b.box) {
				continue
			}
			neighbors := j == i+1 || i == 0 && j == len(edges)-1
			common, err := geom.Intersection(a.line, b.line)
			if err == nil && !common.IsEmpty() && (!neighbors || common.Dimension() > 0) {
				return a.start, b.start, nil
			}
		}
	}
	return 0, 0, errors.New("its edges do not cross")
}

// joinAtDateLine shifts parts on both sides of the date line next to each other, as they are on the earth, and removes the
// line between them, since it is not an edge of the geofence.
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
	case !fromWest || !fromEast: // there is no line to remove
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
			return fmt.Errorf("their union is a %s", union.Type())
		}
		return nil
	})
	return joined, err
}

// carefully turns panics of the library into errors. It may panic at edges that almost coincide.
func carefully(run func() error) (err error) {
	defer func() {
		if panicked := recover(); panicked != nil {
			err = fmt.Errorf("some of its edges are too close to each other (%v)", panicked)
		}
	}()
	return run()
}

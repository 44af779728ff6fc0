package frames

import (
	"encoding/json"
	"fmt"
	"math"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

// FeatureCollection is a GeoJSON feature collection (RFC 7946).
type FeatureCollection struct {
	Type     string    `json:"type"`
	Features []feature `json:"features"`
}

type feature struct {
	Type       string         `json:"type"`
	ID         string         `json:"id"`
	Geometry   any            `json:"geometry"`
	Properties map[string]any `json:"properties"`
}

// GeoJSON converts geofences for a map layer. It leaves out geofences whose geometry it cannot draw.
func GeoJSON(geofences []cassandra.Geofence) FeatureCollection {
	features := []feature{}
	for i := range geofences {
		g := &geofences[i]
		shape := outline(g)
		if shape == nil {
			continue
		}
		properties := map[string]any{"fleet_id": g.FleetID, "name": g.Name, "kind": g.Kind}
		if g.SpeedLimitKmh != nil {
			properties["speed_limit_kmh"] = *g.SpeedLimitKmh
		}
		features = append(features, feature{"Feature", g.FleetID + "/" + g.Name, shape, properties})
	}
	return FeatureCollection{"FeatureCollection", features}
}

// circleCorners is the number of corners of the polygon that replaces a circle: GeoJSON has no circles.
const circleCorners = 64

// metersPerDegree is the length of a degree of latitude on a sphere with the mean radius of the Earth, 6,371,008.8 m.
const metersPerDegree = 6_371_008.8 * math.Pi / 180

// outline returns the geometry to draw, or nil if the stored geometry has none.
func outline(g *cassandra.Geofence) any {
	lat, lon := center(g.Geometry)
	if lat == nil {
		return nil
	}
	if g.RadiusM == nil {
		return json.RawMessage(g.Geometry)
	}
	ring := make([][2]float64, circleCorners+1)
	for i := range ring {
		angle := 2 * math.Pi * float64(i%circleCorners) / circleCorners
		dy := *g.RadiusM * math.Sin(angle) / metersPerDegree
		dx := *g.RadiusM * math.Cos(angle) / (metersPerDegree * max(math.Cos(*lat*math.Pi/180), 1e-6))
		ring[i] = [2]float64{*lon + dx, *lat + dy}
	}
	return map[string]any{"type": "Polygon", "coordinates": [][][2]float64{ring}}
}

// center returns the center of a circle, or the middle of the bounding box of a polygon; for several polygons that of
// the largest. It returns nil for other geometries.
func center(geometry string) (lat, lon *float64) {
	var g struct {
		Type        string          `json:"type"`
		Coordinates json.RawMessage `json:"coordinates"`
	}
	if json.Unmarshal([]byte(geometry), &g) != nil {
		return nil, nil
	}
	// A polygon is one of several, and a point is a polygon with one corner.
	var polygons [][][][]float64
	form := map[string]string{"Point": "[[[%s]]]", "Polygon": "[%s]", "MultiPolygon": "%s"}[g.Type]
	if form == "" || json.Unmarshal(fmt.Appendf(nil, form, g.Coordinates), &polygons) != nil {
		return nil, nil
	}
	largest := 0.0
	for _, rings := range polygons {
		if len(rings) == 0 || len(rings[0]) == 0 {
			return nil, nil
		}
		west, east, south, north := 180.0, -180.0, 90.0, -90.0
		for _, p := range rings[0] {
			if len(p) < 2 {
				return nil, nil
			}
			west, east, south, north = min(west, p[0]), max(east, p[0]), min(south, p[1]), max(north, p[1])
		}
		if size := (east - west) * (north - south); lat == nil || size > largest {
			y, x := (south+north)/2, (west+east)/2
			lat, lon, largest = &y, &x, size
		}
	}
	return lat, lon
}

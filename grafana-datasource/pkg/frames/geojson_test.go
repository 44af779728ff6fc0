package frames

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestCenter(t *testing.T) {
	for name, c := range map[string]struct {
		geometry string
		want     []float64 // latitude and longitude; nil without a center
	}{
		"circle":               {`{"type":"Point","coordinates":[9.5,52.5]}`, []float64{52.5, 9.5}},
		"polygon with a hole":  {`{"type":"Polygon","coordinates":[[[9,52],[10,52],[10,54],[9,52]],[[9.1,52.1],[9.2,52.1],[9.2,52.2],[9.1,52.1]]]}`, []float64{53, 9.5}},
		"largest polygon":      {`{"type":"MultiPolygon","coordinates":[[[[1,1],[2,1],[2,2],[1,1]]],[[[9,52],[11,52],[11,54],[9,52]]],[[[3,3],[4,3],[4,4],[3,3]]]]}`, []float64{53, 10}},
		"across the date line": {`{"type":"MultiPolygon","coordinates":[[[[178,-18],[180,-18],[180,-16],[178,-18]]],[[[-180,-18],[-179,-18],[-179,-16],[-180,-18]]]]}`, []float64{-17, 179}},
		"no polygon":           {`{"type":"MultiPolygon","coordinates":[]}`, nil},
		"empty polygon":        {`{"type":"MultiPolygon","coordinates":[[[[1,1],[2,1],[2,2],[1,1]]],[]]}`, nil},
		"empty ring":           {`{"type":"Polygon","coordinates":[[]]}`, nil},
		"short position":       {`{"type":"Polygon","coordinates":[[[1]]]}`, nil},
		"short point":          {`{"type":"Point","coordinates":[1]}`, nil},
		"wrong nesting":        {`{"type":"MultiPolygon","coordinates":[[[1,2]]]}`, nil},
		"line":                 {`{"type":"LineString","coordinates":[[1,1],[2,2]]}`, nil},
		"not JSON":             {`x`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			lat, lon := center(c.geometry)
			features := GeoJSON([]cassandra.Geofence{{FleetID: "f", Name: "g", Geometry: c.geometry}}).Features
			if c.want == nil {
				assert.Nil(t, lat)
				assert.Nil(t, lon)
				assert.Empty(t, features, "a map cannot draw it")
				return
			}
			require.NotNil(t, lat)
			assert.Equal(t, c.want, []float64{*lat, *lon})
			assert.Len(t, features, 1)
		})
	}
}

func TestGeoJSONDrawsCirclesAsPolygons(t *testing.T) {
	radius, limit := 200.0, 30.0
	got := GeoJSON([]cassandra.Geofence{
		{FleetID: "north", Name: "depot", Kind: "depot", Geometry: `{"type":"Point","coordinates":[9.5,60]}`, RadiusM: &radius, SpeedLimitKmh: &limit},
	})
	require.Len(t, got.Features, 1)
	f := got.Features[0]
	assert.Equal(t, "north/depot", f.ID)
	assert.Equal(t, map[string]any{"fleet_id": "north", "name": "depot", "kind": "depot", "speed_limit_kmh": 30.0}, f.Properties)
	text, err := json.Marshal(f.Geometry)
	require.NoError(t, err)
	var shape struct {
		Type        string
		Coordinates [][][]float64
	}
	require.NoError(t, json.Unmarshal(text, &shape))
	assert.Equal(t, "Polygon", shape.Type)
	ring := shape.Coordinates[0]
	require.Len(t, ring, circleCorners+1)
	assert.Equal(t, ring[0], ring[circleCorners], "the ring is closed")
	assert.InDelta(t, 200, (ring[0][0]-9.5)*metersPerDegree/2, 1, "east: a degree of longitude is half as long at 60 degrees north")
	assert.InDelta(t, 200, (ring[circleCorners/4][1]-60)*metersPerDegree, 1, "north")
}

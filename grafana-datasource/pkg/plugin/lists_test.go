package plugin

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/cassandra"
)

func TestCentreOfAZone(t *testing.T) {
	for name, c := range map[string]struct {
		geometry string
		want     []float64 // latitude and longitude; none where it is no zone
	}{
		"a circle":           {`{"type":"Point","coordinates":[9.5,52.5]}`, []float64{52.5, 9.5}},
		"a polygon":          {`{"type":"Polygon","coordinates":[[[9,52],[10,52],[10,54],[9,52]],[[9.1,52.1],[9.2,52.1],[9.2,52.2],[9.1,52.1]]]}`, []float64{53, 9.5}},
		"of two the largest": {`{"type":"MultiPolygon","coordinates":[[[[1,1],[2,1],[2,2],[1,1]]],[[[9,52],[11,52],[11,54],[9,52]]],[[[3,3],[4,3],[4,4],[3,3]]]]}`, []float64{53, 10}},
		"over the date line": {`{"type":"MultiPolygon","coordinates":[[[[178,-18],[180,-18],[180,-16],[178,-18]]],[[[-180,-18],[-179,-18],[-179,-16],[-180,-18]]]]}`, []float64{-17, 179}},
		"of no part":         {`{"type":"MultiPolygon","coordinates":[]}`, nil},
		"an empty part":      {`{"type":"MultiPolygon","coordinates":[[[[1,1],[2,1],[2,2],[1,1]]],[]]}`, nil},
		"no outline":         {`{"type":"Polygon","coordinates":[[]]}`, nil},
		"half a position":    {`{"type":"Polygon","coordinates":[[[1]]]}`, nil},
		"other coordinates":  {`{"type":"MultiPolygon","coordinates":[[[1,2]]]}`, nil},
		"a line":             {`{"type":"LineString","coordinates":[[1,1],[2,2]]}`, nil},
		"no JSON":            {`x`, nil},
	} {
		t.Run(name, func(t *testing.T) {
			lat, lon := centre(c.geometry)
			if c.want == nil {
				assert.Nil(t, lat)
				assert.Nil(t, lon)
				return
			}
			require.NotNil(t, lat)
			assert.Equal(t, c.want, []float64{*lat, *lon})
			assert.NotNil(t, outline(&cassandra.Geofence{Geometry: c.geometry}), "it is drawn")
		})
	}
}

package geofence

import (
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// collection returns a FeatureCollection.
func collection(features ...string) []byte {
	return []byte(`{"type":"FeatureCollection","features":[` + strings.Join(features, ",") + `]}`)
}

func feature(geometry, properties string) string {
	return `{"type":"Feature","geometry":` + geometry + `,"properties":` + properties + `}`
}

// named returns the properties of a geofence of fleet f.
func named(name, more string) string {
	if more != "" {
		more = "," + more
	}
	return `{"fleet":"f","name":"` + name + `"` + more + `}`
}

func polygon(rings string) string { return `{"type":"Polygon","coordinates":[` + rings + `]}` }

const (
	point  = `{"type":"Point","coordinates":[9.7,52.3]}`
	square = `[[9,52],[10,52],[10,53],[9,53],[9,52]]`
	hole   = `[[9.4,52.4],[9.4,52.6],[9.6,52.6],[9.6,52.4],[9.4,52.4]]`
)

func TestParse(t *testing.T) {
	geofences, err := Parse("f", collection(
		feature(`{"type":"Point","coordinates":[9.7,52.3,57.5]}`, `{"fleet":"a","name":"depot","kind":"depot","radius_m":180.5,"dwell_s":14400,
			"speed_limit_kmh":7.5,"alerts":["exit","enter"],"color":"#f00","note":{"by":[1,2]}}`),
		feature(polygon(`[[9,52],[9,53],[10,53],[10,52],[9,52]],`+hole), `{"fleet":["a","b"],"name":"town","kind":null,"dwell_s":null,"alerts":["enter"],"radius_m":null}`),
		feature(`{"type":"MultiPolygon","coordinates":[[`+square+`],[[[11,52],[12,52],[11,53],[11,52]]]]}`, `{"fleet":"*","name":"x","alerts":[],"dwell_s":1e3}`),
	))
	require.NoError(t, err)
	for i := range geofences {
		assert.NotNil(t, geofences[i].shape)
		geofences[i].shape, geofences[i].source = nil, ""
	}
	town := Geofence{Fleet: "a", Name: "town", OnEnter: true,
		Geometry: polygon(square + `,[[9.4,52.4],[9.4,52.6],[9.6,52.6],[9.6,52.4],[9.4,52.4]]`)}
	townOfB := town
	townOfB.Fleet = "b"
	assert.Equal(t, []Geofence{
		{Fleet: "a", Name: "depot", Kind: "depot", Geometry: point, RadiusM: telemetry.Some(180.5), SpeedLimitKmh: telemetry.Some(7.5),
			DwellS: telemetry.Some(int32(14400)), OnEnter: true, OnExit: true},
		town, townOfB,
		{Fleet: AllFleets, Name: "x", DwellS: telemetry.Some(int32(1000)),
			Geometry: `{"type":"MultiPolygon","coordinates":[[` + square + `],[[[11,52],[12,52],[11,53],[11,52]]]]}`},
	}, geofences, "altitudes and unknown properties are ignored, outlines are counter-clockwise, holes clockwise")
}

func TestParseSampleFile(t *testing.T) {
	text, err := os.ReadFile("../../../data/geofences.geojson")
	require.NoError(t, err)
	geofences, err := Parse("geofences.geojson", text)
	require.NoError(t, err)
	x, err := NewIndex(geofences)
	require.NoError(t, err)
	for name, at := range map[string][2]float64{
		"depot-1": {52.392527, 9.809232}, "depot-2": {52.343792, 9.675152}, "depot-3": {52.418057, 9.718742}, "depot-4": {52.333785, 9.763060},
		"city-centre": {52.374, 9.738}, "airport": {52.464107, 9.693522}, "harbour": {52.414693, 9.609233}, "industrial": {52.307006, 9.829785},
	} {
		geofence, ok := x.Smallest("fleet-001", at[0], at[1])
		assert.True(t, ok)
		assert.Equal(t, name, geofence)
	}
	assert.Len(t, geofences, 8)
	airport := x.Near("fleet-001", 52.464107, 9.693522, 0, nil)
	require.Len(t, airport, 1)
	assert.InDelta(t, 700*math.Cos(math.Pi/16), airport[0].InsideM, 1)
	assert.True(t, airport[0].OnEnter && airport[0].OnExit)
	assert.Equal(t, telemetry.Some(int32(14400)), x.Near("fleet-001", 52.392527, 9.809232, 0, nil)[0].DwellS)
	assert.Equal(t, telemetry.Some(50.0), x.Near("fleet-001", 52.374, 9.738, 0, nil)[0].SpeedLimitKmh)
}

func TestParseErrors(t *testing.T) {
	circle := func(more string) []byte { return collection(feature(point, named("z", more))) }
	area := func(rings string) []byte { return collection(feature(polygon(rings), named("z", ""))) }
	multi := func(parts string) []byte {
		return collection(feature(`{"type":"MultiPolygon","coordinates":`+parts+`}`, named("z", "")))
	}
	const z = `z.json: feature 1 "z": `
	many := strings.Repeat("[9,52],", MaxPositions)
	for name, c := range map[string]struct {
		text []byte
		want string
	}{
		"nothing":     {nil, `z.json: line 1 column 1: bad JSON: unexpected end of JSON input`},
		"broken JSON": {[]byte("{\n  \"type\": \"FeatureCollection\",\n  \"features\": [,]\n}"), `z.json: line 3 column 16: bad JSON: invalid character ',' looking for beginning of value`},
		"cut off":     {[]byte("{\n\"type\": \"Fea"), `z.json: line 2 column 12: bad JSON: unexpected end of JSON input`},
		"something after it": {append(collection(feature(point, named("z", `"radius_m":1`))), '}'),
			`z.json: line 1 column 165: bad JSON: invalid character '}' after top-level value`},
		"a list":                     {[]byte(`[1,2]`), `z.json: text is [1,2], not a GeoJSON object: give a FeatureCollection`},
		"a feature":                  {[]byte(feature(point, named("z", ""))), `z.json: type is "Feature", not a FeatureCollection: put the geofences into one as features`},
		"no type":                    {[]byte(`{"features":[]}`), `z.json: type is null, not a FeatureCollection: put the geofences into one as features`},
		"features of another type":   {[]byte(`{"type":"FeatureCollection","features":{}}`), `z.json: features is {}, not a list: give a list of Feature objects`},
		"no features":                {[]byte(`{"type":"FeatureCollection"}`), `z.json: features is empty: add a geofence, or remove the file`},
		"no geofences":               {collection(), `z.json: features is empty: add a geofence, or remove the file`},
		"too many features":          {collection(strings.Repeat("0,", MaxGeofences) + "0"), `z.json: there are 100001 geofences, more than 100000: remove the unused ones`},
		"a number":                   {collection("7"), `z.json: feature 1: value is 7, not a Feature: give an object of type Feature with geometry and properties`},
		"a bare geometry":            {collection(point), `z.json: feature 1: value is {"type":"Point","coordinates":[9.7,52.3]}, not a Feature: give an object of type Feature with geometry and properties`},
		"properties of another type": {collection(feature(point, `[]`)), `z.json: feature 1: properties is [], not an object: give one with fleet and name`},

		"no properties": {collection(feature(point, `null`)), `z.json: feature 1: name is missing: give a name of 1 to 128 characters of A-Za-z0-9._:-
z.json: feature 1: fleet is missing: give a fleet's name, a list of names, or "*" for every fleet
z.json: feature 1: radius_m is missing: a Point needs it to be a circle, in meters`},
		"a name with a space":    {collection(feature(point, named("a b", `"radius_m":1`))), `z.json: feature 1: name is "a b": give a text of 1 to 128 characters of A-Za-z0-9._:-`},
		"a number for a name":    {collection(feature(point, `{"fleet":"f","name":12,"radius_m":1}`)), `z.json: feature 1: name is 12: give a text of 1 to 128 characters of A-Za-z0-9._:-`},
		"a fleet with a space":   {collection(feature(point, `{"fleet":"a b","name":"z","radius_m":1}`)), z + `fleet is "a b": a fleet's name is 1 to 128 characters of A-Za-z0-9._:-`},
		"no fleet in the list":   {collection(feature(point, `{"fleet":[],"name":"z","radius_m":1}`)), z + `fleet is []: give a fleet's name, a list of names, or "*" for every fleet`},
		"a number for a fleet":   {collection(feature(point, `{"fleet":7,"name":"z","radius_m":1}`)), z + `fleet is 7: give a fleet's name, a list of names, or "*" for every fleet`},
		"a fleet twice":          {collection(feature(point, `{"fleet":["a","b","a"],"name":"z","radius_m":1}`)), z + `fleet has "a" twice: remove one`},
		"every fleet and one":    {collection(feature(point, `{"fleet":["a","*"],"name":"z","radius_m":1}`)), z + `fleet is ["a","*"], and "*" is every fleet: remove the others`},
		"a number for a kind":    {circle(`"radius_m":1,"kind":7`), z + `kind is 7: give a text of at most 128 bytes`},
		"a long kind":            {circle(`"radius_m":1,"kind":"` + strings.Repeat("k", 129) + `"`), z + `kind is "` + strings.Repeat("k", 59) + `…: give a text of at most 128 bytes`},
		"no radius":              {circle(""), z + `radius_m is missing: a Point needs it to be a circle, in meters`},
		"no radius to speak of":  {circle(`"radius_m":0`), z + `radius_m is 0: give a number of meters above 0, at most 1000000`},
		"a negative radius":      {circle(`"radius_m":-5`), z + `radius_m is -5: give a number of meters above 0, at most 1000000`},
		"a radius as text":       {circle(`"radius_m":"180"`), z + `radius_m is "180": give a number of meters above 0, at most 1000000`},
		"a huge radius":          {circle(`"radius_m":1000000.1`), z + `radius_m is 1000000.1: give a number of meters above 0, at most 1000000`},
		"a radius of an area":    {collection(feature(polygon(square), named("z", `"radius_m":5`))), z + `radius_m is 5, and geometry is a Polygon: remove it, or make the geometry a Point`},
		"a limit of 0":           {circle(`"radius_m":1,"speed_limit_kmh":0`), z + `speed_limit_kmh is 0: give a number of km/h above 0, at most 300`},
		"a limit too high":       {circle(`"radius_m":1,"speed_limit_kmh":301`), z + `speed_limit_kmh is 301: give a number of km/h above 0, at most 300`},
		"a dwell of 0":           {circle(`"radius_m":1,"dwell_s":0`), z + `dwell_s is 0: give a whole number of seconds above 0, at most 2147483647`},
		"a broken dwell":         {circle(`"radius_m":1,"dwell_s":1.5`), z + `dwell_s is 1.5: give a whole number of seconds above 0, at most 2147483647`},
		"a dwell as text":        {circle(`"radius_m":1,"dwell_s":"4h"`), z + `dwell_s is "4h": give a whole number of seconds above 0, at most 2147483647`},
		"a dwell of a century":   {circle(`"radius_m":1,"dwell_s":3e9`), z + `dwell_s is 3e9: give a whole number of seconds above 0, at most 2147483647`},
		"an unknown alert":       {circle(`"radius_m":1,"alerts":["enter","leave"]`), z + `alerts is ["enter","leave"]: give a list of "enter" and "exit", or remove it`},
		"an alert that is alone": {circle(`"radius_m":1,"alerts":"enter"`), z + `alerts is "enter": give a list of "enter" and "exit", or remove it`},

		"no geometry":                      {collection(feature(`null`, named("z", ""))), z + `geometry is missing: a geofence is a Polygon, a MultiPolygon, or a Point with radius_m`},
		"a line":                           {collection(feature(`{"type":"LineString","coordinates":[[9,52],[10,53]]}`, named("z", ""))), z + `geometry is a "LineString": a geofence is a Polygon, a MultiPolygon, or a Point with radius_m`},
		"a text for a geometry":            {collection(feature(`"POINT(9 52)"`, named("z", ""))), z + `geometry is "POINT(9 52)": a geofence is a Polygon, a MultiPolygon, or a Point with radius_m`},
		"a point of one number":            {collection(feature(`{"type":"Point","coordinates":[9]}`, named("z", `"radius_m":1`))), z + `coordinates are [9]: give longitude and latitude`},
		"a point without":                  {collection(feature(`{"type":"Point"}`, named("z", `"radius_m":1`))), z + `coordinates of a Point are missing: give [longitude, latitude]`},
		"a point out of range":             {collection(feature(`{"type":"Point","coordinates":[550000,5800000]}`, named("z", `"radius_m":1`))), z + `coordinates are [550000, 5.8e+06]: give a longitude of -180 to 180 and a latitude of -90 to 90 (degrees, WGS 84)`},
		"a point the wrong way round":      {collection(feature(`{"type":"Point","coordinates":[31.5,120.25]}`, named("z", `"radius_m":1`))), z + `coordinates are [31.5, 120.25], and 120.25 is not a latitude: GeoJSON has the longitude first, swap them`},
		"a point's text":                   {collection(feature(`{"type":"Point","coordinates":["9","52"]}`, named("z", `"radius_m":1`))), z + `coordinates of a Point are ["9","52"], which has a string in the wrong place: give [longitude, latitude]`},
		"a null in coordinates":            {area(`[[9,52],[10,null],[10,53],[9,52]]`), z + `coordinates of a Polygon are [[[9,52],[10,null],[10,53],[9,52]]]: give a list of rings, each a list of [longitude, latitude]`},
		"a ring too few":                   {area(`[9,52],[10,52],[10,53],[9,52]`), z + `coordinates of a Polygon are [[9,52],[10,52],[10,53],[9,52]], which has a number in the wrong place: give a list of rings, each a list of [longitude, latitude]`},
		"a polygon for many":               {multi(`[` + square + `]`), z + `coordinates of a MultiPolygon are [[[9,52],[10,52],[10,53],[9,53],[9,52]]], which has a number in the wrong place: give a list of polygons, each a list of rings, each a list of [longitude, latitude]`},
		"a number beyond all":              {area(`[[9,52],[1e999,52],[10,53],[9,52]]`), z + `coordinates of a Polygon are [[[9,52],[1e999,52],[10,53],[9,52]]], which has a number 1e999 in the wrong place: give a list of rings, each a list of [longitude, latitude]`},
		"no rings":                         {area(``), z + `coordinates: ring 1 is missing: give the outline`},
		"no parts":                         {multi(`[]`), z + `coordinates are empty: give at least one ring`},
		"an empty part":                    {multi(`[[` + square + `],[]]`), z + `coordinates: part 2 ring 1 is missing: give the outline`},
		"three positions":                  {area(`[[9,52],[10,52],[9,52]]`), z + `coordinates: ring 1 has 3 positions: an area needs at least 4, and the last must equal the first`},
		"a ring that is open":              {area(square + `,[[9.4,52.4],[9.6,52.4],[9.6,52.6],[9.4,52.6]]`), z + `coordinates: ring 2 begins at [9.4 52.4] and ends at [9.4 52.6]: close it by repeating the first position`},
		"a position of one":                {area(`[[9,52],[10],[10,53],[9,52]]`), z + `coordinates: ring 1 position 2 is [10]: give longitude and latitude`},
		"rings the wrong way round":        {area(`[[31,120],[31,121],[32,121],[31,120]]`), z + `coordinates: ring 1 position 1 is [31, 120], and 120 is not a latitude: GeoJSON has the longitude first, swap them (and 3 more are wrong)`},
		"a part out of range":              {multi(`[[` + square + `],[[[9,52],[10,52],[10,-91],[9,52]]]]`), z + `coordinates: part 2 ring 1 position 3 is [10, -91], and -91 is not a latitude: GeoJSON has the longitude first, swap them`},
		"over the date line":               {area(`[[179,-17],[-179,-17],[-179,-16],[179,-16],[179,-17]]`), z + `coordinates: ring 1 spans 358 degrees of longitude, more than 180: split it at the date line into a MultiPolygon with a part on each side`},
		"half the world":                   {multi(`[[[[-80,0],[0,0],[0,1],[-80,0]]],[[[20,0],[90,0],[90,1],[20,0]]],[[[100,0],[120,0],[120,1],[100,0]]]]`), z + `coordinates span 200 degrees of longitude, more than 180: split it into several geofences`},
		"too many positions":               {area(`[` + many + `[9,52]]`), z + `coordinates have 10001 positions, more than 10000: simplify the outline`},
		"a bow tie":                        {area(`[[9,52],[10,53],[10,52],[9,53],[9,52]]`), z + `coordinates: ring 1 crosses or touches itself at the edges from position 1, [9, 52], and from position 3: draw it as one simple loop`},
		"two loops at a corner":            {area(`[[9,52],[10,52],[9.5,52.5],[10,53],[9,53],[9.5,52.5],[9,52]]`), z + `coordinates: ring 1 crosses or touches itself at the edges from position 2, [10, 52], and from position 5: draw it as one simple loop`},
		"a thorn":                          {area(`[[9,52],[10,52],[10,53],[10,54],[10,53],[9,53],[9,52]]`), z + `coordinates: ring 1 crosses or touches itself at the edges from position 2, [10, 52], and from position 4: draw it as one simple loop`},
		"a thorn at the start":             {area(`[[8,52],[9,52],[10,53],[9.5,52],[8,52]]`), z + `coordinates: ring 1 crosses or touches itself at the edges from position 1, [8, 52], and from position 4: draw it as one simple loop`},
		"no area at all":                   {area(`[[9,52],[10,52],[9.5,52],[9,52]]`), z + `coordinates: ring 1 crosses or touches itself at the edges from position 1, [9, 52], and from position 2: draw it as one simple loop`},
		"one position again and again":     {area(`[[9,52],[9,52],[9,52],[9,52]]`), z + `coordinates are not a valid area: non-empty LineString contains only one distinct XY value (at or near {9 52}): holes must lie inside their outline, and parts and holes may touch in single points only`},
		"another part that crosses itself": {multi(`[[` + square + `],[[[11,52],[12,53],[12,52],[11,53],[11,52]]]]`), z + `coordinates: part 2 ring 1 crosses or touches itself at the edges from position 1, [11, 52], and from position 3: draw it as one simple loop`},
		"a hole outside":                   {area(square + `,[[19,52],[20,52],[20,53],[19,52]]`), z + `coordinates are not a valid area: polygon interior ring outside of exterior ring (at or near {19 52}): holes must lie inside their outline, and parts and holes may touch in single points only`},
		"parts that overlap":               {multi(`[[` + square + `],[[[9.5,52.5],[11,52.5],[11,54],[9.5,52.5]]]]`), z + `coordinates are not a valid area: multipolygon child polygons touch at multiple points (at or near {10 52.75}): holes must lie inside their outline, and parts and holes may touch in single points only`},

		"the same name twice": {collection(feature(point, named("z", `"radius_m":1`)), feature(polygon(square), named("z", ""))),
			`z.json: feature 2 "z": name is taken in fleet "f" by z.json: feature 1 "z": rename one of them`},
		"the same name in some fleets": {collection(
			feature(point, `{"fleet":["a","b","c"],"name":"z","radius_m":1}`), feature(point, `{"fleet":["d","c","b"],"name":"z","radius_m":1}`)),
			`z.json: feature 2 "z": name is taken in fleet "c" by z.json: feature 1 "z": rename one of them`},
		"a name of every fleet": {collection(feature(point, `{"fleet":"*","name":"z","radius_m":1}`), feature(point, named("z", `"radius_m":1`))),
			`z.json: feature 2 "z": name is taken in fleet "f" by z.json: feature 1 "z": rename one of them`},
		"a name for every fleet": {collection(feature(point, named("z", `"radius_m":1`)), feature(point, `{"fleet":"*","name":"z","radius_m":1}`)),
			`z.json: feature 2 "z": name is taken in fleet "*" by z.json: feature 1 "z": rename one of them`},

		"all at once": {collection(feature(point, named("a", `"radius_m":-1,"dwell_s":"x","speed_limit_kmh":900`)), feature(point, named("ok", `"radius_m":1`)),
			feature(polygon(`[[9,52],[10,52],[9,52]],[[9,52],[10,52],[10,53],[9,53]]`), named("b", `"alerts":7`)), feature(point, named("a", `"radius_m":1`))),
			`z.json: feature 1 "a": speed_limit_kmh is 900: give a number of km/h above 0, at most 300
z.json: feature 1 "a": dwell_s is "x": give a whole number of seconds above 0, at most 2147483647
z.json: feature 1 "a": radius_m is -1: give a number of meters above 0, at most 1000000
z.json: feature 3 "b": alerts is 7: give a list of "enter" and "exit", or remove it
z.json: feature 3 "b": coordinates: ring 1 has 3 positions: an area needs at least 4, and the last must equal the first
z.json: feature 3 "b": coordinates: ring 2 begins at [9 52] and ends at [9 53]: close it by repeating the first position
z.json: feature 4 "a": name is taken in fleet "f" by z.json: feature 1 "a": rename one of them`},
	} {
		t.Run(name, func(t *testing.T) {
			geofences, err := Parse("z.json", c.text)
			require.EqualError(t, err, c.want)
			assert.Nil(t, geofences)
		})
	}
}

func TestParseReportsAHundredProblems(t *testing.T) {
	var features []string
	for i := range 250 {
		features = append(features, feature(point, named(fmt.Sprint("z", i), "")))
	}
	_, err := Parse("z.json", collection(features...))
	require.Error(t, err)
	lines := strings.Split(err.Error(), "\n")
	require.Len(t, lines, 101)
	assert.Equal(t, "and 150 more problems", lines[100])
}

func TestParseCountsAGeofenceForEachFleet(t *testing.T) {
	fleets := make([]string, MaxGeofences/2+1)
	for i := range fleets {
		fleets[i] = fmt.Sprint("f", i)
	}
	list, _ := json.Marshal(fleets)
	two := []string{feature(point, `{"name":"a","radius_m":1,"fleet":`+string(list)+`}`), feature(point, `{"name":"b","radius_m":1,"fleet":`+string(list)+`}`)}
	_, err := Parse("z.json", collection(two...))
	require.EqualError(t, err, "z.json: there are 100002 geofences, more than 100000: remove the unused ones")
	a, err := Parse("a.json", collection(two[0]))
	require.NoError(t, err)
	b, err := Parse("b.json", collection(two[1]))
	require.NoError(t, err)
	_, err = NewIndex(append(a, b...))
	require.EqualError(t, err, "there are 100002 geofences, more than 100000: remove the unused ones")
}

func TestParseFilesOfOtherPrograms(t *testing.T) {
	for name, text := range map[string][]byte{
		"a byte order mark":   append([]byte("\xef\xbb\xbf"), collection(feature(point, named("z", `"radius_m":1`)))...),
		"other members":       []byte(`{"type":"FeatureCollection","name":"layer","crs":null,"bbox":[1,2,3,4],"features":[{"id":7,"bbox":[],` + feature(point, named("z", `"radius_m":1`))[1:] + `]}`),
		"a position repeated": collection(feature(polygon(`[[9,52],[9,52],[10,52],[10,52],[10,53],[9,52],[9,52]]`), named("z", ""))),
		"a hole that touches": collection(feature(polygon(square+`,[[9,52],[9.4,52.6],[9.6,52.4],[9,52]]`), named("z", ""))),
		"an island in a hole": collection(feature(`{"type":"MultiPolygon","coordinates":[[`+square+`,`+hole+`],[[[9.45,52.45],[9.5,52.45],[9.5,52.5],[9.45,52.45]]]]}`, named("z", ""))),
		"a pole":              collection(feature(`{"type":"Point","coordinates":[0,90]}`, named("z", `"radius_m":1000000`))),
	} {
		t.Run(name, func(t *testing.T) {
			geofences, err := Parse("z.json", text)
			require.NoError(t, err)
			_, err = NewIndex(geofences)
			require.NoError(t, err)
		})
	}
}

func TestParseLargestOutline(t *testing.T) {
	ring := make([][2]float64, 0, MaxPositions)
	for i := range MaxPositions - 1 {
		angle, r := 2*math.Pi*float64(i)/(MaxPositions-1), 1+0.2*math.Sin(float64(i)*0.7)
		ring = append(ring, [2]float64{9 + r*math.Cos(angle), 52 + r*math.Sin(angle)})
	}
	text, _ := json.Marshal(append(ring, ring[0]))
	geofences, err := Parse("z.json", collection(feature(polygon(string(text)), named("z", ""))))
	require.NoError(t, err)
	assert.Len(t, geofences[0].shape.outline.edges, MaxPositions-1)
}

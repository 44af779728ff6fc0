package geofence

import (
	"cmp"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

func names(geofences []telemetry.NearbyGeofence) []string {
	list := []string{}
	for _, p := range geofences {
		list = append(list, p.Name)
	}
	return list
}

func TestKnownDistances(t *testing.T) {
	// A degree of latitude is 111,195.08 m; a hundredth of a degree of longitude at 60 degrees north half as much.
	x := mustIndex(t, mustParse(t,
		feature(polygon(`[[10,60],[10.02,60],[10.02,60.01],[10,60.01],[10,60]],[[10.01,60.002],[10.015,60.002],[10.015,60.008],[10.01,60.008],[10.01,60.002]]`), named("z", "")),
		feature(`{"type":"MultiPolygon","coordinates":[[[[20,0],[20.01,0],[20.01,0.01],[20,0.01],[20,0]]],[[[20.03,0],[20.04,0],[20.04,0.01],[20.03,0.01],[20.03,0]]]]}`, named("two", "")),
	))
	const deg = 111_195.08
	for name, c := range map[string]struct {
		lat, lon, reach float64
		in              bool
		want            float64 // meters; 0: not found
	}{
		"inside, nearest to the west":       {60.005, 10.001, 0, true, 0.001 * deg * math.Cos(60.005*rad)},
		"inside, nearest to the south":      {60.0005, 10.005, 0, true, 0.0005 * deg},
		"inside, nearest to the hole":       {60.005, 10.0095, 0, true, 0.0005 * deg * math.Cos(60.005*rad)},
		"inside, nearest to a hole corner":  {60.0085, 10.0155, 0, true, math.Hypot(0.0005, 0.0005*math.Cos(60.0085*rad)) * deg},
		"in the hole":                       {60.005, 10.011, 0, false, 0},
		"in the hole, with reach":           {60.005, 10.011, 60, false, -0.001 * deg * math.Cos(60.005*rad)},
		"in the hole, with too little":      {60.005, 10.011, 55, false, 0},
		"outside":                           {60.0101, 10.01, 0, false, 0},
		"outside to the north, with reach":  {60.0101, 10.01, 12, false, -0.0001 * deg},
		"outside a corner, with reach":      {60.0101, 10.0201, 20, false, -math.Hypot(0.0001, 0.0001*math.Cos(60.0101*rad)) * deg},
		"outside a corner, with too little": {60.0101, 10.0201, 12.4, false, 0},
		"in the first of two parts":         {0.005, 20.009, 0, true, 0.001 * deg},
		"in the second":                     {0.005, 20.032, 0, true, 0.002 * deg},
		"between them":                      {0.005, 20.019, 0, false, 0},
		"between them, with reach":          {0.005, 20.019, 1100, false, -0.009 * deg},
	} {
		t.Run(name, func(t *testing.T) {
			geofence, in := x.Smallest("f", c.lat, c.lon)
			assert.Equal(t, c.in, in)
			assert.Equal(t, in, geofence != "")
			found := x.Near("f", c.lat, c.lon, c.reach, nil)
			if c.want == 0 {
				assert.Empty(t, found)
				return
			}
			require.Len(t, found, 1)
			assert.InDelta(t, c.want, found[0].InsideM, 0.02)
			assert.Empty(t, x.Near("g", c.lat, c.lon, c.reach, nil), "another fleet has no geofence")
		})
	}
}

func TestCircleEdges(t *testing.T) {
	for _, at := range [][2]float64{{0, 0}, {52.39, 9.81}, {-33.9, 151.2}, {78.2, 15.6}, {-89.9, 30}, {90, 0}, {65, 179.999}, {65, -180}} {
		for _, radius := range []float64{1.5, 180, 20_000, 1_000_000} {
			x := mustIndex(t, mustParse(t, circleAt(at[0], at[1], radius, "z")))
			for bearing := 0.0; bearing < 360; bearing += 15 {
				for _, off := range []float64{-1, -0.001, 0.001, 1} {
					lat, lon := moved(at[0], at[1], radius+off, bearing)
					where := fmt.Sprintf("%v m beyond a circle of %v m around %v, to %v", off, radius, at, bearing)
					_, in := x.Smallest("f", lat, lon)
					assert.Equal(t, off < 0, in, where)
					assert.Len(t, x.Near("f", lat, lon, 0, nil), map[bool]int{true: 1}[off < 0], where)
					found := x.Near("f", lat, lon, 1.01, nil)
					require.Len(t, found, 1, where)
					assert.InDelta(t, radius-1000*telemetry.DistanceKm(at[0], at[1], lat, lon), found[0].InsideM, 2e-5, where)
				}
			}
		}
	}
}

func TestAreas(t *testing.T) {
	r2 := float64(earthRadiusM * earthRadiusM)
	degrees := func(west, south, east, north float64) float64 {
		return r2 * (east - west) * rad * (math.Sin(north*rad) - math.Sin(south*rad))
	}
	for name, c := range map[string]struct {
		feature string
		want    float64
	}{
		"a circle":                {circleAt(52, 9, 180, "z"), math.Pi * 180 * 180},
		"a large circle":          {circleAt(52, 9, 1e6, "z"), 2 * math.Pi * r2 * (1 - math.Cos(1e6/earthRadiusM))},
		"a square":                {feature(polygon(square), named("z", "")), degrees(9, 52, 10, 53)},
		"without its hole":        {feature(polygon(square+","+hole), named("z", "")), degrees(9, 52, 10, 53) - degrees(9.4, 52.4, 9.6, 52.6)},
		"of two parts":            {feature(`{"type":"MultiPolygon","coordinates":[[`+square+`],[[[11,0],[90,0],[90,80],[11,80],[11,0]]]]}`, named("z", "")), degrees(9, 52, 10, 53) + degrees(11, 0, 90, 80)},
		"a square meter":          {feature(polygon(`[[9,0],[9.00000899322,0],[9.00000899322,0.00000899322],[9,0.00000899322],[9,0]]`), named("z", "")), 1},
		"over the date line":      {feature(`{"type":"MultiPolygon","coordinates":[[[[179,10],[180,10],[180,11],[179,11],[179,10]]],[[[-180,10],[-179,10],[-179,11],[-180,11],[-180,10]]]]}`, named("z", "")), degrees(0, 10, 2, 11)},
		"half of a square degree": {feature(polygon(`[[0,-0.5],[1,-0.5],[1,0.5],[0,-0.5]]`), named("z", "")), degrees(0, 0, 1, 0.5)},
	} {
		t.Run(name, func(t *testing.T) {
			assert.InEpsilon(t, c.want, mustParse(t, c.feature)[0].shape.areaM2, 1e-5)
		})
	}
}

// TestOutlines compares containment and distance of random geofences with holes and islands with an oracle.
func TestOutlines(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for _, at := range [][2]float64{{0.01, 6.6}, {52.37, 9.74}, {-33.9, 18.4}, {69.6, 18.9}, {-54.8, -68.3}} {
		for _, radius := range []float64{30, 800, 20_000} {
			for _, corners := range []int{4, 9, 40, 120} {
				lat, lon := at[0], at[1]
				area := rings{{star(r, lat, lon, radius, corners), star(r, lat, lon, radius*0.2, 7)},
					{star(r, lat, lon, radius*0.05, 5)}}
				geofences := mustParse(t, feature(area.text(), named("z", "")))
				x := mustIndex(t, geofences)
				for range 20 {
					far := radius * 1.2 * math.Sqrt(r.Float64())
					lat, lon := moved(lat, lon, far, 360*r.Float64())
					in, want := area.contains(lat, lon), area.distance(lat, lon)
					if !in {
						want = -want
					}
					where := fmt.Sprintf("at %v, %v: %s", lat, lon, geofences[0].Geometry)
					_, got := x.Smallest("f", lat, lon)
					require.Equal(t, in, got, where)
					// The error of the projection, plus rounding.
					d := math.Abs(want)
					within := d*d*math.Abs(math.Tan(lat*rad))/(2*earthRadiusM) + d*d*d/(earthRadiusM*earthRadiusM) + 1e-4
					found := x.Near("f", lat, lon, radius, nil)
					require.Len(t, found, 1, where)
					require.InDelta(t, want, found[0].InsideM, within, where)
					if !in {
						require.Empty(t, x.Near("f", lat, lon, -found[0].InsideM-0.001, nil), where)
						require.Len(t, x.Near("f", lat, lon, -found[0].InsideM+0.001, nil), 1, where)
					}
				}
			}
		}
	}
}

// TestBlocksOfEdges compares an outline's blocks with a scan of every edge.
func TestBlocksOfEdges(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	for _, corners := range []int{17, 64, 65, 100, 513, 4097, 9000} {
		geofences := mustParse(t, feature(rings{{star(r, 50, 8, 5000, corners), star(r, 50, 8, 1000, 20)}}.text(), named("z", "")))
		blocks := geofences[0].shape.outline
		require.NotEmpty(t, blocks.blocks)
		flat := outline{edges: blocks.edges}
		for range 300 {
			x, y := 12_000*(r.Float64()-0.5), 12_000*(r.Float64()-0.5)
			require.Equal(t, flat.contains(x, y), blocks.contains(x, y))
			for _, limit := range []float64{math.Inf(1), 100, 1e6} {
				require.InEpsilon(t, flat.distance2(x, y, 0.6, limit), blocks.distance2(x, y, 0.6, limit), 1e-12)
			}
		}
	}
}

func TestDateLine(t *testing.T) {
	x := mustIndex(t, mustParse(t,
		feature(`{"type":"MultiPolygon","coordinates":[[[[179,-17],[180,-17],[180,-16],[179,-16],[179,-17]]],[[[-180,-17],[-179,-17],[-179,-16],[-180,-16],[-180,-17]]]]}`, named("fiji", "")),
		circleAt(-16.5, 179.95, 20_000, "east"), circleAt(-16.5, -179.95, 30_000, "west"),
		feature(polygon(`[[-180,-10],[-179.99,-10],[-179.99,-9.99],[-180,-9.99],[-180,-10]]`), named("edge", "")),
	))
	for _, lon := range []float64{180, -180, 179.9999, -179.9999} {
		assert.Equal(t, []string{"east", "west", "fiji"}, names(x.Near("f", -16.5, lon, 0, nil)), "%v", lon)
		geofence, _ := x.Smallest("f", -16.5, lon)
		assert.Equal(t, "east", geofence)
		for _, g := range x.Near("f", -16.1, lon, 0, nil) {
			assert.Equal(t, "fiji", g.Name)
			assert.InDelta(t, 0.1*metersPerDeg, g.InsideM, 1, "the date line itself is not an edge")
		}
		assert.Equal(t, []string{"east", "west", "fiji"}, names(x.Near("f", -16.5, lon, 500_000, nil)), "each once")
	}
	assert.Equal(t, []string{"fiji"}, names(x.Near("f", -16.5, 179.001, 0, nil)))
	assert.Equal(t, []string{"fiji"}, names(x.Near("f", -16.5, -179.001, 0, nil)))
	assert.Empty(t, x.Near("f", -16.5, 178.999, 0, nil))
	apart := mustIndex(t, mustParse(t, feature(`{"type":"MultiPolygon","coordinates":[[[[179,-17],[179.9,-17],[179.9,-16],[179,-16],[179,-17]]],[[[-179.9,-17],[-179,-17],[-179,-16],[-179.9,-16],[-179.9,-17]]]]}`, named("z", ""))))
	for _, lon := range []float64{179.91, -179.91} {
		gap := apart.Near("f", -16.5, lon, 2000, nil)
		require.Len(t, gap, 1, "parts on both sides that don't touch the line")
		assert.InDelta(t, -0.01*metersPerDeg*math.Cos(16.5*rad), gap[0].InsideM, 0.1)
	}
	beyond := x.Near("f", -9.995, 179.9999, 20, nil)
	require.Equal(t, []string{"edge"}, names(beyond))
	assert.InDelta(t, -0.0001*metersPerDeg*math.Cos(9.995*rad), beyond[0].InsideM, 0.01)
	assert.Empty(t, x.Near("f", -9.995, 179.9999, 10, nil))
}

func TestPoles(t *testing.T) {
	x := mustIndex(t, mustParse(t, circleAt(89.5, 100, 100_000, "north"), circleAt(-90, 0, 1000, "south")))
	for lon := -180.0; lon <= 180; lon += 20 {
		assert.Equal(t, []string{"north"}, names(x.Near("f", 89.9, lon, 0, nil)), "%v", lon)
		assert.Equal(t, []string{"south"}, names(x.Near("f", -89.995, lon, 0, nil)), "%v", lon)
		assert.Equal(t, []string{"south"}, names(x.Near("f", -89.98, lon, 2000, nil)), "%v", lon)
		assert.Empty(t, x.Near("f", -89.98, lon, 1000, nil), "%v", lon)
	}
}

func TestSmallestFirst(t *testing.T) {
	x := mustIndex(t, mustParse(t,
		circleAt(52, 9, 3000, "large"), circleAt(52, 9, 1000, "small"), circleAt(52, 9, 2000, "middle-b"), circleAt(52, 9, 2000, "middle-a"),
		feature(polygon(`[[8.98,51.99],[9.02,51.99],[9.02,52.01],[8.98,52.01],[8.98,51.99]]`), named("square", "")),
		feature(`{"type":"Point","coordinates":[9,52]}`, `{"fleet":"*","name":"all","radius_m":1500,"speed_limit_kmh":30,"dwell_s":60,"alerts":["enter"]}`),
	))
	assert.Equal(t, []string{"small", "square", "all", "middle-a", "middle-b", "large"}, names(x.Near("f", 52, 9, 0, nil)))
	geofence, ok := x.Smallest("f", 52, 9)
	assert.True(t, ok)
	assert.Equal(t, "small", geofence)
	lat, lon := moved(52, 9, 1400, 0) // beyond the square
	assert.Equal(t, []string{"all", "middle-a", "middle-b", "large"}, names(x.Near("f", lat, lon, 0, nil)))
	geofence, _ = x.Smallest("f", lat, lon)
	assert.Equal(t, "all", geofence)
	assert.Equal(t, []string{"small", "square", "all", "middle-a", "middle-b", "large"}, names(x.Near("f", lat, lon, 500, nil)), "within reach too")

	other := x.Near("another", 52, 9, 0, nil)
	require.Equal(t, []string{"all"}, names(other), "a fleet without own geofences has the shared ones")
	assert.Equal(t, telemetry.NearbyGeofence{Name: "all", InsideM: 1500, AreaM2: other[0].AreaM2,
		SpeedLimitKmh: telemetry.Some(30.0), DwellS: telemetry.Some(int32(60)), OnEnter: true}, other[0])
	geofence, ok = x.Smallest("another", 52, 9)
	assert.True(t, ok)
	assert.Equal(t, "all", geofence)

	before := []telemetry.NearbyGeofence{{Name: "before", AreaM2: math.Inf(1)}}
	assert.Equal(t, []string{"before", "small"}, names(x.Near("f", 52, 9, 0, before))[:2], "the buffer keeps what it had")
}

func TestInvalidPositions(t *testing.T) {
	x := mustIndex(t, mustParse(t, circleAt(52, 9, 3000, "z"), circleAt(90, 0, 1e6, "pole")))
	nan, inf := math.NaN(), math.Inf(1)
	for _, at := range [][2]float64{{nan, 9}, {52, nan}, {inf, 9}, {52, -inf}, {90.01, 0}, {52, 369}} {
		assert.Empty(t, x.Near("f", at[0], at[1], 1000, nil))
		_, ok := x.Smallest("f", at[0], at[1])
		assert.False(t, ok)
	}
	for _, reach := range []float64{nan, -5, -inf} {
		assert.Equal(t, []string{"z"}, names(x.Near("f", 52, 9, reach, nil)), "an invalid reach is 0")
	}
	assert.Equal(t, []string{"z", "pole"}, names(x.Near("f", -52, -171, inf, nil)))
	none := mustIndex(t, nil)
	assert.Empty(t, none.Near("f", 52, 9, 1000, nil))
	_, ok := none.Smallest("f", 52, 9)
	assert.False(t, ok)
}

func TestNewIndexReportsNameConflictsOfFiles(t *testing.T) {
	read := func(origin string, features ...string) []Geofence {
		geofences, err := Parse(origin, collection(features...))
		require.NoError(t, err)
		return geofences
	}
	a := read("a.json", circleAt(52, 9, 10, "x"), circleAt(52, 9, 10, "y"))
	b := read("b.json", circleAt(52, 9, 10, "w"), circleAt(52, 9, 10, "y"), feature(point, `{"fleet":"*","name":"x","radius_m":1}`))
	_, err := NewIndex(slices.Concat(a, b, []Geofence{{Fleet: "f", Name: "made"}}))
	require.EqualError(t, err, `b.json: feature 2 "y": name is taken in fleet "f" by a.json: feature 2 "y": rename one of them
b.json: feature 3 "x": name is taken in fleet "*" by a.json: feature 1 "x": rename one of them
geofence "made" of fleet "f" has no shape: only Parse makes geofences`)
	_, err = NewIndex(slices.Concat(a, read("c.json", feature(point, `{"fleet":["g","h"],"name":"x","radius_m":1}`))))
	require.NoError(t, err, "other fleets may have the name")
}

// randomGeofences returns circles and outlines in a region, with names z0, z1, …
func randomGeofences(t testing.TB, r *rand.Rand, n int, south, west, north, east, meters float64) []Geofence {
	features := make([]string, n)
	for i := range features {
		lat, lon := south+(north-south)*r.Float64(), west+(east-west)*r.Float64()
		size := meters * (0.2 + 0.8*r.Float64())
		name := fmt.Sprint("z", i)
		dLon := size / metersPerDeg / math.Cos(lat*rad)
		switch {
		case i%2 == 0 || math.Abs(lon)+dLon > 180 || math.Abs(lat) > 89.5:
			features[i] = circleAt(lat, math.Remainder(lon, 360), size, name)
		default:
			features[i] = feature(rings{{star(r, lat, lon, size, 4+r.IntN(28))}}.text(), named(name, ""))
		}
	}
	return mustParse(t, features...)
}

// TestIndexEqualsAScan compares the index with a scan of every shape.
func TestIndexEqualsAScan(t *testing.T) {
	for name, c := range map[string]struct {
		south, west, north, east, meters float64
		geofences, tries                 int
	}{
		"a city":             {52.2, 9.5, 52.6, 10, 900, 10_000, 100},
		"a continent":        {35, -10, 60, 30, 40_000, 2_000, 200},
		"the date line":      {-20, 178, -10, 182, 30_000, 1_000, 300},
		"the far north":      {80, -180, 89.9, 180, 60_000, 1_000, 300},
		"the whole world":    {-75, -180, 75, 180, 900_000, 1_000, 300},
		"around the far end": {-89.99, -180, -88, 180, 50_000, 500, 300},
	} {
		t.Run(name, func(t *testing.T) {
			r := rand.New(rand.NewPCG(5, 6))
			geofences := randomGeofences(t, r, c.geofences, c.south, c.west, c.north, c.east, c.meters)
			x := mustIndex(t, geofences)
			hits := 0
			for range c.tries {
				lat, lon := c.south+(c.north-c.south)*r.Float64(), math.Remainder(c.west+(c.east-c.west)*r.Float64(), 360)
				reach := c.meters * float64(r.IntN(3)) * r.Float64()
				p := positionOf(lat, lon)
				var want []telemetry.NearbyGeofence
				for i := range geofences {
					if insideM, ok := geofences[i].shape.distance(&p, reach); ok {
						want = append(want, telemetry.NearbyGeofence{Name: geofences[i].Name, InsideM: insideM, AreaM2: geofences[i].shape.areaM2})
					}
				}
				slices.SortFunc(want, func(a, b telemetry.NearbyGeofence) int {
					return cmp.Or(cmp.Compare(a.AreaM2, b.AreaM2), strings.Compare(a.Name, b.Name))
				})
				got := x.Near("f", lat, lon, reach, nil)
				require.Equal(t, want, got, "at %v, %v within %v", lat, lon, reach)
				hits += len(want)

				smallest := ""
				for _, g := range want {
					if g.InsideM >= 0 {
						smallest = g.Name
						break
					}
				}
				geofence, _ := x.Smallest("f", lat, lon)
				require.Equal(t, smallest, geofence)
			}
			assert.Greater(t, hits, c.tries, "the test has found geofences")
		})
	}
}

func TestQueriesAllocateNothing(t *testing.T) {
	x := mustIndex(t, slices.Concat(randomGeofences(t, rand.New(rand.NewPCG(7, 8)), 1000, 52.2, 9.5, 52.6, 10, 3000),
		mustParse(t, feature(point, `{"fleet":"*","name":"all","radius_m":100000}`))))
	found := make([]telemetry.NearbyGeofence, 0, 200)
	assert.Zero(t, testing.AllocsPerRun(1000, func() {
		found = x.Near("f", 52.4, 9.75, 100, found[:0])
		_, _ = x.Smallest("f", 52.4, 9.75)
	}))
	assert.Greater(t, len(found), 5)
}

func TestIndexServesSeveralGoroutines(t *testing.T) {
	x := mustIndex(t, randomGeofences(t, rand.New(rand.NewPCG(9, 10)), 200, 52.2, 9.5, 52.6, 10, 3000))
	want := x.Near("f", 52.4, 9.75, 5000, nil)
	require.NotEmpty(t, want)
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 100 {
				assert.Equal(t, want, x.Near("f", 52.4, 9.75, 5000, nil))
			}
		})
	}
	all.Wait()
}

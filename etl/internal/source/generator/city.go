package generator

import (
	"math"
	"slices"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The city lies where Hannover does: flat land, an airport, a harbour and towns around. Its streets are made up: they run
// in two directions, 14 degrees off north, wherever they are needed.
const (
	cityLat = 52.3740
	cityLon = 9.7380

	metersPerLat = telemetry.EarthRadiusM * math.Pi / 180
	streetsDeg   = 14.0
	cityRadius   = 6_000.0 // meters; motorways begin outside
)

var (
	// metersPerLon is taken at the center: 15 km north or south of it the error is 0.3 %.
	metersPerLon           = metersPerLat * math.Cos(cityLat*math.Pi/180)
	streetsSin, streetsCos = math.Sincos(streetsDeg * math.Pi / 180)
)

// point is a position in meters from the center along the two directions of the streets.
type point struct{ x, y float64 }

// fromCenter is the point so many meters east and north of the center.
func fromCenter(east, north float64) point {
	return point{east*streetsCos + north*streetsSin, north*streetsCos - east*streetsSin}
}

// degrees is the latitude and longitude of the point.
func (p point) degrees() (lat, lon float64) {
	east, north := p.x*streetsCos-p.y*streetsSin, p.y*streetsCos+p.x*streetsSin
	return cityLat + north/metersPerLat, cityLon + east/metersPerLon
}

func (p point) distance(o point) float64 { return math.Hypot(p.x-o.x, p.y-o.y) }

// to is the distance to another point in meters and the unit vector of its direction.
func (p point) to(o point) (meters float64, direction point) {
	meters = p.distance(o)
	return meters, point{(o.x - p.x) / meters, (o.y - p.y) / meters}
}

// near is a point at most so many meters away in each direction.
func (p point) near(d *dice, meters float64) point {
	return point{p.x + d.between(-meters, meters), p.y + d.between(-meters, meters)}
}

// zone is a circle with a name.
type zone struct {
	name   string
	center point
	radius float64 // meters
}

// city is where vehicles go. It is read-only once built.
type city struct {
	depots    []point
	customers []point // in the city
	outside   []point // in the towns around, at the airport and the harbour
	zones     []zone
}

func buildCity() *city {
	c, d := &city{}, roll(1, 1)
	c.depots = []point{fromCenter(4_835, 2_060), fromCenter(-4_266, -3_359), fromCenter(-1_307, 4_899), fromCenter(1_701, -4_472)}
	for _, depot := range c.depots {
		c.zones = append(c.zones, zone{"depot", depot, 180})
	}
	for len(c.customers) < 60 {
		// The square root of a uniform number would spread them evenly; this crowds them in the middle.
		sin, cos := math.Sincos(d.between(0, 2*math.Pi))
		r := 6_800 * d.unit()
		at := point{r * cos, r * sin}
		if !slices.ContainsFunc(c.depots, func(depot point) bool { return depot.distance(at) < minTrip }) {
			c.customers = append(c.customers, at)
		}
	}
	towns := []zone{
		{"airport", fromCenter(-3_019, 10_019), 700}, {"harbour", fromCenter(-8_740, 4_525), 900},
		{"industrial", fromCenter(6_230, -7_449), 900}, {"", fromCenter(17_500, 1_500), 900}, {"", fromCenter(9_500, -21_000), 900},
	}
	for _, town := range towns {
		for range 4 {
			c.outside = append(c.outside, town.center.near(&d, 0.6*town.radius))
		}
	}
	c.zones = append(append(c.zones, zone{"city-centre", point{}, 1_400}), towns...)
	return c
}

// zoneAt is the name of the zone at a point, or empty where there is none.
func (c *city) zoneAt(p point) string {
	for i := range c.zones {
		z := &c.zones[i]
		if dx, dy := p.x-z.center.x, p.y-z.center.y; dx*dx+dy*dy < z.radius*z.radius {
			return z.name
		}
	}
	return ""
}

package generator

import (
	"container/heap"
	"math"
	"slices"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// The city lies where Hannover does: flat land, an airport, a harbour and towns around. Its streets are made up.
const (
	cityLat = 52.3740
	cityLon = 9.7380

	metersPerLat   = telemetry.EarthRadiusM * math.Pi / 180
	gridLines      = 33
	gridSpacing    = 430.0 // meters between two streets, on average
	gridRadius     = 7200.0
	arterialEvery  = 4
	ringRadius     = 5600.0
	ringNodes      = 44
	interchangeGap = 4 // ring nodes from one interchange to the next
)

// metersPerLon is taken at the center: 15 km north or south of it the error is 0.3 %.
var metersPerLon = metersPerLat * math.Cos(cityLat*math.Pi/180)

// Speed limits of the streets in m/s.
const (
	yardLimit     = 12 / 3.6
	localLimit    = 42 / 3.6
	arterialLimit = 60 / 3.6
	rampLimit     = 55 / 3.6
	motorwayLimit = 84 / 3.6
)

// node is a crossing, or a bend of a motorway. Positions are meters east and north of the center.
type node struct {
	x, y  float64
	edges []edge
}

type edge struct {
	to    uint16
	limit float64 // m/s
	cost  float64 // seconds, as drivers who choose a way see it
}

// place is where vehicles stop: a crossing with a yard off the street, in the direction (yardX, yardY).
type place struct {
	node         uint16
	yardX, yardY float64
}

// zone is a circle with a name.
type zone struct {
	name   string
	x, y   float64
	radius float64 // meters
}

// city is the streets, and for each place the way to it from everywhere. It is read-only once built.
type city struct {
	nodes  []node
	places []place
	next   [][]uint8 // by place and node: which of the node's edges leads there
	zones  []zone

	depots    []uint8 // indexes into places
	customers []uint8 // in the city
	outside   []uint8 // in the towns around, at the airport and the harbour
}

const noWay = math.MaxUint8

// buildCity lays out the streets. It takes some 10 ms.
func buildCity() *city {
	c := &city{}
	d := roll(1, 1)
	c.layGrid(&d)
	crossings := len(c.nodes)
	ring := c.layRing(crossings)

	airport := c.laySpoke(&d, ring, -2_900, 9_600, 3, 260)
	harbour := c.laySpoke(&d, ring, -8_300, 3_900, 4, 240)
	works := c.laySpoke(&d, ring, 6_000, -6_600, 4, 280)
	eastTown := c.laySpoke(&d, ring, 17_500, 1_500, 5, 300)
	southTown := c.laySpoke(&d, ring, 9_500, -21_000, 5, 320)

	for _, at := range [][2]float64{{4_600, 2_300}, {-4_100, -3_300}, {-1_500, 4_700}, {1_900, -4_600}} {
		n := c.nearest(at[0], at[1], crossings)
		c.depots = append(c.depots, c.addPlace(n))
		c.zones = append(c.zones, zone{"depot", c.nodes[n].x, c.nodes[n].y, 180})
	}
	for len(c.customers) < 60 {
		// The square root of a uniform number would spread them evenly; this crowds them in the middle.
		r, a := gridRadius*0.95*d.unit(), d.between(0, 2*math.Pi)
		if n := c.nearest(r*math.Cos(a), r*math.Sin(a), crossings); !c.hasPlace(n) {
			c.customers = append(c.customers, c.addPlace(n))
		}
	}
	for i, grids := 0, [][]uint16{airport, harbour, works, eastTown, southTown}; len(c.outside) < 20; i++ {
		grid := grids[i%len(grids)]
		if n := grid[d.below(len(grid))]; !c.hasPlace(n) {
			c.outside = append(c.outside, c.addPlace(n))
		}
	}
	centreOf := func(name string, grid []uint16, radius float64) zone {
		mid := c.nodes[grid[len(grid)/2]]
		return zone{name, mid.x, mid.y, radius}
	}
	c.zones = append(c.zones,
		zone{"city-centre", 0, 0, 1_400},
		centreOf("airport", airport, 700),
		centreOf("harbour", harbour, 900),
		centreOf("industrial", works, 900),
	)

	c.next = make([][]uint8, len(c.places))
	for i := range c.places {
		c.next[i] = c.waysTo(c.places[i].node)
	}
	return c
}

func (c *city) addNode(x, y float64) uint16 {
	c.nodes = append(c.nodes, node{x: x, y: y})
	return uint16(len(c.nodes) - 1)
}

// join makes a street of both directions.
func (c *city) join(a, b uint16, limit, detour float64) {
	cost := math.Hypot(c.nodes[a].x-c.nodes[b].x, c.nodes[a].y-c.nodes[b].y) / limit * detour
	c.nodes[a].edges = append(c.nodes[a].edges, edge{b, limit, cost})
	c.nodes[b].edges = append(c.nodes[b].edges, edge{a, limit, cost})
}

// layGrid lays the inner streets: two families of lines, unevenly spaced and turned off north, every fourth of them
// an arterial, some blocks without a street.
func (c *city) layGrid(d *dice) {
	lines := func() (at [gridLines]float64) {
		sum := 0.0
		for i := range at {
			at[i] = sum
			sum += gridSpacing * d.between(0.6, 1.4)
		}
		for i := range at {
			at[i] -= sum / 2
		}
		return at
	}
	xs, ys := lines(), lines()
	sin, cos := math.Sincos(-14 * math.Pi / 180)

	var at [gridLines][gridLines]int
	for i, x := range xs {
		for j, y := range ys {
			// Streets bend with the land, and no crossing is quite in line.
			x, y := x+230*math.Sin(y/1500)+d.between(-25, 25), y+260*math.Sin(x/1900+1)+d.between(-25, 25)
			at[i][j] = -1
			if math.Hypot(x, y) < gridRadius {
				at[i][j] = int(c.addNode(x*cos-y*sin, x*sin+y*cos))
			}
		}
	}
	street := func(a, b, line int) {
		gone, detour := d.chance(0.15), d.between(1, 1.3)
		switch {
		case a < 0 || b < 0:
		case line%arterialEvery == 0:
			c.join(uint16(a), uint16(b), arterialLimit, detour)
		case !gone:
			// Drivers keep off small streets: the detour makes them prefer a few turns to many.
			c.join(uint16(a), uint16(b), localLimit, detour*1.1)
		}
	}
	for i := range gridLines {
		for j := range gridLines {
			if i+1 < gridLines {
				street(at[i][j], at[i+1][j], j)
			}
			if j+1 < gridLines {
				street(at[i][j], at[i][j+1], i)
			}
		}
	}
}

// layRing lays the motorway around the center, over the streets, with ramps to the nearest crossings.
func (c *city) layRing(crossings int) []uint16 {
	ring := make([]uint16, ringNodes)
	for i := range ring {
		a := 2 * math.Pi * float64(i) / ringNodes
		r := ringRadius * (1 + 0.05*math.Sin(3*a)) // no motorway is a circle
		ring[i] = c.addNode(r*math.Sin(a), r*math.Cos(a))
		if i > 0 {
			c.join(ring[i-1], ring[i], motorwayLimit, 1)
		}
	}
	c.join(ring[ringNodes-1], ring[0], motorwayLimit, 1)
	for i := 0; i < ringNodes; i += interchangeGap {
		n := c.nodes[ring[i]]
		c.join(ring[i], c.nearest(n.x*0.92, n.y*0.92, crossings), rampLimit, 1.5)
	}
	return ring
}

// laySpoke lays a motorway from the ring to (x, y), with a small grid of streets at its end, and gives the grid.
func (c *city) laySpoke(d *dice, ring []uint16, x, y float64, size int, spacing float64) []uint16 {
	from := ring[0]
	for _, n := range ring {
		if c.distance(n, x, y) < c.distance(from, x, y) {
			from = n
		}
	}
	fx, fy := c.nodes[from].x, c.nodes[from].y
	length := math.Hypot(x-fx, y-fy)
	ux, uy := (x-fx)/length, (y-fy)/length
	parts := max(2, int(length/900))
	last := from
	for i := 1; i <= parts; i++ {
		f := float64(i) / float64(parts)
		sway := 0.05 * length * math.Sin(2*math.Pi*f) // starts and ends on the straight line
		n := c.addNode(fx+ux*length*f-uy*sway, fy+uy*length*f+ux*sway)
		limit := motorwayLimit
		if i == parts {
			limit = rampLimit
		}
		c.join(last, n, limit, 1)
		last = n
	}

	// The grid begins where the motorway ends and lies ahead of it.
	grid := make([]uint16, 0, size*size)
	ex, ey := c.nodes[last].x, c.nodes[last].y
	for i := range size {
		for j := range size {
			ahead := 180 + spacing*(float64(i)+d.between(-0.1, 0.1))
			side := spacing * (float64(j) - float64(size-1)/2 + d.between(-0.1, 0.1))
			n := c.addNode(ex+ux*ahead-uy*side, ey+uy*ahead+ux*side)
			if i > 0 {
				c.join(grid[len(grid)-size], n, localLimit, d.between(1, 1.2))
			}
			if j > 0 {
				c.join(grid[len(grid)-1], n, localLimit, d.between(1, 1.2))
			}
			grid = append(grid, n)
		}
	}
	c.join(last, grid[size/2], rampLimit, 1)
	return grid
}

func (c *city) distance(n uint16, x, y float64) float64 {
	return math.Hypot(c.nodes[n].x-x, c.nodes[n].y-y)
}

// nearest is the crossing nearest to (x, y) among the first so many nodes that a street leads to.
func (c *city) nearest(x, y float64, among int) uint16 {
	best, found := uint16(0), math.Inf(1)
	for i := range among {
		if dist := c.distance(uint16(i), x, y); dist < found && len(c.nodes[i].edges) > 1 {
			best, found = uint16(i), dist
		}
	}
	return best
}

func (c *city) hasPlace(n uint16) bool {
	return slices.ContainsFunc(c.places, func(p place) bool { return p.node == n })
}

// addPlace puts a yard into the widest gap between the streets that meet at n.
func (c *city) addPlace(n uint16) uint8 {
	at := c.nodes[n]
	angles := make([]float64, 0, len(at.edges))
	for _, e := range at.edges {
		angles = append(angles, math.Atan2(c.nodes[e.to].y-at.y, c.nodes[e.to].x-at.x))
	}
	widest, yard := 0.0, 0.0
	for _, a := range angles {
		gap := 2 * math.Pi
		for _, b := range angles {
			if turn := math.Mod(b-a+4*math.Pi, 2*math.Pi); turn > 0 {
				gap = min(gap, turn)
			}
		}
		if gap > widest {
			widest, yard = gap, a+gap/2
		}
	}
	c.places = append(c.places, place{n, math.Cos(yard), math.Sin(yard)})
	return uint8(len(c.places) - 1)
}

// reach is a node with the seconds from it to a place.
type reach struct {
	node uint16
	cost float64
}

func (r reach) before(o reach) bool { return r.cost < o.cost } //nolint:unused // queue calls it

// waysTo is Dijkstra's search from a node over all others: for each of them the edge that leads to it soonest.
func (c *city) waysTo(target uint16) []uint8 {
	way := make([]uint8, len(c.nodes))
	cost := make([]float64, len(c.nodes))
	for i := range way {
		way[i], cost[i] = noWay, math.Inf(1)
	}
	cost[target] = 0
	open := &queue[reach]{{target, 0}}
	for open.Len() > 0 {
		at := heap.Pop(open).(reach)
		if at.cost > cost[at.node] {
			continue
		}
		for _, e := range c.nodes[at.node].edges {
			total := at.cost + e.cost + c.crossingCost(e.to)
			if total >= cost[e.to] {
				continue
			}
			cost[e.to] = total
			for i, back := range c.nodes[e.to].edges {
				if back.to == at.node {
					way[e.to] = uint8(i)
				}
			}
			heap.Push(open, reach{e.to, total})
		}
	}
	return way
}

// crossingCost is the seconds that a crossing is expected to cost.
func (c *city) crossingCost(n uint16) float64 {
	if len(c.nodes[n].edges) > 2 {
		return 5
	}
	return 0
}

// zoneAt is the index of the zone at (x, y) plus one, or 0 where there is none.
func (c *city) zoneAt(x, y float64) uint8 {
	for i := range c.zones {
		z := &c.zones[i]
		if dx, dy := x-z.x, y-z.y; dx*dx+dy*dy < z.radius*z.radius {
			return uint8(i + 1)
		}
	}
	return 0
}

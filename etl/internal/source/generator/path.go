package generator

import "math"

// horizon is how many corners a driver sees ahead. The shortest look, over the four of a motorway, is 2 km: enough to
// stop from any speed. What lies beyond counts as a standstill, so that no new corner can ever come too suddenly.
const horizon = 4

const (
	sideways     = 2.0  // m/s² that a driver accepts in a bend
	yaw          = 0.7  // maximum turn rate in a yard, radians/s
	crawl        = 0.3  // m/s that every corner can be taken at
	straightOn   = 1e-3 // radians; a smaller turn is not a corner
	sharp        = math.Pi / 4
	lightChance  = 0.22 // that a traffic light on an arterial is red
	yieldChance  = 0.05 // that crossing traffic makes a vehicle stop elsewhere
	motorwayFrom = 75 / 3.6
)

// corner is the end of a straight and the arc that leads from it into the next one.
type corner struct {
	x, y    float64 // where the two straights would meet, meters
	ux, uy  float64 // direction of the straight that leads here
	heading float64 // the same in radians clockwise from north
	length  float64 // of that straight, corner to corner, meters
	limit   float64 // on it, m/s
	node    uint16
	final   bool // the vehicle stops here and stays
	closed  bool // the next corner is known, and with it what follows

	turn     float64 // radians, clockwise positive
	cut      float64 // meters before and after the corner where the arc begins and ends
	arc      float64 // length of the arc, meters
	arcLimit float64 // m/s
	wait     float64 // seconds at a red light before the arc

	// The maximum speeds at the ends of the straight and of the arc that allow to brake for everything ahead.
	straightCap, arcCap float64
}

// way is the path ahead of a vehicle: where the straight it is on began, and the corners that come.
type way struct {
	x, y    float64 // where the current straight began, corner to corner
	cut     float64 // how much of its beginning the last arc took
	corners [horizon]corner
	known   int
	at      uint16 // the last node that is in corners
	dest    uint8  // the place it goes to
	yardX   float64
	yardY   float64 // where in the place's yard, meters
	brake   float64 // m/s² that the driver brakes with
}

// begin lays the path from a standstill at (x, y), which is the crossing first itself or a yard beside it, to where
// dest, yardX and yardY say.
func (w *way) begin(c *city, d *dice, x, y float64, first uint16, fromYard bool) {
	w.x, w.y, w.cut, w.known, w.at = x, y, 0, 0, first
	if fromYard {
		w.append(c, d, first, c.nodes[first].x, c.nodes[first].y, yardLimit)
	}
	w.fill(c, d)
}

// pass leaves the first corner behind.
func (w *way) pass(c *city, d *dice) {
	done := &w.corners[0]
	w.x, w.y, w.cut = done.x, done.y, done.cut
	copy(w.corners[:], w.corners[1:w.known])
	w.known--
	w.fill(c, d)
}

// fill looks as far ahead as the horizon goes.
func (w *way) fill(c *city, d *dice) {
	for w.known < horizon && (w.known == 0 || !w.corners[w.known-1].final) {
		if w.at == c.places[w.dest].node {
			w.append(c, d, w.at, w.yardX, w.yardY, yardLimit)
			w.corners[w.known-1].final = true
			continue
		}
		e := c.nodes[w.at].edges[c.next[w.dest][w.at]]
		w.append(c, d, e.to, c.nodes[e.to].x, c.nodes[e.to].y, e.limit)
	}
	w.plan()
}

func (w *way) append(c *city, d *dice, to uint16, x, y, limit float64) {
	fx, fy := w.x, w.y
	if w.known > 0 {
		fx, fy = w.corners[w.known-1].x, w.corners[w.known-1].y
	}
	length := math.Hypot(x-fx, y-fy)
	k := &w.corners[w.known]
	*k = corner{x: x, y: y, ux: (x - fx) / length, uy: (y - fy) / length, length: length, limit: limit, node: to}
	k.heading = math.Atan2(k.ux, k.uy)
	w.known++
	w.at = to
	if w.known > 1 {
		w.corners[w.known-2].close(c, d, k)
	}
}

// close fits the arc that leads into the next straight.
func (k *corner) close(c *city, d *dice, next *corner) {
	k.closed = true
	k.turn = math.Remainder(next.heading-k.heading, 2*math.Pi)
	angle := math.Abs(k.turn)
	k.arcLimit = math.Inf(1)
	if angle > straightOn {
		reach := min(arcReach(k.limit), arcReach(next.limit))
		if angle > sharp && min(k.limit, next.limit) < motorwayFrom {
			reach = min(reach, 18)
		}
		k.cut = min(reach, 0.45*k.length, 0.45*next.length)
		radius := k.cut / math.Tan(angle/2)
		k.arc = radius * angle
		k.arcLimit = max(crawl, min(math.Sqrt(sideways*radius), yaw*radius))
	}
	if next.limit < k.limit {
		k.arcLimit = min(k.arcLimit, next.limit)
	}
	if max(k.limit, next.limit) < motorwayFrom && len(c.nodes[k.node].edges) > 2 {
		switch arterial := max(k.limit, next.limit) > localLimit; {
		case arterial && d.chance(lightChance):
			k.wait = d.between(4, 55)
		case d.chance(yieldChance):
			k.wait = d.between(2, 7)
		}
	}
}

// arcReach is how far before a corner a vehicle may begin to turn, by the width that streets of a limit have.
func arcReach(limit float64) float64 {
	switch {
	case limit >= motorwayFrom:
		return 200
	case limit > localLimit:
		return 40
	default:
		return 14
	}
}

// plan goes back from the farthest corner, where the vehicle must be able to stand, and caps every speed on the way.
func (w *way) plan() {
	next := 0.0 // the highest speed at which the following straight may be entered, from the end back
	for i := w.known - 1; i >= 0; i-- {
		k := &w.corners[i]
		if !k.closed {
			k.straightCap, k.arcCap = 0, 0
		} else {
			k.arcCap = min(next, k.arcLimit)
			k.straightCap = 0
			if k.wait == 0 {
				k.straightCap = min(k.arcLimit, math.Sqrt(k.arcCap*k.arcCap+2*w.brake*k.arc))
			}
		}
		before := 0.0
		if i > 0 {
			before = w.corners[i-1].cut
		}
		next = math.Sqrt(k.straightCap*k.straightCap + 2*w.brake*max(0, k.length-k.cut-before))
	}
}

// straight is the length in meters of the straight that is being driven, without what arcs take of it.
func (w *way) straight() float64 { return max(0, w.corners[0].length-w.corners[0].cut-w.cut) }

// onStraight is the position and the heading after s meters of the straight.
func (w *way) onStraight(s float64) (x, y, heading float64) {
	k := &w.corners[0]
	return w.x + k.ux*(w.cut+s), w.y + k.uy*(w.cut+s), k.heading
}

// onArc is the position and the heading after s meters of the arc.
func (w *way) onArc(s float64) (x, y, heading float64) {
	k := &w.corners[0]
	angle := math.Abs(k.turn)
	radius := k.arc / angle
	sin, cos := math.Sincos(s / radius)
	side := math.Copysign(radius*(1-cos), k.turn) // to the right where the turn is clockwise
	along := radius*sin - k.cut
	return k.x + k.ux*along + k.uy*side, k.y + k.uy*along - k.ux*side, k.heading + k.turn*(s/k.arc)
}

package generator

import "math"

// Speed limits in m/s. Drivers take the larger streets for the longer ways, so the length of a straight decides.
const (
	localLimit    = 42 / 3.6
	arterialLimit = 54 / 3.6
	motorwayLimit = 84 / 3.6

	localUpTo    = 1_500.0 // meters
	arterialUpTo = 5_000.0
)

const (
	cornerRadius = 18.0                       // meters
	cornerLength = cornerRadius * math.Pi / 2 // meters
	cornerSpeed  = 6.0                        // m/s, which is 2 m/s² to the side
	shortest     = 60.0                       // meters of a straight: enough for two corners, and to brake between them
	lightEvery   = 2_000.0                    // meters from one red light to the next, on average
	stretch      = 0.01                       // meters; a shorter remainder of a straight counts as its end
)

// phase is a period of constant acceleration along the path. It makes any time step exact.
type phase struct {
	from, to float64 // speed at its beginning and end, m/s
	length   float64 // meters
	duration float64 // seconds
	spent    float64 // seconds of it that are over
}

// now is the speed in m/s and the meters covered.
func (p *phase) now() (speed, meters float64) {
	acc := (p.to - p.from) / p.duration
	return p.from + acc*p.spent, p.spent * (p.from + 0.5*acc*p.spent)
}

// over makes a phase that changes the speed from one to another over so many meters.
func over(from, to, meters float64) phase {
	return phase{from: from, to: to, length: meters, duration: 2 * meters / (from + to)}
}

// driver is how one vehicle is driven along its way: straights with right-angled corners between them. The path cuts the
// corners off with arcs.
type driver struct {
	accelerate float64 // m/s²
	brake      float64 // m/s²
	pace       float64 // what the driver makes of a limit, as a factor

	moving  bool
	turning bool    // it is on an arc
	way     []point // from the last corner, or where it set off, over the next corners to where it stops
	phase   phase
	along   float64 // meters between way[0], or the beginning of the arc, and the phase

	// The straight from way[0] to way[1].
	length    float64 // meters
	direction point   // unit vector
	light     float64 // meters of it at which a red light is; beyond its end for none
	hurry     float64 // what the driver makes of the limit of a motorway, as a factor
	wobble    float64 // how far the speed strays from the one that is aimed at, as a factor
}

// setOff starts from a standstill.
func (v *driver) setOff(d *dice, from, to point) {
	v.way = []point{from, {to.x, from.y}, to}
	if d.chance(0.5) {
		v.way[1] = point{from.x, to.y}
	}
	if min(math.Abs(from.x-to.x), math.Abs(from.y-to.y)) < shortest {
		v.way = []point{from, to}
	}
	v.phase, v.moving = phase{}, true
	v.enter(d, 0)
	v.end(d)
}

// enter begins a straight, so many meters into it: the last corner cut its beginning off.
func (v *driver) enter(d *dice, along float64) {
	v.turning, v.along = false, along
	v.length, v.direction = v.way[0].to(v.way[1])
	v.light, v.hurry, v.wobble = math.Inf(1), 1, 1
	switch {
	case v.length <= arterialUpTo:
		v.nextLight(d)
	case d.chance(0.04):
		v.hurry = d.between(1.48, 1.65)
	case d.chance(0.1):
		v.hurry = d.between(1.15, 1.42)
	}
}

// nextLight finds the next red light, far enough ahead to stop there.
func (v *driver) nextLight(d *dice) {
	v.light = v.along + 1 + v.phase.to*v.phase.to/(2*v.brake) - lightEvery*math.Log(1-d.unit())
}

// end closes a phase that is over and finds the next. It is false when the vehicle has arrived.
func (v *driver) end(d *dice) (moving bool) {
	v.along += v.phase.length
	for {
		goal, exit := v.length, 0.0 // meters, and the speed in m/s at which the leg ends there
		switch {
		case v.turning:
			goal, exit = cornerLength, cornerSpeed
		case len(v.way) > 2:
			goal, exit = v.length-cornerRadius, cornerSpeed
		}
		red := !v.turning && v.light < goal
		if red {
			goal, exit = v.light, 0
		}
		if left := goal - v.along; left > stretch {
			v.phase = v.next(d, left, exit)
			return true
		}
		switch {
		case v.turning:
			v.way = v.way[1:]
			v.enter(d, cornerRadius)
		case red:
			v.phase = phase{duration: d.between(4, 55)}
			v.nextLight(d)
			return true
		case len(v.way) == 2:
			v.moving = false
			return false
		default:
			v.turning, v.along = true, 0
		}
	}
}

// target is the speed in m/s that the driver aims at.
func (v *driver) target() float64 {
	limit := v.pace * v.wobble
	switch {
	case v.turning:
		return cornerSpeed
	case v.length <= localUpTo:
		return limit * localLimit
	case v.length <= arterialUpTo || v.onStraight(v.along).distance(point{}) < cityRadius:
		return limit * arterialLimit
	default:
		return limit * motorwayLimit * v.hurry
	}
}

// next is what the driver does with so many meters left before the speed must be exit: brake for that, gain speed, or
// keep it.
func (v *driver) next(d *dice, left, exit float64) phase {
	speed, acc, brake, target := v.phase.to, v.accelerate, v.brake, v.target()
	free := left - max(0, (speed*speed-exit*exit)/(2*brake))
	switch {
	case free < stretch && speed > 0:
		return over(speed, min(speed, exit), left)
	case speed > target+0.1:
		// As slow as was aimed at, or as slow as the leg allows.
		slow := math.Sqrt(max(target*target, speed*speed-2*brake*left))
		return over(speed, slow, min(left, (speed*speed-slow*slow)/(2*brake)))
	case speed < target-0.1 || speed == 0:
		// Where gaining and braking meet, if the leg is too short for the speed aimed at.
		meet := math.Sqrt((2*acc*brake*left + brake*speed*speed + acc*exit*exit) / (acc + brake))
		if meet < exit {
			meet = math.Sqrt(speed*speed + 2*acc*left)
		}
		top := min(target, meet)
		return over(speed, top, min(left, (top*top-speed*speed)/(2*acc)))
	default:
		v.wobble = d.between(0.96, 1.04)
		return over(speed, speed, min(free, speed*d.between(3, 11)))
	}
}

// onStraight is the position after s meters of the straight.
func (v *driver) onStraight(s float64) point {
	return point{v.way[0].x + v.direction.x*s, v.way[0].y + v.direction.y*s}
}

// heading is the direction of the straight in radians clockwise from the y axis.
func (v *driver) heading() float64 { return math.Atan2(v.direction.x, v.direction.y) }

// position is where a moving vehicle is now, with its heading as that of a straight and its speed in m/s.
func (v *driver) position() (at point, heading, speed float64) {
	speed, meters := v.phase.now()
	s, u := v.along+meters, v.direction
	if !v.turning {
		return v.onStraight(s), v.heading(), speed
	}
	_, w := v.way[1].to(v.way[2])
	sin, cos := math.Sincos(s / cornerRadius)
	ahead, side := cornerRadius*(sin-1), cornerRadius*(1-cos) // along the last straight and the next one, from the corner
	at = point{v.way[1].x + u.x*ahead + w.x*side, v.way[1].y + u.y*ahead + w.y*side}
	return at, math.Atan2(u.x*cos+w.x*sin, u.y*cos+w.y*sin), speed
}

package generator

import "math"

// A driver's limits. The test of plausibility holds vehicles to 2 m/s².
const (
	stretch     = 0.01     // meters; a shorter remainder of a straight counts as its end
	pickUp      = 15 / 3.6 // m/s that a vehicle gains before it changes gear, that is, acceleration
	fadingSpeed = 55.0     // m/s at which no acceleration would be left
	wobble      = 0.04     // how far the speed strays from the one that is aimed at
)

// where a vehicle is on its path.
type leg uint8

const (
	standing   leg = iota // at a place, parked
	onStraight            // between two arcs
	onArc                 // in a corner
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
	if p.length == 0 {
		return 0, 0
	}
	acc := (p.to - p.from) / p.duration
	return p.from + acc*p.spent, p.spent * (p.from + 0.5*acc*p.spent)
}

// over makes a phase that changes the speed from one to another over so many meters.
func over(from, to, meters float64) phase {
	return phase{from: from, to: to, length: meters, duration: 2 * meters / (from + to)}
}

// driver is how one vehicle is driven along its way.
type driver struct {
	way   way
	phase phase
	leg   leg
	along float64 // meters of the leg that were covered before the phase
	speed float64 // m/s at the beginning of the phase

	accelerate float64 // m/s² from a standstill
	pace       float64 // what the driver makes of a limit, as a factor
	aim        float64 // the speed on this straight, m/s
	target     float64 // the same with its wobble

	hurry float64 // factor on a motorway while the driver speeds
	rush  int     // straights for which that goes on
}

// setOff starts along a way that has just begun.
func (v *driver) setOff(c *city, d *dice, unix float64) {
	v.phase, v.rush = phase{}, 0
	v.enter(d, unix)
	v.end(c, d, unix)
}

// end closes a phase that is over and finds the next. It is false when the vehicle has arrived.
func (v *driver) end(c *city, d *dice, unix float64) (moving bool) {
	v.along += v.phase.length
	v.speed = v.phase.to
	for {
		left, limit, exit := v.ahead()
		if left > stretch {
			v.phase = v.next(d, left, min(limit, v.target), exit)
			return true
		}
		k := &v.way.corners[0]
		switch {
		case v.leg == onStraight && k.final:
			v.leg, v.speed = standing, 0
			return false
		case v.leg == onStraight && k.wait > 0:
			v.phase = phase{duration: k.wait}
			v.speed, k.wait = 0, 0
			v.way.plan()
			return true
		case v.leg == onStraight && k.arc > 0:
			v.leg, v.along = onArc, 0
		default:
			v.way.pass(c, d)
			v.enter(d, unix)
		}
	}
}

// ahead is what remains of the leg in meters, its limit and the highest speed at its end.
func (v *driver) ahead() (left, limit, exit float64) {
	k := &v.way.corners[0]
	if v.leg == onArc {
		return k.arc - v.along, k.arcLimit, k.arcCap
	}
	return v.way.straight() - v.along, math.Inf(1), k.straightCap
}

// enter begins a straight: it fixes the speed that the driver aims at there.
func (v *driver) enter(d *dice, unix float64) {
	v.leg, v.along = onStraight, 0
	limit := v.way.corners[0].limit
	v.aim = limit * v.pace
	switch {
	case limit < localLimit: // a yard is the same at any hour
	case limit < motorwayFrom:
		v.aim *= 1 - 0.30*rushHour(unix)
		if d.chance(0.05) {
			v.aim *= d.between(0.3, 0.7) // behind a dustcart
		}
	case v.rush > 0:
		v.rush--
		v.aim *= v.hurry
	default:
		v.aim *= 1 - 0.15*rushHour(unix)
		if d.chance(0.02) {
			v.rush = 1 + d.below(5)
			v.hurry = d.between(1.15, 1.42)
			if d.chance(0.2) {
				v.hurry = d.between(1.48, 1.65)
			}
		}
	}
	v.target = v.aim
}

// next is what the driver does with so many meters left of a leg: brake for what comes, gain speed, or keep it.
func (v *driver) next(d *dice, left, target, exit float64) phase {
	speed, brake := v.speed, v.way.brake
	braking := max(0, (speed*speed-exit*exit)/(2*brake))
	free := left - braking
	switch {
	case free < stretch && speed > 0:
		if exit >= speed {
			return over(speed, speed, left)
		}
		return over(speed, exit, left)
	case speed > target+0.1:
		// As slow as was aimed at, or as slow as the leg allows.
		slow := math.Sqrt(max(target*target, speed*speed-2*brake*left))
		return over(speed, slow, min(left, (speed*speed-slow*slow)/(2*brake)))
	case speed < target-0.1 || speed == 0:
		acc := v.accelerate * (1 - speed/fadingSpeed)
		top := min(target, speed+pickUp)
		// Where gaining and braking meet, if the leg is too short for the speed aimed at.
		meet := math.Sqrt((2*acc*brake*left + brake*speed*speed + acc*exit*exit) / (acc + brake))
		if meet < exit {
			meet = math.Sqrt(speed*speed + 2*acc*left)
		}
		top = min(top, meet)
		return over(speed, top, min(left, (top*top-speed*speed)/(2*acc)))
	default:
		v.target = v.aim * d.between(1-wobble, 1+wobble)
		return over(speed, speed, min(free, speed*d.between(3, 11)))
	}
}

// position is where the vehicle is now, in meters, with its heading in radians and its speed in m/s. It is not to be
// called while it stands at a place.
func (v *driver) position() (x, y, heading, speed float64) {
	speed, meters := v.phase.now()
	if v.leg == onArc {
		x, y, heading = v.way.onArc(v.along + meters)
	} else {
		x, y, heading = v.way.onStraight(v.along + meters)
	}
	return x, y, heading, speed
}

// rushHour is 0 with free streets and 1 in the worst of the morning and the evening.
func rushHour(unix float64) float64 {
	h := math.Mod(unix, day) / hour
	peak := func(at float64) float64 {
		x := (h - at) / 1.3
		return math.Exp(-x * x)
	}
	return max(peak(7), peak(15.5))
}

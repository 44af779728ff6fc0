package generator

import "math"

// vehicle is a simulated vehicle: it drives from its depot to customers and back, rests and charges. Only step advances it,
// so that it does not depend on other vehicles.
type vehicle struct {
	id, fleet string
	phase     int64 // nanoseconds into each interval at which it reports
	clock     int64 // nanoseconds since the start to which it has been simulated
	life      dice  // randomness of the vehicle
	radio     dice  // randomness of its records

	driver  driver
	cargo   cargo
	battery battery
	shift   shift

	depot      uint8
	bayX, bayY float64 // where in its depot it parks, meters
	regional   bool    // mostly drives to the towns around

	place   uint8   // where it stands or is going
	x, y    float64 // where it stands, meters
	heading float64 // in which direction it stands, radians
	until   float64 // Unix seconds until which it stands
	plugged bool    // it stands at a charger
	resting bool    // it stands switched off
	stops   int     // customers left before it goes back to load
}

const (
	regionalOf = 0.18 // of the vehicles
	roadOf     = 0.65 // of those at work that are found on the road when the simulation starts
	farTrip    = 0.05 // of the trips of a vehicle of the city lead out of it
	farTripReg = 0.55 // of the trips of a regional one
)

// newVehicle is the vehicle with that number as it is found at the start, in Unix seconds.
func newVehicle(c *city, seed uint64, number int, start float64) vehicle {
	v := vehicle{life: roll(seed, uint64(number)*2), radio: roll(seed, uint64(number)*2+1)}
	d := &v.life
	v.cargo = rollCargo(d)
	v.battery = rollBattery(d, v.cargo.cooled)
	v.shift = rollShift(d)
	v.regional = d.chance(regionalOf)
	v.driver.way.brake = d.between(1.2, 1.8)
	v.driver.accelerate = d.between(1.0, 1.7)
	v.driver.pace = d.between(0.9, 1.02)
	v.depot = c.depots[d.below(len(c.depots))]
	v.bayX, v.bayY = c.yard(d, v.depot, 90)
	v.cargo.temp = v.cargo.rest(outside(start))
	v.settle(c, start)
	return v
}

// settle puts the vehicle where it may well be at that time: asleep in its depot, at a customer's or on the road.
func (v *vehicle) settle(c *city, unix float64) {
	d := &v.life
	v.place, v.x, v.y = v.depot, v.bayX, v.bayY
	v.heading = d.between(-math.Pi, math.Pi)
	if !v.shift.on(unix) {
		v.battery.pct = d.between(55, 100)
		v.rest(unix)
		return
	}
	v.battery.pct = max(v.battery.returnAt, d.between(70, 100)-55*d.unit()*v.shift.into(unix)/v.shift.length)
	v.stops = 1 + d.below(6)
	v.place = v.customer(c)
	if !d.chance(roadOf) {
		v.x, v.y = c.yard(d, v.place, 45)
		v.until = unix + d.between(0, 8)*minute
		return
	}
	at, dest := c.places[v.place].node, v.customer(c)
	for range 1 + d.below(12) {
		to := c.nodes[at].edges[c.next[dest][at]].to
		if to == c.places[dest].node {
			break
		}
		at = to
	}
	v.goTo(c, dest, c.nodes[at].x, c.nodes[at].y, at, false, unix)
	v.driver.phase = phase{duration: d.between(0, 30)}
}

// step lets the vehicle live on to an instant, in nanoseconds after the start in Unix seconds.
func (v *vehicle) step(c *city, start float64, to int64, outside float64) {
	now, end := start+float64(v.clock)/1e9, start+float64(to)/1e9
	seconds := end - now
	v.clock = to
	for now < end {
		if v.driver.leg == standing {
			till := min(end, v.until)
			v.stand(till - now)
			if now = till; now >= v.until {
				v.depart(c, now)
			}
			continue
		}
		p := &v.driver.phase
		left := p.duration - p.spent
		if left > end-now {
			p.spent += end - now
			break
		}
		now += left
		v.battery.drain(p.length, p.duration)
		if !v.driver.end(c, &v.life, now) {
			v.arrive(c, now, outside)
		}
	}
	v.cargo.pass(&v.life, end, seconds, outside)
}

// stand lets time go by at a place.
func (v *vehicle) stand(seconds float64) {
	switch {
	case v.plugged:
		v.battery.charge(seconds)
	case !v.resting:
		v.battery.drain(0, seconds)
	}
}

// arrive parks the vehicle and says for how long.
func (v *vehicle) arrive(c *city, unix, outside float64) {
	d := &v.life
	last := &v.driver.way.corners[0]
	v.x, v.y, v.heading = last.x, last.y, last.heading
	if v.place == v.depot {
		v.stops = 3 + d.below(6)
		v.until = unix + d.between(6, 18)*minute
		v.plugged = d.chance(0.5)
		return
	}
	v.stops--
	v.cargo.open(outside)
	quick := d.unit()
	v.until = unix + (1.2+10*quick*quick)*minute
	if d.chance(0.03) {
		v.until += d.between(25, 45) * minute // lunch
	}
}

// depart ends a stay: the vehicle goes on, home, or stays for longer.
func (v *vehicle) depart(c *city, unix float64) {
	home := v.place == v.depot
	low := v.battery.fitted && v.battery.pct < v.battery.returnAt
	switch {
	case home && !v.shift.on(unix):
		v.rest(unix)
	case home && v.battery.fitted && v.battery.pct < v.battery.returnAt+15:
		v.plugged = true
		v.until = unix + (fullEnough-v.battery.pct)/(v.battery.charging)
	case !home && (low || v.stops <= 0 || !v.shift.on(unix)):
		v.leave(c, v.depot, unix)
	default:
		v.leave(c, v.customer(c), unix)
	}
}

// rest parks the vehicle in its depot until some minutes into its next shift, at a charger as a rule.
func (v *vehicle) rest(unix float64) {
	v.resting = true
	v.plugged = !v.life.chance(unpluggedOf)
	v.until = unix + v.shift.untilNext(unix) + v.life.between(0, 12)*minute
}

// leave sets off from the yard in which the vehicle stands.
func (v *vehicle) leave(c *city, dest uint8, unix float64) {
	v.goTo(c, dest, v.x, v.y, c.places[v.place].node, true, unix)
}

// goTo sets off from a standstill at (x, y), which is the crossing itself or a yard beside it, for a place.
func (v *vehicle) goTo(c *city, dest uint8, x, y float64, crossing uint16, fromYard bool, unix float64) {
	v.resting, v.plugged = false, false
	v.place = dest
	w := &v.driver.way
	w.dest, w.yardX, w.yardY = dest, v.bayX, v.bayY
	if dest != v.depot {
		w.yardX, w.yardY = c.yard(&v.life, dest, 45)
	}
	w.begin(c, &v.life, x, y, crossing, fromYard)
	v.driver.setOff(c, &v.life, unix)
}

// customer chooses where to go next: of two in the city the nearer, so that rounds hang together, or somewhere outside.
func (v *vehicle) customer(c *city) uint8 {
	d := &v.life
	far := farTrip
	if v.regional {
		far = farTripReg
	}
	from := c.places[v.place].node
	for {
		var to uint8
		if d.chance(far) {
			to = c.outside[d.below(len(c.outside))]
		} else {
			to = c.customers[d.below(len(c.customers))]
			other := c.customers[d.below(len(c.customers))]
			at := c.nodes[from]
			if c.distance(c.places[other].node, at.x, at.y) < c.distance(c.places[to].node, at.x, at.y) {
				to = other
			}
		}
		if c.places[to].node != from {
			return to
		}
	}
}

// yard is a parking bay at a place, 20 m from the crossing or up to so many more.
func (c *city) yard(d *dice, p uint8, depth float64) (x, y float64) {
	at := &c.places[p]
	in := 20 + depth*d.unit()
	side := 0.5 * in * d.between(-1, 1)
	n := &c.nodes[at.node]
	return n.x + at.yardX*in - at.yardY*side, n.y + at.yardY*in + at.yardX*side
}

// reading is a record in whole units of what is written, so that text and number agree to the last digit.
type reading struct {
	timeMs   int64
	lat, lon int32  // millionths of a degree
	speed    uint16 // tenths of km/h
	heading  uint16 // tenths of a degree
	temp     int16  // tenths of °C, or noTemp
	battery  int8   // percent, or noBattery
	zone     uint8  // as zoneAt gives it
}

const (
	noTemp    = math.MinInt16
	noBattery = -1
)

// read is what the vehicle's instruments show at an instant, in Unix seconds.
func (v *vehicle) read(c *city, unix float64) reading {
	x, y, heading, speed := v.x, v.y, v.heading, 0.0
	if v.driver.leg != standing {
		x, y, heading, speed = v.driver.position()
	}
	r := reading{
		lat:     int32(math.Round((cityLat + y/metersPerLat) * 1e6)),
		lon:     int32(math.Round((cityLon + x/metersPerLon) * 1e6)),
		speed:   uint16(speed*36 + 0.5),
		heading: uint16(int(heading*(1800/math.Pi)+7200.5) % 3600),
		temp:    noTemp,
		battery: noBattery,
		zone:    c.zoneAt(x, y),
	}
	if v.cargo.sensor {
		r.temp = int16(math.Round(v.cargo.reading(&v.life, unix) * 10))
	}
	if v.battery.fitted {
		r.battery = int8(v.battery.pct + 0.5)
	}
	return r
}

package generator

import (
	"math"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// vehicle is a simulated vehicle: it drives from its depot to customers and back, rests and charges. Only step advances it,
// so that it does not depend on other vehicles.
type vehicle struct {
	id, fleet string
	phase     int64   // nanoseconds into each interval at which it reports
	clock     float64 // Unix seconds to which it has been simulated
	life      dice    // randomness of the vehicle
	radio     dice    // randomness of its records

	driver  driver
	cargo   cargo
	battery battery
	shift   shift

	depot point
	bay   point   // where in its depot it parks
	far   float64 // chance of a trip out of the city

	place   point   // the depot or customer where it stands or is going
	at      point   // where it stands
	heading float64 // in which direction it stands, radians
	until   float64 // Unix seconds until which it stands
	plugged bool    // it stands at a charger
}

const (
	regionalOf = 0.18     // of the vehicles mostly drive to the towns around
	loadAfter  = 0.16     // of the customers, a vehicle goes back to its depot
	yard       = 40.0     // meters around a place in which vehicles park, in each direction
	minTrip    = 8 * yard // meters between two places, so that any two bays have a way between them
)

// newVehicle is the vehicle with that number as it is found at the start, in Unix seconds: asleep in its depot, at a
// customer's or on the road.
func newVehicle(c *city, seed uint64, number int, start float64) vehicle {
	v := vehicle{life: roll(seed, uint64(number)*2), radio: roll(seed, uint64(number)*2+1)}
	d := &v.life
	v.cargo = rollCargo(d)
	v.battery = rollBattery(d, v.cargo.cooled)
	v.shift = rollShift(d)
	v.far = 0.05
	if d.chance(regionalOf) {
		v.far = 0.55
	}
	v.driver.brake = d.between(1.2, 1.8)
	v.driver.accelerate = d.between(1.0, 1.7)
	v.driver.pace = d.between(0.9, 1.02)
	v.depot = pick(d, c.depots...)
	v.bay = v.depot.near(d, 2*yard)
	v.cargo.temp = v.cargo.rest(outside(start))

	v.place, v.at, v.clock = v.depot, v.bay, start
	v.heading = d.between(-math.Pi, math.Pi)
	if !v.shift.on(start) {
		v.battery.pct = d.between(55, 100)
		v.rest(start)
		return v
	}
	v.battery.pct = max(v.battery.returnAt, d.between(70, 100)-55*d.unit()*v.shift.into(start)/v.shift.length)
	v.place = v.customer(c)
	v.at = v.place.near(d, yard)
	v.until = start + d.between(-20, 8)*minute
	v.clock = min(start, v.until)
	v.step(c, start)
	return v
}

// step lets the vehicle live on to an instant, in Unix seconds.
func (v *vehicle) step(c *city, end float64) {
	now, air := v.clock, outside(end)
	v.cargo.pass(&v.life, end, end-now, air)
	v.clock = end
	for now < end {
		if !v.driver.moving {
			till := min(end, v.until)
			if v.plugged {
				v.battery.charge(till - now)
			} else {
				v.battery.drain(0, till-now)
			}
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
		if !v.driver.end(&v.life) {
			v.arrive(now, air)
		}
	}
}

// arrive parks the vehicle and says for how long.
func (v *vehicle) arrive(unix, air float64) {
	d := &v.life
	v.at, v.heading = v.driver.way[1], v.driver.heading()
	if v.place == v.depot {
		v.until = unix + d.between(6, 18)*minute
		v.plugged = d.chance(0.5)
		return
	}
	v.cargo.open(air)
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
		v.until = unix + (fullEnough-v.battery.pct)/v.battery.charging
	case !home && (low || v.life.chance(loadAfter) || !v.shift.on(unix)):
		v.leave(v.depot, v.bay)
	default:
		to := v.customer(c)
		v.leave(to, to.near(&v.life, yard))
	}
}

// rest parks the vehicle at a charger in its depot until some minutes into its next shift.
func (v *vehicle) rest(unix float64) {
	v.plugged = true
	v.until = unix + v.shift.untilNext(unix) + v.life.between(0, 12)*minute
}

// leave sets off for a bay at a place.
func (v *vehicle) leave(to, bay point) {
	v.driver.setOff(&v.life, v.at, bay)
	v.plugged, v.place = false, to
}

// customer chooses where to go next: of two in the city the nearer, so that rounds hang together, or somewhere outside.
func (v *vehicle) customer(c *city) point {
	d, here := &v.life, v.place
	for {
		to, other := pick(d, c.customers...), pick(d, c.customers...)
		if d.chance(v.far) {
			to = pick(d, c.outside...)
		} else if other.distance(here) < to.distance(here) {
			to = other
		}
		if to.distance(here) > minTrip {
			return to
		}
	}
}

// read stores what the vehicle's instruments show in a record. The numbers are whole units of what is written.
func (v *vehicle) read(c *city, r *telemetry.Record) {
	at, heading, speed := v.at, v.heading, 0.0
	if v.driver.moving {
		at, heading, speed = v.driver.position()
	}
	lat, lon := at.degrees()
	r.DeviceID, r.FleetID, r.Zone = v.id, v.fleet, c.zoneAt(at)
	r.Lat, r.Lon = decimals(lat, 6), decimals(lon, 6)
	r.SpeedKmh = telemetry.Some(decimals(max(0, speed*3.6), 1))
	tenths := int((heading*180/math.Pi-streetsDeg)*10+7200.5) % 3600
	r.HeadingDeg = telemetry.Some(float64(tenths) / 10)
	if v.cargo.sensor {
		r.TempC = telemetry.Some(decimals(v.cargo.reading(&v.life), 1))
	}
	if v.battery.fitted {
		r.BatteryPct = telemetry.Some(int32(v.battery.pct + 0.5))
	}
}

// battery is the drive battery of a vehicle. Vehicles with a combustion engine report none.
type battery struct {
	fitted   bool
	pct      float64
	perMeter float64 // percent per meter
	perSec   float64 // percent per second at work: heating, electronics, cooling unit
	charging float64 // percent per second at the charger
	returnAt float64 // percent at which the driver turns back to the depot
}

const (
	fullEnough = 82.0 // percent at which a vehicle at work leaves the charger
	emptyAt    = 1.0  // percent; drivers avoid an empty battery
	carelessOf = 0.12 // share of drivers who turn back too late
	dieselOf   = 0.08 // share of vehicles
)

func rollBattery(d *dice, refrigerated bool) battery {
	b := battery{
		fitted:   !d.chance(dieselOf),
		perMeter: d.between(0.22, 0.55) / 1000,
		perSec:   d.between(0.8, 1.8) / hour,
		charging: d.between(22, 75) / hour,
		returnAt: d.between(19, 33),
	}
	if d.chance(carelessOf) {
		b.returnAt = d.between(8, 15)
	}
	if refrigerated {
		b.perSec += 1.6 / hour
	}
	return b
}

// drain subtracts the consumption of a distance and a time at work.
func (b *battery) drain(meters, seconds float64) {
	b.pct = max(emptyAt, b.pct-meters*b.perMeter-seconds*b.perSec)
}

// charge adds the energy of some seconds at the charger.
func (b *battery) charge(seconds float64) { b.pct = min(100, b.pct+seconds*b.charging) }

// Seconds.
const (
	minute = 60.0
	hour   = 60 * minute
	day    = 24 * hour
)

// shift is when a vehicle works: every day from begin, in seconds of the UTC day, for length seconds.
type shift struct{ begin, length float64 }

// rollShift gives most vehicles a day shift, some a late or night shift, and some no rest, so that some vehicles are on the
// road at any hour.
func rollShift(d *dice) shift {
	switch kind := d.unit(); {
	case kind < 0.34:
		return shift{d.between(4, 6) * hour, d.between(9, 10.5) * hour}
	case kind < 0.66:
		return shift{d.between(5.5, 8) * hour, d.between(8.5, 10.5) * hour}
	case kind < 0.79:
		return shift{d.between(11.5, 14.5) * hour, d.between(8, 9) * hour}
	case kind < 0.92:
		return shift{d.between(19.5, 21.5) * hour, d.between(8, 9) * hour}
	default:
		return shift{0, day}
	}
}

// into is how many seconds ago the latest shift began.
func (s shift) into(unix float64) float64 { return math.Mod(math.Mod(unix-s.begin, day)+day, day) }

// on returns whether the vehicle is at work.
func (s shift) on(unix float64) bool { return s.into(unix) < s.length }

// untilNext is the seconds until the next shift begins.
func (s shift) untilNext(unix float64) float64 { return day - s.into(unix) }

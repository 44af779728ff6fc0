package generator

import "math"

// cargo is the cargo hold of a vehicle and its temperature. Some vehicles have no sensor.
type cargo struct {
	sensor   bool
	cooled   bool
	setPoint float64 // °C that a cooled hold keeps
	offset   float64 // °C that an ordinary hold is warmer than the air outside

	temp       float64 // °C, without noise
	faultUntil float64 // Unix seconds until which the cooling unit is down
}

const (
	cooledOf     = 0.34
	sensorlessOf = 0.06
	faultEvery   = 34 * hour // of one cooling unit, on average
	insulation   = 2.2 * hour
	pullDown     = 22 * minute // in which a cooling unit gets most of the way back
	ordinaryHold = 35 * minute // in which an ordinary hold follows the air outside
	engineWarmth = 14.0        // °C; minimum that a hold with a failed cooling unit warms to, since it is next to the engine
)

func rollCargo(d *dice) cargo {
	c := cargo{
		sensor:   !d.chance(sensorlessOf),
		cooled:   d.chance(cooledOf),
		setPoint: 4,
		offset:   d.between(0.5, 4),
	}
	if d.chance(0.5) {
		c.setPoint = -18
	}
	return c
}

// rest returns the steady temperature of the hold.
func (c *cargo) rest(outside float64) float64 {
	if c.cooled {
		return c.setPoint
	}
	return outside + c.offset
}

// pass simulates some seconds, up to an instant in Unix seconds.
func (c *cargo) pass(d *dice, unix, seconds, outside float64) {
	goal, slowness := c.rest(outside), ordinaryHold
	if c.cooled {
		slowness = pullDown
		if unix < c.faultUntil {
			goal, slowness = max(outside, engineWarmth), insulation
		} else if d.chance(seconds / faultEvery) {
			c.faultUntil = unix + d.between(45, 160)*minute
		}
	}
	// The implicit step of Newton's law of cooling: stable for any length of time.
	c.temp += (goal - c.temp) * seconds / (slowness + seconds)
}

// open simulates the open door at a stop.
func (c *cargo) open(outside float64) {
	share := 0.4 // of the difference to the air outside
	if c.cooled {
		share = 0.06
	}
	c.temp += (outside - c.temp) * share
}

// reading returns the temperature of the sensor.
func (c *cargo) reading(d *dice) float64 { return c.temp + d.between(-0.3, 0.3) }

// outside is the temperature of the air in °C: the year's and the day's curve of a place such as Hannover, coldest
// before dawn and warmest after noon, with days that are better or worse than their season.
func outside(unix float64) float64 {
	days := unix / day
	season := 10 - 9*math.Cos(2*math.Pi*(days/365.2425-20.0/365))
	daily := 4.5 * math.Cos(2*math.Pi*(days-14.0/24))
	whole := math.Floor(days)
	today, tomorrow := weather(whole), weather(whole+1)
	return season + daily + today + (tomorrow-today)*(days-whole)
}

// weather is how much warmer than its season a day is at its beginning, -4 to 4 °C.
func weather(wholeDay float64) float64 {
	return float64(mix(uint64(int64(wholeDay)))>>11)/(1<<53)*8 - 4
}

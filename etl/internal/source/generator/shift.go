package generator

import "math"

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

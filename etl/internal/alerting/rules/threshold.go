package rules

import (
	"math"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Threshold is the rule for a value that must not be too high or too low.
type Threshold struct {
	Enabled    bool
	High, Low  Levels
	Exclusive  bool // a level is exceeded beyond it, not at it: driving at the limit is allowed
	Hysteresis float64
	ForMs      int64
	ClearForMs int64
	CoolDownMs int64
}

// Active reports whether the rule can raise an alert.
func (t *Threshold) Active() bool { return t.Enabled && (t.High.any() || t.Low.any()) }

// Side returns the direction in which a value may go too far: up, or down if below is set.
func (t *Threshold) Side(below bool) Side {
	if below {
		return Side{&t.Low, -1, t.Exclusive}
	}
	return Side{&t.High, 1, t.Exclusive}
}

// Side is one direction in which a value may go too far. Its excess is the value minus a base, counted in that
// direction.
type Side struct {
	levels    *Levels
	sign      float64 // 1: high values are bad; -1: low values are bad
	exclusive bool
}

// IsSet reports whether the side has a level.
func (s Side) IsSet() bool { return s.levels.any() }

// Excess returns how far a value is beyond the base.
func (s Side) Excess(value, base float64) float64 { return s.sign * (value - base) }

// Severity returns the highest level that an excess reaches, and the value at which that level begins.
func (s Side) Severity(excess, base float64) (telemetry.Severity, float64) {
	for i, level := range s.levels {
		at := s.sign * level.Value
		if level.Valid && (excess > at || excess == at && !s.exclusive) {
			return telemetry.Severities[i], base + level.Value
		}
	}
	return "", 0
}

// Exceeded reports whether an excess reaches any level.
func (s Side) Exceeded(excess float64) bool {
	severity, _ := s.Severity(excess, 0)
	return severity != ""
}

// Cleared reports whether an excess is below all levels by the hysteresis.
func (s Side) Cleared(excess, hysteresis float64) bool {
	return !s.Exceeded(excess) && excess <= s.lowest()-hysteresis
}

// lowest is the excess of the lowest level, infinite without one.
func (s Side) lowest() float64 {
	lowest := math.Inf(1)
	for _, level := range s.levels {
		if level.Valid {
			lowest = min(lowest, s.sign*level.Value)
		}
	}
	return lowest
}

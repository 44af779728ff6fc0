package rules

import (
	"math"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Threshold is the rule for a value that must not be too high or too low.
type Threshold struct {
	Enabled    bool
	High, Low  Levels
	Hysteresis float64
	ForMs      int64
	ClearForMs int64
	CoolDownMs int64

	Above, Below Side // computed from High and Low
}

// Active reports whether the rule can raise an alert.
func (t *Threshold) Active() bool { return t.Enabled && (t.Above.set || t.Below.set) }

// Side is one direction in which a value may go too far. Its excess is the value minus a base, counted in that
// direction.
type Side struct {
	set       bool
	sign      float64    // 1: high values are bad; -1: low values are bad
	exclusive bool       // a level is exceeded beyond it, not at it
	at        [3]float64 // excess of HIGH, MEDIUM and LOW; +Inf for an absent level
	min       float64    // lowest of them
}

func newSide(l Levels, sign float64, exclusive bool) Side {
	s := Side{sign: sign, exclusive: exclusive, min: math.Inf(1)}
	for i, level := range l {
		s.at[i] = math.Inf(1)
		if level.Valid {
			s.set, s.at[i] = true, sign*level.Value
			s.min = min(s.min, s.at[i])
		}
	}
	return s
}

// IsSet reports whether the side has a level.
func (s *Side) IsSet() bool { return s.set }

// Excess returns how far a value is beyond the base.
func (s *Side) Excess(value, base float64) float64 { return s.sign * (value - base) }

func (s *Side) exceeds(excess, level float64) bool {
	return excess > level || excess == level && !s.exclusive
}

// Severity returns the highest level that an excess reaches, and the value at which that level begins.
func (s *Side) Severity(excess, base float64) (telemetry.Severity, float64) {
	for i, level := range s.at {
		if s.exceeds(excess, level) {
			return telemetry.Severities[i], base + s.sign*level
		}
	}
	return "", 0
}

// Exceeded reports whether an excess reaches any level.
func (s *Side) Exceeded(excess float64) bool { return s.set && s.exceeds(excess, s.min) }

// Cleared reports whether an excess is below all levels by the hysteresis.
func (s *Side) Cleared(excess, hysteresis float64) bool {
	return !s.set || !s.Exceeded(excess) && excess <= s.min-hysteresis
}

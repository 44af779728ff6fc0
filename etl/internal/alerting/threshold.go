package alerting

import (
	"math"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// side is one direction in which a value may go too far. How far it went is its excess: what it has over the base,
// counted in that direction.
type side struct {
	set    bool
	sign   float64    // 1: high is bad; -1: low is bad
	beyond bool       // a level is passed beyond it, not already on it
	at     [3]float64 // the excess that passes HIGH, MEDIUM and LOW; +Inf where there is no such level
	least  float64    // the least of them
}

// newSide is the side of levels in the value's unit.
func newSide(l levels, sign float64, beyond bool) side {
	s := side{sign: sign, beyond: beyond, least: math.Inf(1)}
	for i, level := range l {
		s.at[i] = math.Inf(1)
		if level.Valid {
			s.set, s.at[i] = true, sign*level.Value
			s.least = min(s.least, s.at[i])
		}
	}
	return s
}

func (s *side) excess(value, base float64) float64 { return s.sign * (value - base) }

func (s *side) passes(excess, level float64) bool {
	return excess > level || excess == level && !s.beyond
}

// severity is the gravest level that an excess passes, and the value at which it begins.
func (s *side) severity(excess, base float64) (telemetry.Severity, float64) {
	for i, level := range s.at {
		if s.passes(excess, level) {
			return telemetry.Severities[i], base + s.sign*level
		}
	}
	return "", 0
}

// raises tells whether an excess is too much, clears whether it is back by the hysteresis.
func (s *side) raises(excess float64) bool { return s.set && s.passes(excess, s.least) }

func (s *side) clears(excess, hysteresis float64) bool {
	return !s.set || !s.raises(excess) && excess <= s.least-hysteresis
}

func (f *fix) speed() {
	base := f.limit
	if base == 0 {
		base = math.Inf(1)
	}
	f.threshold(telemetry.SpeedLimit, &f.set.speed, f.record.SpeedKmh, base)
}

func (f *fix) battery() {
	pct := f.record.BatteryPct
	f.threshold(telemetry.BatteryLow, &f.set.battery, telemetry.Optional[float64]{Value: float64(pct.Value), Valid: pct.Valid}, 0)
}

func (f *fix) temperature() {
	f.threshold(telemetry.Temperature, &f.set.temperature, f.record.TempC, 0)
}

// threshold follows a value with regard to the levels of a rule. An alert's severity and threshold are those of its
// peak, which is the value with the greatest excess.
func (f *fix) threshold(t telemetry.AlertType, rule *thresholdRule, value telemetry.Optional[float64], base float64) {
	if !rule.on {
		f.resolve(t, 0)
		f.state.dropStretch(t)
		return
	}
	if !value.Valid {
		return
	}
	if o := f.state.find(t); o != nil && !f.follow(o, rule, value.Value, base) {
		return
	}
	for i := range rule.sides {
		if s := &rule.sides[i]; s.raises(s.excess(value.Value, base)) {
			f.grow(t, rule, i == below, value.Value, base)
			return
		}
	}
	f.state.dropStretch(t)
}

// follow takes a value into an open alert, and tells whether that has cleared it.
func (f *fix) follow(o *standing, rule *thresholdRule, value, base float64) (cleared bool) {
	s := &rule.sides[above]
	if o.Below {
		s = &rule.sides[below]
	}
	excess := s.excess(value, base)
	if s.set && excess > s.excess(o.Peak, o.Base) {
		o.Peak, o.Base = value, base
		severity, threshold := s.severity(excess, base)
		switch {
		case severity.Graver(o.Severity):
			from := o.Severity
			o.Severity, o.Threshold = severity, threshold
			f.yield(telemetry.AlertEvent{Alert: o.told(), Transition: telemetry.AlertEscalated, From: from})
		case severity == o.Severity:
			o.Threshold = threshold // another zone may allow another speed
		}
	}
	if !s.clears(excess, rule.hysteresis) {
		o.Clearing, o.ClearMs = false, 0
		return false
	}
	now := f.record.TimeMs
	if !o.Clearing {
		o.Clearing, o.ClearMs = true, now
	}
	if now-o.ClearMs < rule.clearForMs {
		return false
	}
	f.resolve(o.Type, rule.coolDownMs)
	return true
}

// grow takes a value that is too far into the stretch of its side, and raises the alert when that lasts long enough.
func (f *fix) grow(t telemetry.AlertType, rule *thresholdRule, isBelow bool, value, base float64) {
	now := f.record.TimeMs
	g := stretch{Type: t, StartedMs: now, Peak: value, Base: base, Below: isBelow}
	s := &rule.sides[above]
	if isBelow {
		s = &rule.sides[below]
	}
	kept := f.state.growing(t)
	if kept != nil && kept.Below == isBelow {
		g.StartedMs = kept.StartedMs
		if s.excess(value, base) <= s.excess(kept.Peak, kept.Base) {
			g.Peak, g.Base = kept.Peak, kept.Base
		}
	}
	if now-g.StartedMs >= rule.forMs && now >= f.state.restsUntil(t) {
		f.state.dropStretch(t)
		o := standing{Base: g.Base, Below: isBelow}
		o.Type, o.StartedMs, o.Peak = t, g.StartedMs, g.Peak
		o.Severity, o.Threshold = s.severity(s.excess(g.Peak, g.Base), g.Base)
		f.open(o)
		return
	}
	if kept != nil {
		*kept = g
		return
	}
	f.state.rising = append(f.state.rising, g)
}

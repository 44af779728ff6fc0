package alerting

import (
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting/rules"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// threshold evaluates a value against the levels of a rule. The peak, the value with the greatest excess, determines the
// severity and threshold of an alert.
func (ev *evaluation) threshold(t telemetry.AlertType, rule *rules.Threshold, value telemetry.Optional[float64], base float64) {
	if !rule.Active() {
		ev.resolve(t, 0)
		ev.state.dropPending(t)
		return
	}
	if !value.Valid {
		return
	}
	if a := find(ev.state.Firing, t); a != nil && !ev.updateFiring(a, rule, value.Value, base) {
		return
	}
	for _, isBelow := range [...]bool{false, true} {
		if side := rule.Side(isBelow); side.Exceeded(side.Excess(value.Value, base)) {
			ev.updatePending(t, rule, isBelow, value.Value, base)
			return
		}
	}
	ev.state.dropPending(t)
}

// updateFiring updates an open alert with a value and reports whether that has resolved it.
func (ev *evaluation) updateFiring(a *alertState, rule *rules.Threshold, value, base float64) (resolved bool) {
	side := rule.Side(a.Below)
	excess := side.Excess(value, base)
	if side.IsSet() && excess > side.Excess(a.Peak, a.Base) {
		a.Peak, a.Base = value, base
		severity, threshold := side.Severity(excess, base)
		switch {
		case severity.HigherThan(a.Severity):
			a.escalate(severity, threshold, ev.yield)
		case severity == a.Severity:
			a.Threshold = threshold // the speed limit may differ in another geofence
		}
	}
	if !side.Cleared(excess, rule.Hysteresis) {
		a.Clearing, a.ClearMs = false, 0
		return false
	}
	now := ev.record.TimeMs
	if !a.Clearing {
		a.Clearing, a.ClearMs = true, now
	}
	if now-a.ClearMs < rule.ClearForMs {
		return false
	}
	ev.resolve(a.Type, rule.CoolDownMs)
	return true
}

// updatePending updates the pending alert with a value beyond a level, and opens it if it has been pending long enough.
func (ev *evaluation) updatePending(t telemetry.AlertType, rule *rules.Threshold, isBelow bool, value, base float64) {
	now := ev.record.TimeMs
	a := alertState{Base: base, Below: isBelow}
	a.Type, a.StartedMs, a.Peak = t, now, value
	side := rule.Side(isBelow)
	pending := find(ev.state.Pending, t)
	if pending != nil && pending.Below == isBelow {
		a.StartedMs = pending.StartedMs
		if side.Excess(value, base) <= side.Excess(pending.Peak, pending.Base) {
			a.Peak, a.Base = pending.Peak, pending.Base
		}
	}
	if now-a.StartedMs >= rule.ForMs && now >= ev.state.coolDownUntil(t) {
		ev.state.dropPending(t)
		a.Severity, a.Threshold = side.Severity(side.Excess(a.Peak, a.Base), a.Base)
		ev.open(a)
		return
	}
	if pending != nil {
		*pending = a
		return
	}
	ev.state.Pending = append(ev.state.Pending, a)
}

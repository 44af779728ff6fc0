package alerting

import (
	"math"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// stationary is the time for which a device reports a speed at an unchanged position.
type stationary struct {
	Lat       float64 `json:"y"` // first position
	Lon       float64 `json:"x"`
	StartedMs int64   `json:"b"`
	Positions int32   `json:"n"` // 0: not stationary
}

func (ev *evaluation) stuck() {
	rule, r, s := &ev.set.Stuck, ev.record, &ev.state.Stationary
	if !rule.Enabled {
		ev.resolve(telemetry.DeviceStuck, 0)
		*s = stationary{}
		return
	}
	drives := r.SpeedKmh.Valid && r.SpeedKmh.Value >= rule.MinSpeedKmh
	if s.Positions > 0 && (r.SpeedKmh.Valid && !drives || 1000*telemetry.DistanceKm(s.Lat, s.Lon, r.Lat, r.Lon) > rule.RadiusM) {
		*s = stationary{}
		ev.resolve(telemetry.DeviceStuck, rule.CoolDownMs)
	}
	if !drives {
		return
	}
	if s.Positions == 0 {
		*s = stationary{Lat: r.Lat, Lon: r.Lon, StartedMs: r.TimeMs}
	}
	durationMs := r.TimeMs - s.StartedMs
	if a := find(ev.state.Firing, telemetry.DeviceStuck); a != nil {
		a.Peak = seconds(durationMs)
		return
	}
	if s.Positions < math.MaxInt32 {
		s.Positions++
	}
	if durationMs >= rule.ForMs && int(s.Positions) >= rule.Positions && r.TimeMs >= ev.state.coolDownUntil(telemetry.DeviceStuck) {
		a := alertState{Base: rule.MinSpeedKmh}
		a.Type, a.Severity, a.StartedMs = telemetry.DeviceStuck, rule.Severity, s.StartedMs
		a.Peak, a.Threshold = seconds(durationMs), seconds(rule.ForMs)
		ev.open(a)
	}
}

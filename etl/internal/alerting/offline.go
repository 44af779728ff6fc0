package alerting

import (
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Advance advances event time to nowMs without a position. A device_offline alert opens and escalates at its own event
// times: the last position plus the silence that a level allows. Advancing twice equals advancing to the later time.
func (e *Engine) Advance(s *State, nowMs int64, yield func(telemetry.AlertEvent)) {
	if !s.seen() {
		return
	}
	if rule := &e.settings(s).Offline; !rule.Enabled || nowMs-s.LastMs < rule.MinMs {
		return // the usual case
	}
	for {
		atMs, severity, threshold, ok := e.nextOffline(s)
		if !ok || atMs > nowMs {
			return
		}
		s.Advanced = atMs
		silence := seconds(atMs - s.LastMs)
		if a := find(s.Firing, telemetry.DeviceOffline); a != nil {
			a.Peak = silence
			a.escalate(severity, threshold, yield)
			continue
		}
		var a alertState
		a.Type, a.Severity, a.Threshold = telemetry.DeviceOffline, severity, threshold
		a.StartedMs, a.OpenedMs, a.Peak = s.LastMs, atMs, silence
		a.Zone, a.Lat, a.Lon = s.Zone, s.Lat, s.Lon
		s.open(a, yield)
	}
}

// Next returns the event time of the next event that Advance would yield if no position arrives before; ok is false if
// there is none.
func (e *Engine) Next(s *State) (ms int64, ok bool) {
	if !s.seen() || !e.settings(s).Offline.Enabled {
		return 0, false
	}
	ms, _, _, ok = e.nextOffline(s)
	return ms, ok
}

// nextOffline returns the event time at which device_offline opens or escalates next, with its severity and threshold
// then.
func (e *Engine) nextOffline(s *State) (atMs int64, severity telemetry.Severity, threshold float64, ok bool) {
	rule := &e.settings(s).Offline
	a := find(s.Firing, telemetry.DeviceOffline)
	// LOW follows the shortest silence, so it is last in the list and first in time.
	for i := len(rule.AfterMs) - 1; i >= 0; i-- {
		level := rule.AfterMs[i]
		if !level.Valid {
			continue
		}
		// A reload may have lowered a level below the silence that has passed already.
		atMs = max(s.LastMs+int64(level.Value), s.coolDownUntil(telemetry.DeviceOffline), s.Advanced)
		severity, threshold = rule.Severity(atMs - s.LastMs)
		if a == nil || severity.HigherThan(a.Severity) {
			return atMs, severity, threshold, true
		}
	}
	return 0, "", 0, false
}

// updateOfflinePeak sets the length of the silence, which is known once the device sends again.
func (s *State) updateOfflinePeak(nowMs int64) {
	if a := find(s.Firing, telemetry.DeviceOffline); a != nil {
		a.Peak = seconds(nowMs - s.LastMs)
	}
}

// OfflineAfter returns the silence after which a device counts as offline; ok is false if it never does.
func (e *Engine) OfflineAfter(fleet, device string) (silence time.Duration, ok bool) {
	rule := &e.rules.For(fleet, device).Offline
	return time.Duration(rule.MinMs) * time.Millisecond, rule.Enabled
}

func seconds(ms int64) float64 { return float64(ms) / 1000 }

package alerting

import (
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Next is the event time from which Advance would take a step, if no fix comes before; ok is false when it never would.
func (e *Engine) Next(s *State) (ms int64, ok bool) {
	if !s.seen() {
		return 0, false
	}
	rule := &e.settings(s).offline
	if !rule.enabled {
		return 0, false
	}
	o := s.find(telemetry.DeviceOffline)
	for i := len(rule.after) - 1; i >= 0; i-- {
		level := rule.after[i]
		if !level.Valid {
			continue
		}
		atMs := max(s.lastMs+int64(level.Value), s.restsUntil(telemetry.DeviceOffline), s.advancedMs)
		severity, _ := rule.severity(atMs - s.lastMs)
		if o == nil || severity.Graver(o.Severity) {
			return atMs, true
		}
	}
	return 0, false
}

// OfflineAfter is the silence after which a device of a fleet counts as offline; ok is false when it never does.
func (e *Engine) OfflineAfter(fleet, device string) (silence time.Duration, ok bool) {
	rule := &e.rules.settings(fleet, device).offline
	return time.Duration(rule.leastMs) * time.Millisecond, rule.enabled
}

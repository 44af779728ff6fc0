package alerting

import (
	"math"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Advance lets event time go on to nowMs without a fix. What comes of silence comes at its own event time, the last fix
// and the silence that a rule allows: device_offline opens there, and becomes graver. To advance twice is to advance to
// the later time.
func (e *Engine) Advance(s *State, nowMs int64, yield func(telemetry.AlertEvent)) {
	if !s.seen() {
		return
	}
	rule := &e.settings(s).offline
	if !rule.enabled || nowMs-s.lastMs < rule.leastMs {
		return
	}
	// LOW comes after the shortest silence, so the levels are met from the end.
	for i := len(rule.after) - 1; i >= 0; i-- {
		level := rule.after[i]
		if !level.Valid {
			continue
		}
		// A reload may have lowered a level that event time has passed already.
		atMs := max(s.lastMs+int64(level.Value), s.restsUntil(telemetry.DeviceOffline), s.advancedMs)
		if atMs > nowMs {
			return
		}
		severity, threshold := rule.severity(atMs - s.lastMs)
		o := s.find(telemetry.DeviceOffline)
		if o != nil && !severity.Graver(o.Severity) {
			continue
		}
		s.advancedMs = atMs
		if o != nil {
			from := o.Severity
			o.Severity, o.Threshold, o.Peak = severity, threshold, seconds(atMs-s.lastMs)
			yield(telemetry.AlertEvent{Alert: o.told(), Transition: telemetry.AlertEscalated, From: from})
			continue
		}
		var raised standing
		raised.Type, raised.Severity, raised.Threshold = telemetry.DeviceOffline, severity, threshold
		raised.StartedMs, raised.OpenedMs, raised.Peak = s.lastMs, atMs, seconds(atMs-s.lastMs)
		raised.Zone, raised.Lat, raised.Lon = s.zone, s.lat, s.lon
		s.open(raised, yield)
	}
}

// heard notes that the device sends again: only now is it known how long it was silent.
func (s *State) heard(nowMs int64) {
	if o := s.find(telemetry.DeviceOffline); o != nil {
		o.Peak = seconds(nowMs - s.lastMs)
	}
}

// severity is the gravest level that a silence reaches, and that in seconds.
func (r *offlineRule) severity(silenceMs int64) (telemetry.Severity, float64) {
	for i, level := range r.after {
		if level.Valid && silenceMs >= int64(level.Value) {
			return telemetry.Severities[i], seconds(int64(level.Value))
		}
	}
	return "", 0
}

func seconds(ms int64) float64 { return float64(ms) / 1000 }

// stillness is the stretch for which a device claims to drive and stays where it is.
type stillness struct {
	Lat       float64 `json:"y"` // where it began
	Lon       float64 `json:"x"`
	StartedMs int64   `json:"b"`
	Fixes     int32   `json:"n"` // 0: there is none
}

func (f *fix) stuck() {
	rule, r, s := &f.set.stuck, f.record, &f.state.still
	if !rule.enabled {
		f.resolve(telemetry.DeviceStuck, 0)
		*s = stillness{}
		return
	}
	drives := r.SpeedKmh.Valid && r.SpeedKmh.Value >= rule.minSpeedKmh
	if s.Fixes > 0 && (r.SpeedKmh.Valid && !drives || apartM(s.Lat, s.Lon, r.Lat, r.Lon) > rule.radiusM) {
		*s = stillness{}
		if f.state.find(telemetry.DeviceStuck) != nil {
			f.resolve(telemetry.DeviceStuck, rule.coolDownMs)
		}
	}
	if !drives {
		return
	}
	if s.Fixes == 0 {
		*s = stillness{Lat: r.Lat, Lon: r.Lon, StartedMs: r.TimeMs}
	}
	lasts := r.TimeMs - s.StartedMs
	if o := f.state.find(telemetry.DeviceStuck); o != nil {
		o.Peak = seconds(lasts)
		return
	}
	if s.Fixes < math.MaxInt32 {
		s.Fixes++
	}
	if lasts >= rule.forMs && int(s.Fixes) >= rule.fixes && r.TimeMs >= f.state.restsUntil(telemetry.DeviceStuck) {
		o := standing{Base: rule.minSpeedKmh}
		o.Type, o.Severity, o.StartedMs = telemetry.DeviceStuck, rule.severity, s.StartedMs
		o.Peak, o.Threshold = seconds(lasts), seconds(rule.forMs)
		f.open(o)
	}
}

// apartM is the distance of two positions that are near each other, in metres, on a plane that touches the earth there.
func apartM(lat1, lon1, lat2, lon2 float64) float64 {
	const metresPerDegree = telemetry.EarthRadiusM * math.Pi / 180
	east := math.Abs(lon2 - lon1)
	if east > 180 {
		east = 360 - east
	}
	return metresPerDegree * math.Hypot(lat2-lat1, east*math.Cos((lat1+lat2)/2*math.Pi/180))
}

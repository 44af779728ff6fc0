// Package alerting decides when a vehicle needs attention. It is a state machine over event time: its result is a
// function of a device's positions in event order and of the rules. Neither the clock nor the order of arrival matters,
// so a replay, a restart and another instance find the same alerts.
//
// A device has at most one open alert per type. An alert is pending while its condition holds, and opens at the first
// position at which the condition has held for the rule's duration. It is resolved at the first position at which the
// value is back by the rule's hysteresis, for the rule's clear duration. Then the cool-down of the type starts. The alert
// opens again at the first position after the cool-down at which the condition has held long enough; time during the
// cool-down counts. A gap between positions that is longer than max_gap resets all durations. A position without the
// value neither resets nor extends a duration. Open alerts survive gaps.
//
// Only positions count. A vehicle that crosses a geofence between two positions did not enter it, and one that sends less
// often than max_gap has no durations.
package alerting

import (
	"hash/fnv"
	"sync"

	"github.com/fleettracing/fleet-tracing/etl/internal/alerting/rules"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Geofences finds geofences by position.
//
// If the implementation also has a method Fingerprint() string, a new fingerprint means other geofences: the engine then
// updates where a device is without an alert.
type Geofences interface {
	// Near appends the geofences of a fleet that contain a position or whose edge is within reachM meters of it, the
	// smallest first.
	Near(fleet string, lat, lon, reachM float64, found []telemetry.NearbyGeofence) []telemetry.NearbyGeofence
}

// Engine applies rules to positions. It is immutable and has no state of a device, so several goroutines may use it, each
// with its own states.
type Engine struct {
	rules         *rules.Rules
	geofences     Geofences
	geofencesHash uint64     // never 0
	buffers       *sync.Pool // of *[]telemetry.NearbyGeofence
}

// New makes an engine; geofences may be nil. To reload, make a new engine and keep the states: open alerts stay open, and
// the new rules apply from the next position on.
func New(r *rules.Rules, geofences Geofences) *Engine {
	e := &Engine{rules: r, geofences: geofences, geofencesHash: 1, buffers: &sync.Pool{New: func() any { return new([]telemetry.NearbyGeofence) }}}
	if g, ok := geofences.(interface{ Fingerprint() string }); ok {
		h := fnv.New64a()
		_, _ = h.Write([]byte(g.Fingerprint())) // a hash returns no error
		e.geofencesHash = max(1, h.Sum64())
	}
	return e
}

// Apply evaluates the next position of a device and yields the resulting events. It first advances event time to the
// position, as Advance does. It ignores a position that is not later than the last one; a position must not be earlier
// than AdvancedMs.
func (e *Engine) Apply(s *State, r *telemetry.Record, yield func(telemetry.AlertEvent)) {
	if s.seen() {
		if r.TimeMs <= s.LastMs {
			return
		}
		e.Advance(s, r.TimeMs, yield)
		if s.Fleet != r.FleetID {
			s.end(r, yield)
		}
	}
	first := !s.seen()
	if first {
		s.begin(r)
	}
	set := e.settings(s)
	ev := evaluation{engine: e, state: s, set: set, record: r, yield: yield}

	if !first {
		s.updateOfflinePeak(r.TimeMs)
		ev.resolve(telemetry.DeviceOffline, set.Offline.CoolDownMs)
		if r.TimeMs-s.LastMs > set.MaxGapMs {
			s.resetDurations()
		}
		s.expireCoolDowns(r.TimeMs)
	}

	buffer := e.buffers.Get().(*[]telemetry.NearbyGeofence)
	ev.locate((*buffer)[:0])
	battery := telemetry.Optional[float64]{Value: float64(r.BatteryPct.Value), Valid: r.BatteryPct.Valid}
	ev.threshold(telemetry.SpeedLimit, &set.Speed, r.SpeedKmh, ev.limitKmh)
	ev.threshold(telemetry.BatteryLow, &set.Battery, battery, 0)
	ev.threshold(telemetry.Temperature, &set.Temperature, r.TempC, 0)
	ev.geofences(first)
	ev.stuck()
	*buffer = ev.nearby[:0]
	e.buffers.Put(buffer)

	s.LastMs, s.Advanced = r.TimeMs, r.TimeMs
	s.Lat, s.Lon = r.Lat, r.Lon
	if s.Zone != ev.zone {
		s.Zone = ev.ownedZone()
	}
}

// settings returns the settings of the state's device, which the state caches until the rules change.
func (e *Engine) settings(s *State) *rules.Settings {
	if s.rules != e.rules {
		s.rules, s.set = e.rules, e.rules.For(s.Fleet, s.Device)
	}
	return s.set
}

// evaluation is the evaluation of one position.
type evaluation struct {
	engine *Engine
	state  *State
	set    *rules.Settings
	record *telemetry.Record
	yield  func(telemetry.AlertEvent)

	nearby         []telemetry.NearbyGeofence // the smallest first
	marginM        float64                    // distance from an edge from which a position counts as inside or outside
	zone           string                     // the smallest geofence that contains it, or the record's zone; empty: none
	zoneFromRecord bool
	limitKmh       float64 // speed limit here; infinite: none
}

// open opens an alert at the position.
func (ev *evaluation) open(a alertState) {
	a.OpenedMs, a.Lat, a.Lon = ev.record.TimeMs, ev.record.Lat, ev.record.Lon
	if a.Zone == "" {
		a.Zone = ev.ownedZone()
	}
	ev.state.open(a, ev.yield)
}

// resolve resolves the open alert of a type at the position, if there is one, and starts the cool-down.
func (ev *evaluation) resolve(t telemetry.AlertType, coolDownMs int64) {
	if ev.state.resolve(t, ev.record.TimeMs, ev.yield) && coolDownMs > 0 {
		ev.state.CoolDowns = append(ev.state.CoolDowns, coolDown{t, ev.record.TimeMs + coolDownMs})
	}
}

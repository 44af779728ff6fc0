// Package alerting decides when a vehicle needs attention. It is a state machine over event time: what it finds is a
// function of a device's fixes in event order and of the rules, whatever the clock said and whenever they arrived, so
// that a replay, a restart and a second process find the same alerts.
//
// A device has at most one open alert of a type. An alert is raised at the first fix at which its condition has held
// for the rule's least duration, and cleared at the first fix at which the value is back by the rule's hysteresis (for
// its own least duration). After that the type rests for its cool-down: it is raised at the first fix after the rest at
// which the condition has held long enough, and what held during the rest counts. A gap between fixes that is longer
// than max_gap breaks every stretch, since nobody knows what happened meanwhile; a fix that lacks the value neither
// breaks a stretch nor feeds it. An open alert outlives gaps.
//
// What has no fix is not found: a vehicle that crosses a zone between two fixes did not enter it, and one that sends
// less often than max_gap has no stretch that could last.
package alerting

import (
	"hash/fnv"
	"sync"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Zones finds the zones of a fleet that contain a position or whose edge is within reachM metres of it, the smallest
// first, and appends them to found.
//
// Zones that also have a method Fingerprint() string are told from others by it: where a device meets zones that are
// not those it met before, what it is inside of is settled without an alert.
type Zones interface {
	At(fleet string, lat, lon, reachM float64, found []telemetry.Place) []telemetry.Place
}

// Engine applies rules to fixes. It holds nothing of a device and never changes, so several goroutines may use it, each
// on states of its own.
type Engine struct {
	rules  *Rules
	zones  Zones
	known  uint64     // names the zones; never 0
	places *sync.Pool // of *[]telemetry.Place, the buffers for Zones.At
}

// New makes an engine; without zones (nil) there are no geofences. A reload is a new engine on the old states: open
// alerts stay open, and the new rules hold from the next fix on.
func New(rules *Rules, zones Zones) *Engine {
	e := &Engine{rules: rules, zones: zones, known: 1, places: &sync.Pool{New: func() any { return new([]telemetry.Place) }}}
	if z, ok := zones.(interface{ Fingerprint() string }); ok {
		h := fnv.New64a()
		_, _ = h.Write([]byte(z.Fingerprint())) // a hash takes everything
		e.known = max(1, h.Sum64())
	}
	return e
}

// Apply takes the next fix of a device, which must be later than the one before and not before AdvancedMs, and tells
// the steps that follow from it. Event time goes on to that of the fix first, as Advance does it. A fix that is not later
// than the last one changes nothing.
func (e *Engine) Apply(s *State, r *telemetry.Record, yield func(telemetry.AlertEvent)) {
	if s.seen() {
		if r.TimeMs <= s.lastMs {
			return
		}
		e.Advance(s, r.TimeMs, yield)
		if s.fleet.Value() != r.FleetID {
			s.end(r, yield)
		}
	}
	fresh := !s.seen()
	if fresh {
		s.begin(r)
	}
	set := e.settings(s)
	f := fix{engine: e, state: s, set: set, record: r, yield: yield}

	if !fresh {
		s.heard(r.TimeMs)
		f.resolve(telemetry.DeviceOffline, set.offline.coolDownMs)
		if r.TimeMs-s.lastMs > set.maxGapMs {
			s.breakStretches()
		}
		s.rested(r.TimeMs)
	}

	buffer := e.places.Get().(*[]telemetry.Place)
	f.locate((*buffer)[:0])
	f.speed()
	f.battery()
	f.temperature()
	f.geofences(fresh)
	f.stuck()
	*buffer = f.places[:0]
	e.places.Put(buffer)

	s.lastMs, s.advancedMs = r.TimeMs, r.TimeMs
	s.lat, s.lon = r.Lat, r.Lon
	if s.zone != f.zone {
		s.zone = f.keptZone()
	}
}

// settings are those of the state's device. A state keeps them until the rules are others: devices without rules of
// their own share their fleet's.
func (e *Engine) settings(s *State) *settings {
	if s.rules != e.rules {
		s.rules, s.set = e.rules, e.rules.settings(s.fleet.Value(), s.device)
	}
	return s.set
}

// fix is the step of a state by one record.
type fix struct {
	engine *Engine
	state  *State
	set    *settings
	record *telemetry.Record
	yield  func(telemetry.AlertEvent)

	places  []telemetry.Place // the zones around it, the smallest first
	marginM float64           // how far from an edge it must lie to count
	zone    string            // the smallest zone that contains it, or the one that the record names; empty: none
	named   bool              // it is the one that the record names
	limit   float64           // km/h that may be driven here; 0: no limit
}

// open raises an alert at the fix.
func (f *fix) open(o standing) {
	o.OpenedMs, o.Lat, o.Lon = f.record.TimeMs, f.record.Lat, f.record.Lon
	if o.Zone == "" {
		o.Zone = f.keptZone()
	}
	f.state.open(o, f.yield)
}

// resolve clears the open alert of a type at the fix, if there is one, and lets the type rest.
func (f *fix) resolve(t telemetry.AlertType, coolDownMs int64) {
	if f.state.resolve(t, f.record.TimeMs, f.yield) && coolDownMs > 0 {
		f.state.rest(t, f.record.TimeMs+coolDownMs)
	}
}

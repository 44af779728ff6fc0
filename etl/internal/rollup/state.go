package rollup

import "github.com/fleettracing/fleet-tracing/etl/internal/telemetry"

// State is all that the rows of a device's next positions depend on. The zero value is a device that was never seen. JSON
// preserves it exactly. A copy is independent of the original.
type State struct {
	Hours hours `json:"h,omitzero"`
	Trips trips `json:"t,omitzero"`
}

// Apply applies the device's next position, which must be later than all before. The sink receives the rows that became
// final: past hours, and trips and stops that ended.
func (s *State) Apply(r *telemetry.Record, sink Sink) {
	s.Hours.enter(r.FleetID, r.TimeMs, sink)
	var seg segment
	if last := s.Trips.newest(); last.TimeMs != 0 {
		seg = last.segmentTo(r)
		s.Hours.Now.addSegment(seg)
	}
	s.Hours.Now.addPosition(r)
	s.Trips.apply(r, seg, sink)
}

// AddAlert counts an alert in the hour of the event time at which it opened, which must not be earlier than the last
// position or alert. The sink receives the hours that became final.
func (s *State) AddAlert(fleetID string, openedMs int64, sink Sink) {
	s.Hours.enter(fleetID, openedMs, sink)
	s.Hours.Now.Alerts++
}

// Current emits the rows that are not final: the current hour, one row per fleet that the device was in, and the open trip
// or stop, unless its kind is undecided.
func (s *State) Current(sink Sink) {
	s.Hours.emit(sink)
	if t, ok := s.Trips.open(); ok {
		sink.Trip(t)
	}
}

// OpenFromMs is the event time from which trips and stops may still change: the start of the open or undecided one. Later
// positions never change rows that start earlier. It is 0 before the first position.
func (s *State) OpenFromMs() int64 { return s.Trips.Start.TimeMs }

// LastMs is the event time of the last position, 0 before the first.
func (s *State) LastMs() int64 { return s.Trips.newest().TimeMs }

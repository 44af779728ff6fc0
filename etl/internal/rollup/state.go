package rollup

import (
	"encoding/json"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// State is what a device's fixes so far come to, and all that the next ones need of them. The zero value is a device
// that was never seen. As JSON it loses nothing: what goes on from there comes to the very same rows. A copy is
// independent of what it was copied from.
type State struct {
	hours hours
	trips trips
}

// Apply takes the device's next fix; it must be later than all before. The sink gets the rows that became final: the
// hours that are over, and the trips and stops that ended.
func (s *State) Apply(r *telemetry.Record, sink Sink) {
	s.hours.enter(r.FleetID, r.TimeMs, sink)
	var way leg
	if last := s.trips.newest(); last.TimeMs != 0 {
		way = last.legTo(r)
		s.hours.Now.addLeg(way)
	}
	s.hours.Now.addFix(r)
	s.trips.follow(r, way, sink)
}

// AddAlert counts an alert of a fleet in the hour of the event time at which it opened, which must not be earlier than
// the last fix or alert. The sink gets the hours that are over with that.
func (s *State) AddAlert(fleetID string, openedMs int64, sink Sink) {
	s.hours.enter(fleetID, openedMs, sink)
	s.hours.Now.Alerts++
}

// Current gives the rows that are not final: those of the current hour, one for each fleet that the device was in, and
// the open trip or stop, if it is known which of them it is.
func (s *State) Current(sink Sink) {
	s.hours.give(sink)
	if t, ok := s.trips.open(); ok {
		sink.Trip(t)
	}
}

// OpenFromMs is the event time from which trips and stops may still change: the start of the open one, also if it is
// not known yet which it is. Rows that start earlier never change by later fixes. It is 0 before the first fix.
func (s *State) OpenFromMs() int64 { return s.trips.Start.TimeMs }

// LastMs is the event time of the last fix, 0 before the first.
func (s *State) LastMs() int64 { return s.trips.newest().TimeMs }

// stateJSON names what State keeps to itself.
type stateJSON struct {
	Hours hours `json:"h,omitzero"`
	Trips trips `json:"t,omitzero"`
}

// MarshalJSON gives the state for UnmarshalJSON.
func (s State) MarshalJSON() ([]byte, error) { return json.Marshal(stateJSON{s.hours, s.trips}) }

// UnmarshalJSON replaces the state by one that was written before.
func (s *State) UnmarshalJSON(text []byte) error {
	var j stateJSON
	if err := json.Unmarshal(text, &j); err != nil {
		return err
	}
	*s = State{j.Hours, j.Trips}
	return nil
}

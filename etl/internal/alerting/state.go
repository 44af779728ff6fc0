package alerting

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unique"

	"github.com/fleettracing/fleet-tracing/etl/internal/alerting/rules"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// State is the engine's state of one device. The zero value is a device that was never seen. JSON preserves it. A copy in
// memory shares parts with the original, so copy a state through JSON.
type State struct {
	device string
	fleet  unique.Handle[string] // shared by most devices
	zone   string                // the smallest geofence that contains the last position
	lat    float64               // of the last position
	lon    float64

	lastMs     int64 // event time of the last position
	advancedMs int64 // see AdvancedMs

	geofencesHash uint64       // of the geofences of memberships; 0: memberships are not tracked
	memberships   []membership // of geofences that the device is inside of or may be entering
	firing        []alertState // open alerts, in the order of telemetry.AlertTypes
	pending       []alertState // conditions that hold, but not for long enough
	coolDowns     []coolDown
	stationary    stationary

	rules *rules.Rules // of set
	set   *rules.Settings
}

// alertState is an alert that is pending or open. It has no message: that is made when the alert is reported.
type alertState struct {
	telemetry.Alert
	Base     float64 `json:"B,omitempty"` // what the peak is measured from: the speed limit, or a stuck device's minimum speed
	Below    bool    `json:"L,omitempty"` // the temperature is too low
	Clearing bool    `json:"C,omitempty"` // the value has been back since ClearMs
	ClearMs  int64   `json:"c,omitempty"`
}

// coolDown keeps alerts of a type from opening.
type coolDown struct {
	Type    telemetry.AlertType `json:"t"`
	UntilMs int64               `json:"u"`
}

func (s *State) seen() bool { return s.device != "" }

// begin initializes the state for the record's device. A record's strings may be parts of a whole line, so it copies them.
func (s *State) begin(r *telemetry.Record) {
	s.device, s.fleet = strings.Clone(r.DeviceID), unique.Make(r.FleetID)
}

// end resolves all alerts at a position and resets the state.
func (s *State) end(r *telemetry.Record, yield func(telemetry.AlertEvent)) {
	s.updateOfflinePeak(r.TimeMs)
	for len(s.firing) > 0 {
		s.resolve(s.firing[0].Type, r.TimeMs, yield)
	}
	*s = State{}
}

// AdvancedMs is the latest event time in the state: that of the last position, or of a later event of device_offline. A
// position before it requires that the device's alerts are recomputed.
func (s *State) AdvancedMs() int64 { return s.advancedMs }

// Open yields the open alerts in the order of telemetry.AlertTypes, with their peak and severity so far.
func (s *State) Open() iter.Seq[telemetry.Alert] {
	return func(yield func(telemetry.Alert) bool) {
		for i := range s.firing {
			if !yield(s.firing[i].report()) {
				return
			}
		}
	}
}

// report returns the alert with its message.
func (a *alertState) report() telemetry.Alert {
	out := a.Alert
	out.Message = message(a)
	return out
}

// escalate raises the severity of an open alert.
func (a *alertState) escalate(severity telemetry.Severity, threshold float64, yield func(telemetry.AlertEvent)) {
	from := a.Severity
	a.Severity, a.Threshold = severity, threshold
	yield(telemetry.AlertEvent{Alert: a.report(), Transition: telemetry.AlertEscalated, From: from})
}

// find returns the alert of a type, or nil. The pointer is valid until the list changes.
func find(alerts []alertState, t telemetry.AlertType) *alertState {
	for i := range alerts {
		if alerts[i].Type == t {
			return &alerts[i]
		}
	}
	return nil
}

func (s *State) open(a alertState, yield func(telemetry.AlertEvent)) {
	a.DeviceID, a.FleetID = s.device, s.fleet.Value()
	at := 0
	for at < len(s.firing) && rank(s.firing[at].Type) < rank(a.Type) {
		at++
	}
	s.firing = slices.Insert(s.firing, at, a)
	yield(telemetry.AlertEvent{Alert: a.report(), Transition: telemetry.AlertOpened})
}

func (s *State) resolve(t telemetry.AlertType, atMs int64, yield func(telemetry.AlertEvent)) (wasOpen bool) {
	i := slices.IndexFunc(s.firing, func(a alertState) bool { return a.Type == t })
	if i < 0 {
		return false
	}
	a := s.firing[i]
	if s.firing = slices.Delete(s.firing, i, i+1); len(s.firing) == 0 {
		s.firing = nil
	}
	a.EndedMs = atMs
	yield(telemetry.AlertEvent{Alert: a.report(), Transition: telemetry.AlertResolved})
	return true
}

func rank(t telemetry.AlertType) int { return slices.Index(telemetry.AlertTypes, t) }

func (s *State) dropPending(t telemetry.AlertType) {
	if len(s.pending) > 0 {
		s.pending = slices.DeleteFunc(s.pending, func(a alertState) bool { return a.Type == t })
	}
}

// resetDurations is the effect of a gap.
func (s *State) resetDurations() {
	s.pending = s.pending[:0]
	for i := range s.firing {
		s.firing[i].Clearing, s.firing[i].ClearMs = false, 0
	}
	if find(s.firing, telemetry.DeviceStuck) == nil {
		s.stationary = stationary{}
	}
}

func (s *State) expireCoolDowns(nowMs int64) {
	if len(s.coolDowns) == 0 {
		return
	}
	s.coolDowns = slices.DeleteFunc(s.coolDowns, func(c coolDown) bool { return c.UntilMs <= nowMs })
	if len(s.coolDowns) == 0 {
		s.coolDowns = nil
	}
}

// coolDownUntil returns the end of a type's cool-down, or a time long past.
func (s *State) coolDownUntil(t telemetry.AlertType) (untilMs int64) {
	untilMs = -1 << 62
	for _, c := range s.coolDowns {
		if c.Type == t {
			untilMs = max(untilMs, c.UntilMs)
		}
	}
	return untilMs
}

// stateJSON is a State as JSON.
type stateJSON struct {
	Device        string       `json:"d,omitempty"`
	Fleet         string       `json:"f,omitempty"`
	Zone          string       `json:"z,omitempty"`
	Lat           float64      `json:"y"`
	Lon           float64      `json:"x"`
	LastMs        int64        `json:"l"`
	AdvancedMs    int64        `json:"a"`
	GeofencesHash uint64       `json:"k,omitempty"`
	Memberships   []membership `json:"in,omitempty"`
	Firing        []alertState `json:"o,omitempty"`
	Pending       []alertState `json:"r,omitempty"`
	CoolDowns     []coolDown   `json:"c,omitempty"`
	Stationary    *stationary  `json:"s,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (s State) MarshalJSON() ([]byte, error) {
	if !s.seen() {
		return []byte("{}"), nil
	}
	out := stateJSON{
		Device: s.device, Fleet: s.fleet.Value(), Zone: s.zone, Lat: s.lat, Lon: s.lon, LastMs: s.lastMs, AdvancedMs: s.advancedMs,
		GeofencesHash: s.geofencesHash, Memberships: s.memberships, Firing: s.firing, Pending: s.pending, CoolDowns: s.coolDowns,
	}
	if s.stationary != (stationary{}) {
		out.Stationary = &s.stationary
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *State) UnmarshalJSON(text []byte) error {
	var in stateJSON
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	*s = State{}
	if in.Device == "" {
		return nil
	}
	for i := range in.Firing {
		a := &in.Firing[i]
		if rank(a.Type) < 0 {
			return fmt.Errorf("open alert of device %s: unknown alert type %q", in.Device, a.Type)
		}
		a.DeviceID, a.FleetID = in.Device, in.Fleet
	}
	*s = State{
		device: in.Device, fleet: unique.Make(in.Fleet), zone: in.Zone, lat: in.Lat, lon: in.Lon, lastMs: in.LastMs, advancedMs: in.AdvancedMs,
		geofencesHash: in.GeofencesHash, memberships: in.Memberships, firing: in.Firing, pending: in.Pending, coolDowns: in.CoolDowns,
	}
	if in.Stationary != nil {
		s.stationary = *in.Stationary
	}
	return nil
}

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
	stored

	rules *rules.Rules // of set
	set   *rules.Settings
}

// stored is the part of a State that JSON has.
type stored struct {
	Device string  `json:"d,omitempty"`
	Fleet  string  `json:"f,omitempty"`
	Zone   string  `json:"z,omitempty"` // the smallest geofence that contains the last position
	Lat    float64 `json:"y"`           // of the last position
	Lon    float64 `json:"x"`

	LastMs   int64 `json:"l"` // event time of the last position
	Advanced int64 `json:"a"` // see AdvancedMs

	GeofencesHash uint64       `json:"k,omitempty"`  // of the geofences of Memberships; 0: they are not tracked
	Memberships   []membership `json:"in,omitempty"` // of geofences that the device is inside of or may be entering
	Firing        []alertState `json:"o,omitempty"`  // open alerts, in the order of telemetry.AlertTypes
	Pending       []alertState `json:"r,omitempty"`  // conditions that hold, but not for long enough
	CoolDowns     []coolDown   `json:"c,omitempty"`
	Stationary    stationary   `json:"s,omitzero"`
}

// alertState is an alert that is pending or open. It has no message: that is made when the alert is reported.
type alertState struct {
	telemetry.Alert
	Base     float64 `json:"B,omitempty"` // what the peak is measured from: the speed limit, or a stuck device's minimum speed
	Below    bool    `json:"L,omitempty"` // the temperature is too low
	Clearing bool    `json:"C,omitempty"` // the value has been back since ClearMs
	ClearMs  int64   `json:"c,omitempty"`
	Moved    bool    `json:"-"` // it ends because the device moves to another fleet
}

// coolDown keeps alerts of a type from opening.
type coolDown struct {
	Type    telemetry.AlertType `json:"t"`
	UntilMs int64               `json:"u"`
}

func (s *State) seen() bool { return s.Device != "" }

// begin initializes the state for the record's device. A record's strings may be parts of a whole line, so it copies them.
func (s *State) begin(r *telemetry.Record) {
	s.Device, s.Fleet = strings.Clone(r.DeviceID), unique.Make(r.FleetID).Value()
}

// end resolves all alerts at the first position for another fleet and resets the state.
func (s *State) end(r *telemetry.Record, yield func(telemetry.AlertEvent)) {
	s.updateOfflinePeak(r.TimeMs)
	for len(s.Firing) > 0 {
		s.Firing[0].Moved = true
		s.resolve(s.Firing[0].Type, r.TimeMs, yield)
	}
	*s = State{}
}

// AdvancedMs is the latest event time in the state: that of the last position, or of a later event of device_offline. A
// position before it requires that the device's alerts are recomputed.
func (s *State) AdvancedMs() int64 { return s.Advanced }

// Open yields the open alerts in the order of telemetry.AlertTypes, with their peak and severity so far.
func (s *State) Open() iter.Seq[telemetry.Alert] {
	return func(yield func(telemetry.Alert) bool) {
		for i := range s.Firing {
			if !yield(s.Firing[i].report()) {
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
	a.DeviceID, a.FleetID = s.Device, s.Fleet
	s.Firing = append(s.Firing, a)
	slices.SortFunc(s.Firing, func(a, b alertState) int { return rank(a.Type) - rank(b.Type) })
	yield(telemetry.AlertEvent{Alert: a.report(), Transition: telemetry.AlertOpened})
}

func (s *State) resolve(t telemetry.AlertType, atMs int64, yield func(telemetry.AlertEvent)) (wasOpen bool) {
	i := slices.IndexFunc(s.Firing, func(a alertState) bool { return a.Type == t })
	if i < 0 {
		return false
	}
	a := s.Firing[i]
	if s.Firing = slices.Delete(s.Firing, i, i+1); len(s.Firing) == 0 {
		s.Firing = nil
	}
	a.EndedMs = atMs
	yield(telemetry.AlertEvent{Alert: a.report(), Transition: telemetry.AlertResolved})
	return true
}

func rank(t telemetry.AlertType) int { return slices.Index(telemetry.AlertTypes, t) }

func (s *State) dropPending(t telemetry.AlertType) {
	if len(s.Pending) > 0 {
		s.Pending = slices.DeleteFunc(s.Pending, func(a alertState) bool { return a.Type == t })
	}
}

// resetDurations is the effect of a gap.
func (s *State) resetDurations() {
	s.Pending = s.Pending[:0]
	for i := range s.Firing {
		s.Firing[i].Clearing, s.Firing[i].ClearMs = false, 0
	}
	if find(s.Firing, telemetry.DeviceStuck) == nil {
		s.Stationary = stationary{}
	}
}

func (s *State) expireCoolDowns(nowMs int64) {
	if len(s.CoolDowns) == 0 {
		return
	}
	s.CoolDowns = slices.DeleteFunc(s.CoolDowns, func(c coolDown) bool { return c.UntilMs <= nowMs })
	if len(s.CoolDowns) == 0 {
		s.CoolDowns = nil
	}
}

// coolDownUntil returns the end of a type's cool-down, or a time long past.
func (s *State) coolDownUntil(t telemetry.AlertType) (untilMs int64) {
	untilMs = -1 << 62
	for _, c := range s.CoolDowns {
		if c.Type == t {
			untilMs = max(untilMs, c.UntilMs)
		}
	}
	return untilMs
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *State) UnmarshalJSON(text []byte) error {
	*s = State{}
	if err := json.Unmarshal(text, &s.stored); err != nil {
		return err
	}
	for i := range s.Firing {
		a := &s.Firing[i]
		if rank(a.Type) < 0 {
			return fmt.Errorf("open alert of device %s: unknown alert type %q", s.Device, a.Type)
		}
		a.DeviceID, a.FleetID = s.Device, s.Fleet
	}
	return nil
}

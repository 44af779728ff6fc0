package alerting

import (
	"encoding/json"
	"fmt"
	"iter"
	"slices"
	"strings"
	"unique"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// State is what the engine knows of one device. The zero value is a device that was never seen. It goes to JSON and
// back without a loss; a copy in memory would share its parts, so copy it through JSON.
type State struct {
	device string
	fleet  unique.Handle[string] // most devices share theirs
	zone   string                // the smallest zone that contains the last fix
	lat    float64               // of the last fix
	lon    float64

	lastMs     int64 // event time of the last fix
	advancedMs int64 // see AdvancedMs

	zonesKnown  uint64       // names the zones that memberships are of; 0: memberships are not followed
	memberships []membership // of the zones that the device is inside of, or seems to enter
	standing    []standing   // open alerts, in the order of telemetry.AlertTypes
	rising      []stretch    // conditions that hold, but not for long enough
	resting     []rest       // types in their cool-down
	still       stillness

	rules *Rules // those that set is of
	set   *settings
}

// standing is an open alert. Its message is made when somebody asks.
type standing struct {
	telemetry.Alert
	Base     float64 `json:"B,omitempty"` // what the peak is measured from: the speed allowed there; or a stuck device's least speed
	Below    bool    `json:"L,omitempty"` // of a temperature: it is too low
	Clearing bool    `json:"C,omitempty"` // the value has been back since ClearMs
	ClearMs  int64   `json:"c,omitempty"`
}

// stretch is the unbroken time for which a condition holds.
type stretch struct {
	Type      telemetry.AlertType `json:"t"`
	StartedMs int64               `json:"b"`
	Peak      float64             `json:"p"`
	Base      float64             `json:"B,omitempty"`
	Below     bool                `json:"L,omitempty"`
}

// rest is the cool-down of a type.
type rest struct {
	Type    telemetry.AlertType `json:"t"`
	UntilMs int64               `json:"u"`
}

func (s *State) seen() bool { return s.device != "" }

// begin makes the state that of the record's device. A record's strings may be cut from a whole line, so they are copied.
func (s *State) begin(r *telemetry.Record) {
	s.device, s.fleet = strings.Clone(r.DeviceID), unique.Make(r.FleetID)
}

// end resolves everything at a fix and forgets the device.
func (s *State) end(r *telemetry.Record, yield func(telemetry.AlertEvent)) {
	s.heard(r.TimeMs)
	for len(s.standing) > 0 {
		s.resolve(s.standing[0].Type, r.TimeMs, yield)
	}
	*s = State{}
}

// AdvancedMs is the latest event time that the state has taken into account: that of the last fix, or of a step of
// device_offline beyond it. A fix before it needs the device's alerts to be derived anew.
func (s *State) AdvancedMs() int64 { return s.advancedMs }

// Open is the open alerts in the order of telemetry.AlertTypes, with the peak and severity that they have so far.
func (s *State) Open() iter.Seq[telemetry.Alert] {
	return func(yield func(telemetry.Alert) bool) {
		for i := range s.standing {
			if !yield(s.standing[i].told()) {
				return
			}
		}
	}
}

// told is the alert with its message.
func (o *standing) told() telemetry.Alert {
	a := o.Alert
	a.Message = message(o)
	return a
}

// find is the open alert of a type, or nil. It is good until the next one opens or is resolved.
func (s *State) find(t telemetry.AlertType) *standing {
	for i := range s.standing {
		if s.standing[i].Type == t {
			return &s.standing[i]
		}
	}
	return nil
}

func (s *State) open(o standing, yield func(telemetry.AlertEvent)) {
	o.DeviceID, o.FleetID = s.device, s.fleet.Value()
	at := 0
	for at < len(s.standing) && rank(s.standing[at].Type) < rank(o.Type) {
		at++
	}
	s.standing = slices.Insert(s.standing, at, o)
	yield(telemetry.AlertEvent{Alert: o.told(), Transition: telemetry.AlertOpened})
}

func (s *State) resolve(t telemetry.AlertType, atMs int64, yield func(telemetry.AlertEvent)) (wasOpen bool) {
	i := slices.IndexFunc(s.standing, func(o standing) bool { return o.Type == t })
	if i < 0 {
		return false
	}
	o := s.standing[i]
	if s.standing = slices.Delete(s.standing, i, i+1); len(s.standing) == 0 {
		s.standing = nil
	}
	o.EndedMs = atMs
	yield(telemetry.AlertEvent{Alert: o.told(), Transition: telemetry.AlertResolved})
	return true
}

func rank(t telemetry.AlertType) int { return slices.Index(telemetry.AlertTypes, t) }

// growing is the stretch of a type, or nil.
func (s *State) growing(t telemetry.AlertType) *stretch {
	for i := range s.rising {
		if s.rising[i].Type == t {
			return &s.rising[i]
		}
	}
	return nil
}

func (s *State) dropStretch(t telemetry.AlertType) {
	if len(s.rising) > 0 {
		s.rising = slices.DeleteFunc(s.rising, func(x stretch) bool { return x.Type == t })
	}
}

// breakStretches is what a gap does.
func (s *State) breakStretches() {
	s.rising = s.rising[:0]
	for i := range s.standing {
		s.standing[i].Clearing, s.standing[i].ClearMs = false, 0
	}
	if s.find(telemetry.DeviceStuck) == nil {
		s.still = stillness{}
	}
}

func (s *State) rest(t telemetry.AlertType, untilMs int64) {
	s.resting = append(s.resting, rest{t, untilMs})
}

// rested forgets the cool-downs that are over.
func (s *State) rested(nowMs int64) {
	if len(s.resting) == 0 {
		return
	}
	s.resting = slices.DeleteFunc(s.resting, func(r rest) bool { return r.UntilMs <= nowMs })
	if len(s.resting) == 0 {
		s.resting = nil
	}
}

// restsUntil is when a type's cool-down is over, or a time long past.
func (s *State) restsUntil(t telemetry.AlertType) (untilMs int64) {
	untilMs = -1 << 62
	for _, r := range s.resting {
		if r.Type == t {
			untilMs = max(untilMs, r.UntilMs)
		}
	}
	return untilMs
}

// stored is a State as JSON.
type stored struct {
	Device      string       `json:"d,omitempty"`
	Fleet       string       `json:"f,omitempty"`
	Zone        string       `json:"z,omitempty"`
	Lat         float64      `json:"y"`
	Lon         float64      `json:"x"`
	LastMs      int64        `json:"l"`
	AdvancedMs  int64        `json:"a"`
	ZonesKnown  uint64       `json:"k,omitempty"`
	Memberships []membership `json:"in,omitempty"`
	Standing    []standing   `json:"o,omitempty"`
	Rising      []stretch    `json:"r,omitempty"`
	Resting     []rest       `json:"c,omitempty"`
	Still       *stillness   `json:"s,omitempty"`
}

// MarshalJSON implements json.Marshaler.
func (s State) MarshalJSON() ([]byte, error) {
	if !s.seen() {
		return []byte("{}"), nil
	}
	out := stored{
		Device: s.device, Fleet: s.fleet.Value(), Zone: s.zone, Lat: s.lat, Lon: s.lon, LastMs: s.lastMs, AdvancedMs: s.advancedMs,
		ZonesKnown: s.zonesKnown, Memberships: s.memberships, Standing: s.standing, Rising: s.rising, Resting: s.resting,
	}
	if s.still != (stillness{}) {
		out.Still = &s.still
	}
	return json.Marshal(out)
}

// UnmarshalJSON implements json.Unmarshaler.
func (s *State) UnmarshalJSON(text []byte) error {
	var in stored
	if err := json.Unmarshal(text, &in); err != nil {
		return err
	}
	*s = State{}
	if in.Device == "" {
		return nil
	}
	for i := range in.Standing {
		o := &in.Standing[i]
		if rank(o.Type) < 0 {
			return fmt.Errorf("open alert of device %s: no alert type is called %q", in.Device, o.Type)
		}
		o.DeviceID, o.FleetID = in.Device, in.Fleet
	}
	*s = State{
		device: in.Device, fleet: unique.Make(in.Fleet), zone: in.Zone, lat: in.Lat, lon: in.Lon, lastMs: in.LastMs, advancedMs: in.AdvancedMs,
		zonesKnown: in.ZonesKnown, memberships: in.Memberships, standing: in.Standing, rising: in.Rising, resting: in.Resting,
	}
	if in.Still != nil {
		s.still = *in.Still
	}
	return nil
}

package derive

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/cassandra"
	"github.com/fleettracing/fleet-tracing/etl/internal/alerting"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// state is what a device's fixes so far come to, and all that its next ones need of them.
type state struct {
	Alerts alerting.State `json:"a"`
	Roll   rollup.State   `json:"r"`
}

// advancedMs is the event time that the state has got to.
func (s *state) advancedMs() int64 { return max(s.Alerts.AdvancedMs(), s.Roll.LastMs()) }

// stateVersion begins every stored state. One of another version is as good as none.
const stateVersion = "1:"

func (s *state) encode() ([]byte, error) {
	text, err := json.Marshal(s)
	if err != nil {
		return nil, fmt.Errorf("write a device's state: %w", err)
	}
	return append([]byte(stateVersion), text...), nil
}

func decodeState(text []byte) (s state, ok bool) {
	rest, ok := strings.CutPrefix(string(text), stateVersion)
	if !ok || json.Unmarshal([]byte(rest), &s) != nil {
		return state{}, false
	}
	return s, true
}

// apply feeds one more fix to a state, in event order.
func (s *state) apply(e *alerting.Engine, r *telemetry.Record, out sink) {
	e.Apply(&s.Alerts, r, func(step telemetry.AlertEvent) { s.step(step, out) })
	s.Roll.Apply(r, out)
}

// advance tells a state that event time went on without a fix.
func (s *state) advance(e *alerting.Engine, nowMs int64, out sink) {
	e.Advance(&s.Alerts, nowMs, func(step telemetry.AlertEvent) { s.step(step, out) })
}

func (s *state) step(step telemetry.AlertEvent, out sink) {
	if step.Transition == telemetry.AlertOpened {
		s.Roll.AddAlert(step.FleetID, step.OpenedMs, out)
	}
	out.Step(step)
}

// sink takes what comes of fixes.
type sink interface {
	rollup.Sink
	Step(telemetry.AlertEvent)
}

// device is a device that sent lately.
type device struct {
	id    string
	state state
	day   cassandra.Day // of the latest fix in state
	fleet map[string]bool

	fromDay  cassandra.Day // of the mark
	pending  int           // records that are announced and not stored
	batch    []*telemetry.Record
	lastSeen time.Time // when a record was stored last
	adopted  []string  // dead processes whose marks go with ours
	whole    bool      // nothing stored is to be trusted when it is derived anew: all that follows is written

	doubtful   bool // the state is not to be trusted: derive anew from doubtDay on
	reason     string
	doubtDay   cassandra.Day
	shared     bool               // another process has records of it too
	sharers    map[string]bool    // those it was seen to be shared with
	aloneSince time.Time          // when it was first seen not to be shared any more
	deriving   bool               // it is being derived anew at this moment
	backlog    []telemetry.Record // what was stored meanwhile
	overflow   bool               // more than that
	derivedAt  time.Time          // when it was last derived anew, at a sure level
	unsure     bool               // the last time was not at a sure level

	dirty     bool          // its rows are to be written
	owesOpen  bool          // its open trip and alerts are to be written, when they are due
	slowDue   time.Time     // when that is
	flushedAt time.Time     // when hours of it were written last
	hours     []rollup.Hour // that became final
	trips     []rollup.Trip
	steps     []telemetry.AlertEvent
	days      []cassandra.DeviceDay // that are over

	unadvanced []byte // the state after the last fix, when time that went on without one has changed it since

	considered int                             // steps of which people have been told, or won't be
	knownMs    int64                           // event time up to which alerts have been told
	told       map[alertKey]telemetry.Severity // open alerts that people know of
	old        map[alertKey]telemetry.Severity // stored alerts beyond the last fix of the stored state
	oldOver    bool                            // there has been a fix since
}

// newDevice is a device of which nothing is known but what it is announced with.
func newDevice(id string, fromDay cassandra.Day, lastSeen time.Time) *device {
	return &device{id: id, fromDay: fromDay, lastSeen: lastSeen, fleet: map[string]bool{}}
}

// join notes fleets that the device was in; changed tells whether one of them is new.
func (v *device) join(fleets []string) (changed bool) {
	for _, fleet := range fleets {
		changed = changed || !v.fleet[fleet]
		v.fleet[fleet] = true
	}
	return changed
}

// stored is the state as it is stored: after the last fix, without what its silence since then came to. A late fix may
// yet break that silence.
func (v *device) stored() ([]byte, error) {
	if v.unadvanced != nil {
		return v.unadvanced, nil
	}
	return v.state.encode()
}

// breaksSilence tells whether a fix comes before an alert that the silence after the last fix had come to before the
// state was stored.
func (v *device) breaksSilence(ms int64) bool {
	for key := range v.old {
		if ms <= key.openedMs {
			return true
		}
	}
	return false
}

// advance lets time go on without a fix.
func (v *device) advance(e *alerting.Engine, nowMs int64) {
	if next, ok := e.Next(&v.state.Alerts); !ok || next > nowMs {
		return
	}
	if v.unadvanced == nil {
		v.unadvanced, _ = v.state.encode() // states always can be written
	}
	v.state.advance(e, nowMs, v)
	v.dirty = true
}

// knowTold notes that people know of an alert.
func (v *device) knowTold(key alertKey, severity telemetry.Severity) {
	if v.told == nil {
		v.told = map[alertKey]telemetry.Severity{}
	}
	v.told[key] = severity
}

// recallTold takes the stored open alerts that people are to be told of for told, unless it is known already what they
// were told.
func (v *device) recallTold(open []cassandra.AlertState) {
	for _, row := range open {
		if key := keyOfRow(row); row.Notify && v.told[key] == "" {
			v.knowTold(key, telemetry.Severity(row.Severity))
		}
	}
}

// quiet tells whether nothing of the device waits to be written.
func (v *device) quiet() bool {
	return !v.dirty && len(v.hours) == 0 && len(v.trips) == 0 && len(v.steps) == 0 && len(v.days) == 0
}

// Hour, Trip and Step take what comes of the device's fixes until it is written.
func (v *device) Hour(h rollup.Hour)             { v.hours = append(v.hours, h) }
func (v *device) Trip(t rollup.Trip)             { v.trips = append(v.trips, t) }
func (v *device) Step(step telemetry.AlertEvent) { v.steps = append(v.steps, step) }

// doubt marks the device to be derived anew from a day on.
func (v *device) doubt(day cassandra.Day, reason string) {
	if !v.doubtful || day < v.doubtDay {
		v.doubtDay = day
	}
	if !v.doubtful {
		v.reason = reason
	}
	v.doubtful = true
}

// Package derived has the rows that follow from the stored records of a device: the state that computes them, their
// conversions and comparisons, and their grouped writes.
package derived

import (
	"encoding/json"
	"fmt"
	"strings"

	"github.com/fleettracing/fleet-tracing/etl/internal/alerting"
	"github.com/fleettracing/fleet-tracing/etl/internal/rollup"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Rules are the alert rules and geofences in force.
type Rules struct {
	Engine      *alerting.Engine
	Fingerprint string // stored with the state of each device
}

// State is everything about a device's past records that its future records need.
type State struct {
	Alerts alerting.State `json:"a"`
	Roll   rollup.State   `json:"r"`
}

// AdvancedMs is the event time up to which the state is complete.
func (s *State) AdvancedMs() int64 { return max(s.Alerts.AdvancedMs(), s.Roll.LastMs()) }

// stateVersion begins every stored state. A state of another version is ignored.
const stateVersion = "1:"

// Encode returns the stored form of the state.
func (s *State) Encode() []byte {
	text, err := json.Marshal(s)
	if err != nil {
		panic(fmt.Errorf("encode device state: %w", err)) // it has only finite numbers
	}
	return append([]byte(stateVersion), text...)
}

// Decode reads a stored state. ok is false for a state of another version.
func Decode(text []byte) (s State, ok bool) {
	rest, ok := strings.CutPrefix(string(text), stateVersion)
	if !ok || json.Unmarshal([]byte(rest), &s) != nil {
		return State{}, false
	}
	return s, true
}

// Apply adds the next record, in event order.
func (s *State) Apply(e *alerting.Engine, r *telemetry.Record, out Sink) {
	e.Apply(&s.Alerts, r, func(event telemetry.AlertEvent) { s.alert(event, out) })
	s.Roll.Apply(r, out)
}

// Advance lets event time pass without a record.
func (s *State) Advance(e *alerting.Engine, nowMs int64, out Sink) {
	e.Advance(&s.Alerts, nowMs, func(event telemetry.AlertEvent) { s.alert(event, out) })
}

func (s *State) alert(event telemetry.AlertEvent, out Sink) {
	if event.Transition == telemetry.AlertOpened {
		s.Roll.AddAlert(event.FleetID, event.OpenedMs, out)
	}
	out.Alert(event)
}

// Sink receives what follows from records.
type Sink interface {
	rollup.Sink
	Alert(telemetry.AlertEvent)
}

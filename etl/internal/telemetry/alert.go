package telemetry

import (
	"encoding/json"
	"time"
)

// AlertType is what an alert is about.
type AlertType string

// The types of alerts.
const (
	SpeedLimit    AlertType = "speed_limit"
	BatteryLow    AlertType = "battery_low"
	Temperature   AlertType = "temperature"
	GeofenceEnter AlertType = "geofence_enter"
	GeofenceExit  AlertType = "geofence_exit"
	GeofenceDwell AlertType = "geofence_dwell"
	DeviceOffline AlertType = "device_offline"
	DeviceStuck   AlertType = "device_stuck"
)

// AlertTypes is every type of alert.
var AlertTypes = []AlertType{
	SpeedLimit, BatteryLow, Temperature, GeofenceEnter, GeofenceExit, GeofenceDwell, DeviceOffline, DeviceStuck,
}

// Severity is how much an alert matters.
type Severity string

// The severities, as they are stored.
const (
	High   Severity = "HIGH"
	Medium Severity = "MEDIUM"
	Low    Severity = "LOW"
)

// Severities is every severity, the gravest first.
var Severities = []Severity{High, Medium, Low}

// Graver tells whether a severity matters more than another; any matters more than none, which is "".
func (s Severity) Graver(than Severity) bool { return s.rank() > than.rank() }

func (s Severity) rank() int {
	switch s {
	case High:
		return 3
	case Medium:
		return 2
	case Low:
		return 1
	}
	return 0
}

// Alert is one alert of a device. A device has at most one open alert of a type. FleetID, DeviceID, Type and OpenedMs
// identify it; the rest may change while it is open.
type Alert struct {
	FleetID  string    `json:"f"`
	DeviceID string    `json:"-"`
	Type     AlertType `json:"t"`
	Severity Severity  `json:"s"` // the gravest it had

	OpenedMs  int64 `json:"o"`           // event time at which it was raised, Unix milliseconds
	StartedMs int64 `json:"b"`           // event time at which its condition began, at or before OpenedMs
	EndedMs   int64 `json:"e,omitempty"` // event time at which it was cleared; 0: it is open

	Peak      float64 `json:"p"` // the furthest value: km/h, percent, °C, or seconds for dwell, offline and stuck
	Threshold float64 `json:"l"` // the limit that was passed, in the same unit

	Zone string  `json:"z,omitempty"` // the zones it is about, or the zone it was raised in
	Lat  float64 `json:"y"`           // where it was raised, degrees
	Lon  float64 `json:"x"`

	Message string `json:"m"` // for people: what, how much, where
}

// Transition is a step in an alert's life.
type Transition string

// The transitions.
const (
	AlertOpened    Transition = "opened"
	AlertEscalated Transition = "escalated" // it became graver
	AlertResolved  Transition = "resolved"
)

// Transitions is every transition.
var Transitions = []Transition{AlertOpened, AlertEscalated, AlertResolved}

// AlertEvent is a change of state of an alert. Alert holds the alert as it is after the change.
type AlertEvent struct {
	Alert
	Transition Transition
	From       Severity // severity before an escalation; empty for the other transitions
}

// MarshalJSON returns the event as programs outside receive it. Names and meanings of its fields are stable; others may
// be added. Times are RFC 3339 with milliseconds, in UTC.
func (e *AlertEvent) MarshalJSON() ([]byte, error) {
	text := func(ms int64) string { return time.UnixMilli(ms).UTC().Format("2006-01-02T15:04:05.000Z07:00") }
	var endedAt *string
	if e.EndedMs != 0 {
		ended := text(e.EndedMs)
		endedAt = &ended
	}
	return json.Marshal(struct {
		FleetID    string     `json:"fleet_id"`
		DeviceID   string     `json:"device_id"`
		Type       AlertType  `json:"type"`
		Severity   Severity   `json:"severity"`
		Transition Transition `json:"transition"`
		OpenedAt   string     `json:"opened_at"`
		StartedAt  string     `json:"started_at"` // when its condition began
		EndedAt    *string    `json:"ended_at"`   // null while it is open
		Peak       float64    `json:"peak"`       // km/h, percent, °C, or seconds for dwell, offline and stuck
		Threshold  float64    `json:"threshold"`  // in the same unit
		Zone       string     `json:"zone"`       // empty for none
		Lat        float64    `json:"lat"`
		Lon        float64    `json:"lon"`
		Message    string     `json:"message"`
	}{
		e.FleetID, e.DeviceID, e.Type, e.Severity, e.Transition, text(e.OpenedMs), text(e.StartedMs), endedAt,
		e.Peak, e.Threshold, e.Zone, e.Lat, e.Lon, e.Message,
	})
}

// Place is where a position lies with regard to one zone.
type Place struct {
	Zone          string            // the zone's name
	InsideM       float64           // distance to the zone's edge in metres: positive inside, negative outside
	AreaM2        float64           // size of the zone, square metres
	SpeedLimitKmh Optional[float64] // what may be driven in it
	DwellS        Optional[int32]   // how long a vehicle may stay in it, seconds
	OnEnter       bool              // entering it is worth an alert
	OnExit        bool              // leaving it is
}

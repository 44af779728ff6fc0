package telemetry

import (
	"encoding/json"
	"slices"
	"time"
)

// AlertType is the subject of an alert.
type AlertType string

// The alert types.
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

// AlertTypes lists all alert types.
var AlertTypes = []AlertType{
	SpeedLimit, BatteryLow, Temperature, GeofenceEnter, GeofenceExit, GeofenceDwell, DeviceOffline, DeviceStuck,
}

// Severity is the urgency of an alert.
type Severity string

// The severities, as they are stored.
const (
	High   Severity = "HIGH"
	Medium Severity = "MEDIUM"
	Low    Severity = "LOW"
)

// Severities lists all severities, the highest first.
var Severities = []Severity{High, Medium, Low}

// HigherThan reports whether s is higher than other. The empty severity is the lowest.
func (s Severity) HigherThan(other Severity) bool {
	at, its := slices.Index(Severities, s), slices.Index(Severities, other)
	return at >= 0 && (its < 0 || at < its)
}

// Alert is one alert of a device. A device has at most one open alert per type. FleetID, DeviceID, Type and OpenedMs
// identify an alert; the other fields may change while it is open. The JSON is that of stored states.
type Alert struct {
	FleetID  string    `json:"f,omitempty"`
	DeviceID string    `json:"-"`
	Type     AlertType `json:"t"`
	Severity Severity  `json:"s,omitempty"` // highest so far

	OpenedMs  int64 `json:"o,omitempty"` // event time at which it opened, Unix milliseconds
	StartedMs int64 `json:"b"`           // event time at which its condition began, at or before OpenedMs
	EndedMs   int64 `json:"e,omitempty"` // event time at which it was resolved; 0 while it is open

	Peak      float64 `json:"p"`           // value furthest beyond the limit: km/h, percent, °C, or seconds for dwell, offline and stuck
	Threshold float64 `json:"l,omitempty"` // the limit, in the same unit

	Zone string  `json:"z,omitempty"` // geofences that it is about, or the zone in which it opened
	Lat  float64 `json:"y,omitempty"` // where it opened, degrees
	Lon  float64 `json:"x,omitempty"`

	Message string `json:"m,omitempty"` // description for people
}

// Transition is a state change of an alert.
type Transition string

// The transitions.
const (
	AlertOpened    Transition = "opened"
	AlertEscalated Transition = "escalated" // to a higher severity
	AlertResolved  Transition = "resolved"
)

// Transitions lists all transitions.
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

// NearbyGeofence is a geofence that contains a position or lies near it.
type NearbyGeofence struct {
	Name          string
	InsideM       float64           // distance of the position to the edge in meters: positive inside, negative outside
	AreaM2        float64           // square meters
	SpeedLimitKmh Optional[float64] // speed limit inside
	DwellS        Optional[int32]   // how long a vehicle may stay inside, seconds
	OnEnter       bool              // an entry raises an alert
	OnExit        bool              // an exit raises an alert
}

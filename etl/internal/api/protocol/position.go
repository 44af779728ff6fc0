package protocol

import (
	"cmp"
	"encoding/json"
	"math"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// position is a position as a protocol encodes it: each value as its text, empty when it is absent.
type position struct {
	device, fleet, time, lat, lon, speed, heading, battery string

	accuracy string  // meters
	kmh      float64 // km/h in the protocol's unit of speed
	percent  float64 // percent in its unit of charge
}

// The units of speed, in km/h.
const (
	knots           = 1.852
	metersPerSecond = 3.6
	kmPerHour       = 1
)

// object is a JSON object of a protocol.
type object map[string]json.RawMessage

// field is a field of an object, and where its text goes.
type field struct {
	name string
	to   *string
}

// read reads the texts of several fields. It stops at the first one that is neither a text nor a number.
func (o object) read(fields ...field) *telemetry.Rejection {
	for _, f := range fields {
		text, rejection := telemetry.JSONText(f.name, o[f.name])
		if rejection != nil {
			return rejection
		}
		*f.to = text
	}
	return nil
}

// message makes the message of a position that arrived as raw. rejection is why it could not be read, or nil.
func (p *position) message(raw string, d Defaults, rejection *telemetry.Rejection) Message {
	var r telemetry.Record
	if rejection == nil {
		r, rejection = p.record(d)
	}
	return newMessage(raw, r, rejection, d)
}

// record converts a position to our names and units. Devices send a negative speed, heading, charge or accuracy when they
// do not know it.
func (p *position) record(d Defaults) (telemetry.Record, *telemetry.Rejection) {
	var r telemetry.Record
	device, fleet, at := cmp.Or(strings.TrimSpace(p.device), d.Device), cmp.Or(strings.TrimSpace(p.fleet), d.Fleet), p.time
	if at == "" && !d.Time.IsZero() {
		at = d.Time.UTC().Format(time.RFC3339Nano)
	}
	for _, f := range [...]struct{ name, text string }{
		{telemetry.FieldDeviceID, device}, {telemetry.FieldFleetID, fleet}, {telemetry.FieldTimestamp, at},
		{telemetry.FieldLat, p.lat}, {telemetry.FieldLon, p.lon},
	} {
		if strings.TrimSpace(f.text) == "" {
			return r, telemetry.Reject(telemetry.MissingField, f.name, "", "give it a value")
		}
		if err := r.SetText(f.name, f.text, telemetry.TimeFormat{}); err != nil {
			return r, err.(*telemetry.Rejection) //nolint:errorlint // SetText returns no other type
		}
	}
	for _, f := range [...]struct {
		name, text string
		factor     float64
		to         *telemetry.Optional[float64]
	}{
		{telemetry.FieldSpeed, p.speed, p.kmh, &r.SpeedKmh}, {telemetry.FieldHeading, p.heading, 1, &r.HeadingDeg},
		{telemetry.FieldBattery, p.battery, p.percent, nil}, {telemetry.FieldAccuracy, p.accuracy, 1, &r.AccuracyM},
	} {
		text := strings.TrimSpace(f.text)
		if text == "" {
			continue
		}
		n, err := telemetry.ParseFloat(f.name, text)
		if err == nil && n >= 0 {
			n = math.Round(n*f.factor*1000) / 1000 // drops the rounding noise of the product
			if f.to != nil {
				*f.to = telemetry.Some(n)
			} else {
				r.BatteryPct, err = telemetry.Battery(n, f.text)
			}
		}
		if err != nil {
			return r, err.(*telemetry.Rejection) //nolint:errorlint // ParseFloat and Battery return no other type
		}
	}
	return r, nil
}

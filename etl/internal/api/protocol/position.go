package protocol

import (
	"math"
	"strings"

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

// record converts a position to our names and units. Devices send a negative speed, heading, charge or accuracy when they
// do not know it.
func (p *position) record() (telemetry.Record, *telemetry.Rejection) {
	var r telemetry.Record
	for _, f := range [...]struct{ name, text string }{
		{telemetry.FieldDeviceID, p.device}, {telemetry.FieldFleetID, p.fleet}, {telemetry.FieldTimestamp, p.time},
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
	}{
		{telemetry.FieldSpeed, p.speed, p.kmh}, {telemetry.FieldHeading, p.heading, 1}, {telemetry.FieldBattery, p.battery, p.percent},
		{telemetry.FieldAccuracy, p.accuracy, 1},
	} {
		if strings.TrimSpace(f.text) == "" {
			continue
		}
		n, err := telemetry.ParseFloat(f.name, strings.TrimSpace(f.text))
		if err != nil {
			return r, err.(*telemetry.Rejection) //nolint:errorlint // ParseFloat returns no other type
		}
		if n < 0 {
			continue
		}
		n = math.Round(n*f.factor*1000) / 1000 // drops the rounding noise of the product
		switch f.name {
		case telemetry.FieldSpeed:
			r.SpeedKmh = telemetry.Some(n)
		case telemetry.FieldHeading:
			r.HeadingDeg = telemetry.Some(n)
		case telemetry.FieldAccuracy:
			r.AccuracyM = telemetry.Some(n)
		case telemetry.FieldBattery:
			if r.BatteryPct, err = telemetry.Battery(n, f.text); err != nil {
				return r, err.(*telemetry.Rejection) //nolint:errorlint // Battery returns no other type
			}
		}
	}
	return r, nil
}

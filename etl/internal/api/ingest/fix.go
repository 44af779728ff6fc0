package ingest

import (
	"bytes"
	"encoding/json"
	"math"
	"net/url"
	"strconv"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// fix is a position as a device's protocol tells it, each value as its text; empty is absent.
type fix struct {
	device, fleet, time, lat, lon, speed, heading, battery string
	accuracy                                               string  // metres
	kmh                                                    float64 // km/h in the protocol's unit of speed
	percent                                                float64 // percent in its unit of charge
}

// The units of speed, in km/h.
const (
	knots           = 1.852
	metresPerSecond = 3.6
	kmPerHour       = 1
)

// record puts a fix into our names and units. Below zero, devices mean that they don't know speed, heading, charge or
// accuracy.
func (f *fix) record() (telemetry.Record, *telemetry.Rejection) {
	var r telemetry.Record
	for _, v := range [...]struct{ name, text string }{
		{telemetry.FieldDeviceID, f.device}, {telemetry.FieldFleetID, f.fleet}, {telemetry.FieldTimestamp, f.time},
		{telemetry.FieldLat, f.lat}, {telemetry.FieldLon, f.lon},
	} {
		if strings.TrimSpace(v.text) == "" {
			return r, telemetry.Reject(telemetry.MissingField, v.name, "", "give it a value")
		}
		if err := r.SetText(v.name, v.text, telemetry.TimeFormat{}); err != nil {
			return r, err.(*telemetry.Rejection) //nolint:errorlint // SetText gives nothing else
		}
	}
	for _, v := range [...]struct {
		name, text string
		factor     float64
	}{
		{telemetry.FieldSpeed, f.speed, f.kmh}, {telemetry.FieldHeading, f.heading, 1}, {telemetry.FieldBattery, f.battery, f.percent},
		{telemetry.FieldAccuracy, f.accuracy, 1},
	} {
		if strings.TrimSpace(v.text) == "" {
			continue
		}
		n, err := telemetry.ParseFloat(v.name, strings.TrimSpace(v.text))
		if err != nil {
			return r, err.(*telemetry.Rejection) //nolint:errorlint // ParseFloat gives nothing else
		}
		if n < 0 {
			continue
		}
		n = math.Round(n*v.factor*1000) / 1000 // a product's last digits are noise
		switch v.name {
		case telemetry.FieldSpeed:
			r.SpeedKmh = telemetry.Some(n)
		case telemetry.FieldHeading:
			r.HeadingDeg = telemetry.Some(n)
		case telemetry.FieldAccuracy:
			r.AccuracyM = telemetry.Some(n)
		case telemetry.FieldBattery:
			if r.BatteryPct, err = telemetry.Battery(n, v.text); err != nil {
				return r, err.(*telemetry.Rejection) //nolint:errorlint // Battery gives nothing else
			}
		}
	}
	return r, nil
}

// jsonText is the text of a string or a number; empty for null and for what is absent.
func jsonText(field string, value json.RawMessage) (string, *telemetry.Rejection) {
	switch {
	case len(value) == 0 || string(value) == "null":
		return "", nil
	case value[0] == '"':
		var s string
		_ = json.Unmarshal(value, &s) // it was read as JSON before
		return s, nil
	case value[0] == '-' || value[0] >= '0' && value[0] <= '9':
		return string(value), nil
	default:
		return "", telemetry.Reject(telemetry.Malformed, field, string(value), "give a text or a number")
	}
}

// jsonTexts fills in the texts of several values; it stops at the first that is neither text nor number.
func jsonTexts(values ...jsonValue) *telemetry.Rejection {
	for _, v := range values {
		text, rejection := jsonText(v.field, v.value)
		if rejection != nil {
			return rejection
		}
		*v.to = text
	}
	return nil
}

type jsonValue struct {
	field string
	value json.RawMessage
	to    *string
}

// provenance is what a record owes to its request: its token's fleet, the device that a header named, the time at which it
// came. It is added to the raw text, so that the record can be read again from that alone.
type provenance struct {
	fleet, device string
	at            time.Time
}

// bounded is a name from a request's address or header, which each of its records repeats. What is too long for a name
// is cut such that it stays none.
func bounded(name string) string {
	if len(name) > telemetry.MaxNameLen {
		name = strings.ToValidUTF8(name[:telemetry.MaxNameLen], "") + "…"
	}
	return name
}

// withProvenance adds to the text of an object what it lacks. At its end, it goes before an empty value of the same name.
func withProvenance(raw string, c provenance) string {
	object, isObject := strings.CutSuffix(strings.TrimSpace(raw), "}")
	if !isObject || c.fleet == "" && c.device == "" {
		return raw
	}
	added := strings.TrimRight(object, " \t\r\n")
	for _, field := range [...]struct{ name, value string }{{telemetry.FieldFleetID, c.fleet}, {telemetry.FieldDeviceID, c.device}} {
		if field.value == "" {
			continue
		}
		if added != "{" {
			added += ","
		}
		text, _ := json.Marshal(field.value) // a string always has a JSON
		added += `"` + field.name + `":` + string(text)
	}
	return added + "}"
}

// fleetOwed is the fleet of the request where the text of a record, which is an object, names none itself.
func fleetOwed(text []byte, r *telemetry.Record, rejection *telemetry.Rejection, fleet string) string {
	if rejection == nil && r.FleetID != fleet {
		return ""
	}
	if rejection == nil && !bytes.Contains(text, []byte(telemetry.FieldFleetID)) {
		return fleet
	}
	var own struct {
		FleetID json.RawMessage `json:"fleet_id"`
	}
	_ = json.Unmarshal(text, &own) // it was read as JSON before
	if !blank(own.FleetID) {
		return ""
	}
	return fleet
}

// blank tells whether a value is absent, null or an empty text.
func blank(value json.RawMessage) bool {
	text, wrong := jsonText("", value)
	return wrong == nil && strings.TrimSpace(text) == ""
}

func queryWithProvenance(raw string, c provenance) string {
	add := func(name, value string) {
		if raw != "" {
			raw += "&"
		}
		raw += name + "=" + url.QueryEscape(value)
	}
	if c.fleet != "" {
		add(telemetry.FieldFleetID, c.fleet)
	}
	if !c.at.IsZero() {
		add(telemetry.FieldTimestamp, strconv.FormatInt(c.at.UnixMilli(), 10))
	}
	return raw
}

// ParseRaw reads the raw text of one of this source's dead letters, in whichever protocol it came.
func ParseRaw(raw string) (telemetry.Record, *telemetry.Rejection) {
	text := strings.TrimSpace(raw)
	if !strings.HasPrefix(text, "{") && strings.Contains(text, "=") {
		f, rejection := queryFix(text)
		if rejection != nil {
			return telemetry.Record{}, rejection
		}
		return f.record()
	}
	var kind struct {
		Type     json.RawMessage `json:"_type"`
		Location json.RawMessage `json:"location"`
	}
	if json.Unmarshal([]byte(text), &kind) == nil {
		switch {
		case len(kind.Type) > 0:
			r := ownTracksRecord([]byte(text), provenance{})
			return r.record, r.rejection
		case len(kind.Location) > 0:
			records, _, err := traccarRecords([]byte(text), provenance{}, 1)
			if err == nil && len(records) == 1 {
				return records[0].record, records[0].rejection
			}
		}
	}
	return telemetry.ParseJSON([]byte(text), "")
}

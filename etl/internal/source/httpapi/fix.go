package httpapi

import (
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

func withProvenance(raw string, c provenance) string {
	var fields []string
	add := func(name, value string) {
		if value != "" && !strings.Contains(raw, `"`+name+`"`) {
			text, _ := json.Marshal(value) // a string always has a JSON
			fields = append(fields, `"`+name+`":`+string(text))
		}
	}
	add(telemetry.FieldFleetID, c.fleet)
	add(telemetry.FieldDeviceID, c.device)
	rest, isObject := strings.CutPrefix(raw, "{")
	if len(fields) == 0 || !isObject {
		return raw
	}
	added := "{" + strings.Join(fields, ",")
	if strings.TrimSpace(rest) != "}" {
		added += ","
	}
	return added + rest
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
			records, _ := traccarRecords([]byte(text), provenance{})
			if len(records) == 1 {
				return records[0].record, records[0].rejection
			}
		}
	}
	return telemetry.ParseJSON([]byte(text), "")
}

package generator

import (
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// fields are the fields of a simulated record in the order of telemetry.Fields. Simulated positions have no accuracy.
var fields = slices.DeleteFunc(slices.Clone(telemetry.Fields), func(field string) bool { return field == telemetry.FieldAccuracy })

// timeLayout is RFC 3339 with milliseconds.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// An encoder appends a record without a newline. The damaged field has the given text instead of its value, or is missing
// if the text is empty.
type encoder func(dst []byte, r *telemetry.Record, damaged, text string) []byte

// AppendJSON appends a record as a JSON object without a newline. Absent values are left out; numbers that JSON can't
// represent are null.
func AppendJSON(dst []byte, r *telemetry.Record) []byte { return appendJSON(dst, r, "", "") }

func appendJSON(dst []byte, r *telemetry.Record, damaged, text string) []byte {
	separator := byte('{')
	for _, field := range fields {
		v := valueOf(r, field)
		if field == damaged {
			v = value{text: text, present: text != ""}
		}
		if !v.present {
			continue
		}
		dst = append(append(append(dst, separator, '"'), field...), '"', ':')
		separator = ','
		switch {
		case !v.numeric:
			dst = appendJSONString(dst, v.text)
		case math.IsNaN(v.number) || math.IsInf(v.number, 0):
			dst = append(dst, "null"...)
		default:
			dst = strconv.AppendFloat(dst, v.number, 'f', -1, 64)
		}
	}
	return append(dst, '}')
}

func appendJSONString(dst []byte, s string) []byte {
	if strings.ContainsFunc(s, func(c rune) bool { return c < ' ' || c > '~' || c == '"' || c == '\\' }) {
		quoted, _ := json.Marshal(s) // every string has a JSON form
		return append(dst, quoted...)
	}
	return append(append(append(dst, '"'), s...), '"')
}

// appendCSV appends a record as a CSV row without a newline. Absent values are empty cells.
func appendCSV(dst []byte, r *telemetry.Record, damaged, text string) []byte {
	for i, field := range fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		v := valueOf(r, field)
		if field == damaged {
			v = value{text: text, present: true}
		}
		switch {
		case !v.present:
		case v.numeric:
			dst = strconv.AppendFloat(dst, v.number, 'f', -1, 64)
		case strings.ContainsAny(v.text, "\",\r\n"): // RFC 4180
			dst = append(append(append(dst, '"'), strings.ReplaceAll(v.text, `"`, `""`)...), '"')
		default:
			dst = append(dst, v.text...)
		}
	}
	return dst
}

// value is the value of one field: a text or a number.
type value struct {
	text             string
	number           float64
	numeric, present bool
}

func valueOf(r *telemetry.Record, field string) value {
	text := func(s string) value { return value{text: s, present: s != ""} }
	number := func(o telemetry.Optional[float64]) value {
		return value{number: o.Value, numeric: true, present: o.Valid}
	}
	switch field {
	case telemetry.FieldDeviceID:
		return text(r.DeviceID)
	case telemetry.FieldFleetID:
		return text(r.FleetID)
	case telemetry.FieldTimestamp:
		return text(time.UnixMilli(r.TimeMs).UTC().Format(timeLayout))
	case telemetry.FieldLat:
		return number(telemetry.Some(r.Lat))
	case telemetry.FieldLon:
		return number(telemetry.Some(r.Lon))
	case telemetry.FieldSpeed:
		return number(r.SpeedKmh)
	case telemetry.FieldHeading:
		return number(r.HeadingDeg)
	case telemetry.FieldBattery:
		return value{number: float64(r.BatteryPct.Value), numeric: true, present: r.BatteryPct.Valid}
	case telemetry.FieldTemp:
		return number(r.TempC)
	default:
		return text(r.Zone)
	}
}

// line appends an emission as a sender would transmit it, without a newline.
func (encode encoder) line(dst []byte, e *Emission) []byte {
	start := len(dst)
	dst = encode(dst, &e.Record, e.Field, e.Text)
	if e.Cut {
		dst = dst[:start+(len(dst)-start)/2]
	}
	return dst
}

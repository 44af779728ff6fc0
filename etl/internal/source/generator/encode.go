package generator

import (
	"encoding/json"
	"slices"
	"strconv"
	"strings"

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
	for i, value := range values(r, damaged, text) {
		if value == "" {
			continue
		}
		dst = append(append(append(dst, separator, '"'), fields[i]...), '"', ':')
		separator = ','
		switch {
		case fields[i] == damaged || isText(fields[i]):
			quoted, _ := json.Marshal(value) // every string has a JSON form
			dst = append(dst, quoted...)
		case strings.ContainsAny(value, "NI"): // NaN, +Inf, -Inf
			dst = append(dst, "null"...)
		default:
			dst = append(dst, value...)
		}
	}
	return append(dst, '}')
}

// appendCSV appends a record as a CSV row without a newline. Absent values are empty cells.
func appendCSV(dst []byte, r *telemetry.Record, damaged, text string) []byte {
	for i, value := range values(r, damaged, text) {
		if i > 0 {
			dst = append(dst, ',')
		}
		if strings.ContainsAny(value, "\",\r\n") { // RFC 4180
			value = `"` + strings.ReplaceAll(value, `"`, `""`) + `"`
		}
		dst = append(dst, value...)
	}
	return dst
}

// isText returns whether the values of a field are texts. The others are numbers.
func isText(field string) bool {
	switch field {
	case telemetry.FieldDeviceID, telemetry.FieldFleetID, telemetry.FieldTimestamp, telemetry.FieldZone:
		return true
	}
	return false
}

// values returns the values of a record in the order of fields. Absent values are empty.
func values(r *telemetry.Record, damaged, text string) [10]string {
	number := func(v float64, valid bool) string {
		if !valid {
			return ""
		}
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	all := [...]string{
		r.DeviceID, r.FleetID, r.Time().Format(timeLayout), number(r.Lat, true), number(r.Lon, true),
		number(r.SpeedKmh.Value, r.SpeedKmh.Valid), number(r.HeadingDeg.Value, r.HeadingDeg.Valid),
		number(float64(r.BatteryPct.Value), r.BatteryPct.Valid), number(r.TempC.Value, r.TempC.Valid), r.Zone,
	}
	if i := slices.Index(fields, damaged); i >= 0 {
		all[i] = text
	}
	return all
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

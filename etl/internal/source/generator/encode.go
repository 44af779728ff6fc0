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

// fields are those of telemetry.Fields that a simulated vehicle tells: its fixes have no accuracy.
var fields = slices.DeleteFunc(slices.Clone(telemetry.Fields), func(field string) bool { return field == telemetry.FieldAccuracy })

// timeLayout is RFC 3339 with the milliseconds that a record keeps.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// AppendJSON appends a record as one JSON object without a line end, with the fields' names as keys in the order of
// telemetry.Fields, the accuracy left aside. What the record lacks is left out, names and zone when they are empty. A number that JSON can't
// hold (NaN or infinite) is null.
func AppendJSON(dst []byte, r *telemetry.Record) []byte { return appendJSON(dst, r, "", "") }

// appendJSON is AppendJSON, but for one field that is spoilt: text stands for it, or nothing where text is empty.
func appendJSON(dst []byte, r *telemetry.Record, spoilt, text string) []byte {
	o := object{dst: append(dst, '{'), spoilt: spoilt, text: text}
	if o.member(telemetry.FieldDeviceID, r.DeviceID != "") {
		o.string(r.DeviceID)
	}
	if o.member(telemetry.FieldFleetID, r.FleetID != "") {
		o.string(r.FleetID)
	}
	if o.member(telemetry.FieldTimestamp, true) {
		o.dst = append(appendTime(append(o.dst, '"'), r.TimeMs), '"')
	}
	if o.member(telemetry.FieldLat, true) {
		o.number(r.Lat)
	}
	if o.member(telemetry.FieldLon, true) {
		o.number(r.Lon)
	}
	if o.member(telemetry.FieldSpeed, r.SpeedKmh.Valid) {
		o.number(r.SpeedKmh.Value)
	}
	if o.member(telemetry.FieldHeading, r.HeadingDeg.Valid) {
		o.number(r.HeadingDeg.Value)
	}
	if o.member(telemetry.FieldBattery, r.BatteryPct.Valid) {
		o.dst = strconv.AppendInt(o.dst, int64(r.BatteryPct.Value), 10)
	}
	if o.member(telemetry.FieldTemp, r.TempC.Valid) {
		o.number(r.TempC.Value)
	}
	if o.member(telemetry.FieldZone, r.Zone != "") {
		o.string(r.Zone)
	}
	return append(o.dst, '}')
}

// object is a JSON object that is being written.
type object struct {
	dst          []byte
	members      bool
	spoilt, text string
}

// member writes a key. It is false when the caller has no value to write: the member is absent, or spoilt and done.
func (o *object) member(name string, present bool) bool {
	spoilt := name == o.spoilt
	if spoilt {
		present = o.text != ""
	}
	if !present {
		return false
	}
	if o.members {
		o.dst = append(o.dst, ',')
	}
	o.members = true
	o.dst = append(o.dst, '"')
	o.dst = append(o.dst, name...)
	o.dst = append(o.dst, '"', ':')
	if spoilt {
		o.string(o.text)
	}
	return !spoilt
}

func (o *object) string(s string) {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			quoted, _ := json.Marshal(s) // a string always has a JSON form
			o.dst = append(o.dst, quoted...)
			return
		}
	}
	o.dst = append(o.dst, '"')
	o.dst = append(o.dst, s...)
	o.dst = append(o.dst, '"')
}

func (o *object) number(v float64) {
	if math.IsNaN(v) || math.IsInf(v, 0) {
		o.dst = append(o.dst, "null"...)
		return
	}
	o.dst = strconv.AppendFloat(o.dst, v, 'f', -1, 64)
}

// appendCSV appends a record as one CSV row without a line end, with the cells that fields names; what the record
// lacks is empty. A spoilt field is treated as in appendJSON.
func appendCSV(dst []byte, r *telemetry.Record, spoilt, text string) []byte {
	w := row{dst: dst, spoilt: spoilt, text: text}
	if w.cell(telemetry.FieldDeviceID, true) {
		w.string(r.DeviceID)
	}
	if w.cell(telemetry.FieldFleetID, true) {
		w.string(r.FleetID)
	}
	if w.cell(telemetry.FieldTimestamp, true) {
		w.dst = appendTime(w.dst, r.TimeMs)
	}
	if w.cell(telemetry.FieldLat, true) {
		w.number(r.Lat)
	}
	if w.cell(telemetry.FieldLon, true) {
		w.number(r.Lon)
	}
	if w.cell(telemetry.FieldSpeed, r.SpeedKmh.Valid) {
		w.number(r.SpeedKmh.Value)
	}
	if w.cell(telemetry.FieldHeading, r.HeadingDeg.Valid) {
		w.number(r.HeadingDeg.Value)
	}
	if w.cell(telemetry.FieldBattery, r.BatteryPct.Valid) {
		w.dst = strconv.AppendInt(w.dst, int64(r.BatteryPct.Value), 10)
	}
	if w.cell(telemetry.FieldTemp, r.TempC.Valid) {
		w.number(r.TempC.Value)
	}
	if w.cell(telemetry.FieldZone, true) {
		w.string(r.Zone)
	}
	return w.dst
}

// row is a CSV row that is being written.
type row struct {
	dst          []byte
	cells        bool
	spoilt, text string
}

// cell begins a cell. It is false when the caller has nothing to write into it.
func (w *row) cell(name string, present bool) bool {
	if w.cells {
		w.dst = append(w.dst, ',')
	}
	w.cells = true
	if name == w.spoilt {
		w.string(w.text)
		return false
	}
	return present
}

// string quotes as RFC 4180 says.
func (w *row) string(s string) {
	if !strings.ContainsAny(s, "\",\r\n") {
		w.dst = append(w.dst, s...)
		return
	}
	w.dst = append(w.dst, '"')
	w.dst = append(w.dst, strings.ReplaceAll(s, `"`, `""`)...)
	w.dst = append(w.dst, '"')
}

func (w *row) number(v float64) { w.dst = strconv.AppendFloat(w.dst, v, 'f', -1, 64) }

func appendTime(dst []byte, ms int64) []byte {
	return time.UnixMilli(ms).UTC().AppendFormat(dst, timeLayout)
}

// encoder appends a record, with one field that may be spoilt.
type encoder func(dst []byte, r *telemetry.Record, spoilt, text string) []byte

// line appends an emission as it comes over the wire, without a line end.
func (encode encoder) line(dst []byte, e *Emission) []byte {
	begin := len(dst)
	dst = encode(dst, &e.Record, e.Field, e.Text)
	if e.Cut {
		dst = dst[:begin+(len(dst)-begin)/2]
	}
	return dst
}

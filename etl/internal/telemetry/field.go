package telemetry

import (
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"
)

// The names of a record's fields in headers, JSON and messages.
const (
	FieldDeviceID  = "device_id"
	FieldFleetID   = "fleet_id"
	FieldTimestamp = "timestamp"
	FieldLat       = "lat"
	FieldLon       = "lon"
	FieldSpeed     = "speed_kmh"
	FieldHeading   = "heading_deg"
	FieldBattery   = "battery_pct"
	FieldTemp      = "temp_c"
	FieldZone      = "zone"
	FieldAccuracy  = "accuracy_m"
)

// Fields lists all fields of a record in the order of written files. The first five are required.
var Fields = []string{
	FieldDeviceID, FieldFleetID, FieldTimestamp, FieldLat, FieldLon,
	FieldSpeed, FieldHeading, FieldBattery, FieldTemp, FieldZone, FieldAccuracy,
}

// RequiredFields lists the required fields.
var RequiredFields = Fields[:5]

// TimeFormat parses timestamps. The zero value accepts RFC 3339 and epoch seconds or milliseconds.
type TimeFormat struct {
	Layout   string         // a layout of package time; empty for the default formats
	Location *time.Location // time zone of timestamps without one; nil is UTC
}

// naiveLayouts are formats of databases and spreadsheets, accepted by default. They have no time zone. Package time parses
// fractional seconds although the layouts have none.
var naiveLayouts = []string{"2006-01-02 15:04:05", "2006-01-02T15:04:05"}

const naiveLength = len("2006-01-02 15:04:05")

// epochMsFrom is the least number that means milliseconds rather than seconds since 1970. As seconds it is in the year 5138,
// as milliseconds in March 1973.
const epochMsFrom = 100_000_000_000

// Parse returns a timestamp as Unix milliseconds, or a Rejection with reason bad_timestamp.
func (f TimeFormat) Parse(s string) (int64, error) {
	loc := f.Location
	if loc == nil {
		loc = time.UTC
	}
	if f.Layout != "" {
		t, err := time.ParseInLocation(f.Layout, s, loc)
		if err != nil {
			return 0, Reject(BadTimestamp, FieldTimestamp, s, "give it in the layout "+strconv.Quote(f.Layout))
		}
		return t.UnixMilli(), nil
	}
	// A failed attempt allocates, so guess the format first: a date has a dash where epochs have a digit, and only a time
	// without a time zone is as short as naiveLength.
	dated := len(s) > 4 && s[4] == '-'
	if !dated {
		if ms, ok := parseEpoch(s); ok {
			return ms, nil
		}
	}
	if dated && len(s) > naiveLength {
		if t, err := time.Parse(time.RFC3339Nano, s); err == nil {
			return t.UnixMilli(), nil
		}
	}
	for _, layout := range naiveLayouts {
		if t, err := time.ParseInLocation(layout, s, loc); err == nil {
			return t.UnixMilli(), nil
		}
	}
	return 0, Reject(BadTimestamp, FieldTimestamp, s, "give RFC 3339, epoch seconds or milliseconds, or set the layout")
}

// parseEpoch parses seconds, with or without a fraction, or whole milliseconds since 1970.
func parseEpoch(s string) (int64, bool) {
	if n, err := strconv.ParseInt(s, 10, 64); err == nil {
		if n >= epochMsFrom || n <= -epochMsFrom {
			return n, true
		}
		return n * 1000, true
	}
	whole, frac, ok := strings.Cut(s, ".")
	if !ok || strings.HasPrefix(whole, "-") || frac == "" || strings.Trim(frac, "0123456789") != "" {
		return 0, false
	}
	n, err := strconv.ParseInt(whole, 10, 64)
	if err != nil || n >= epochMsFrom || n < 0 {
		return 0, false
	}
	ms, err := strconv.ParseInt((frac + "000")[:3], 10, 64)
	return n*1000 + ms, err == nil
}

// ParseFloat parses a finite decimal number. The error is a Rejection with reason malformed.
func ParseFloat(field, s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || strings.ContainsAny(s, "xX_") { // Go accepts hexadecimal numbers too
		return 0, Reject(Malformed, field, s, "give a decimal number")
	}
	return v, nil
}

// SetText sets one field of the record from text. It does not check bounds. Empty text leaves the field absent, and unknown
// fields are ignored. The error is a Rejection.
func (r *Record) SetText(field, s string, times TimeFormat) (err error) {
	s = strings.TrimSpace(s)
	if s == "" {
		return nil
	}
	switch field {
	case FieldDeviceID:
		r.DeviceID = s
	case FieldFleetID:
		r.FleetID = s
	case FieldZone:
		r.Zone = s
	case FieldTimestamp:
		r.TimeMs, err = times.Parse(s)
	case FieldLat:
		r.Lat, err = ParseFloat(field, s)
	case FieldLon:
		r.Lon, err = ParseFloat(field, s)
	case FieldSpeed:
		err = setFloat(&r.SpeedKmh, field, s)
	case FieldHeading:
		err = setFloat(&r.HeadingDeg, field, s)
	case FieldTemp:
		err = setFloat(&r.TempC, field, s)
	case FieldAccuracy:
		err = setFloat(&r.AccuracyM, field, s)
	case FieldBattery:
		var v float64
		if v, err = ParseFloat(field, s); err == nil {
			r.BatteryPct, err = Battery(v, s)
		}
	}
	return err
}

// SetConstant sets one field as SetText does, for a value that many records get. It also rejects unknown fields, an empty
// value of a required field, and invalid names: every record would be rejected.
func (r *Record) SetConstant(field, value string, times TimeFormat) error {
	value = strings.TrimSpace(value)
	switch {
	case !slices.Contains(Fields, field):
		return UnknownField(field)
	case value == "" && slices.Contains(RequiredFields, field):
		return fmt.Errorf("the value is missing, and %s is required: set a value", field)
	case value != "" && (field == FieldDeviceID || field == FieldFleetID || field == FieldZone) && !ValidName(value):
		return fmt.Errorf("every record would be rejected: use 1 to %d characters of A-Za-z0-9._:-", MaxNameLen)
	}
	return r.SetText(field, value, times)
}

// UnknownField returns the error for a name that is not in Fields.
func UnknownField(field string) error {
	return fmt.Errorf("unknown field %q: the fields are %s", field, strings.Join(Fields, ", "))
}

func setFloat(dst *Optional[float64], field, s string) error {
	v, err := ParseFloat(field, s)
	if err == nil {
		*dst = Some(v)
	}
	return err
}

// Battery rounds a charge in percent to a whole number. It rejects values outside 0 to 100, which could wrap around.
// shown is the value in the error.
func Battery(pct float64, shown string) (Optional[int32], error) {
	if !(pct >= 0 && pct <= 100) {
		return Optional[int32]{}, Reject(BatteryRange, FieldBattery, shown, "give percent from 0 to 100")
	}
	return Some(int32(math.Round(pct))), nil
}

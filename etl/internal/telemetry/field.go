package telemetry

import (
	"math"
	"strconv"
	"strings"
	"time"
)

// The names of a record's fields, as they stand in headers, JSON and messages.
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

// Fields is every field of a record in the order in which files are written; the first five are required.
var Fields = []string{
	FieldDeviceID, FieldFleetID, FieldTimestamp, FieldLat, FieldLon,
	FieldSpeed, FieldHeading, FieldBattery, FieldTemp, FieldZone, FieldAccuracy,
}

// RequiredFields are the fields that a record can't do without.
var RequiredFields = Fields[:5]

// TimeFormat reads timestamps that come as text. The zero value takes RFC 3339 and epoch seconds or milliseconds.
type TimeFormat struct {
	Layout   string         // a layout of package time for timestamps without a zone, or empty
	Location *time.Location // the zone of such timestamps; nil is UTC
}

// naiveLayouts are taken without being asked for, in the zone of the format: what databases and spreadsheets write.
// Fractional seconds are read by package time though the layouts have none.
var naiveLayouts = []string{"2006-01-02 15:04:05", "2006-01-02T15:04:05"}

const naiveLength = len("2006-01-02 15:04:05")

// epochMsFrom is the number from which a whole number is milliseconds rather than seconds since 1970: as seconds it
// would be the year 5138, as milliseconds it is March 1973.
const epochMsFrom = 100_000_000_000

// Parse gives a timestamp as Unix milliseconds, or a Rejection with reason bad_timestamp.
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
	// A failed attempt costs an allocation, so the form is guessed first: a date has a dash where epochs have a digit,
	// and only a time without a zone is as short as naiveLength.
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
	return 0, Reject(BadTimestamp, FieldTimestamp, s, "give RFC 3339, epoch seconds or milliseconds, or name the layout")
}

// parseEpoch reads seconds (with a fraction or without) or whole milliseconds since 1970.
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

// ParseFloat reads a finite decimal number, or gives a Rejection with reason malformed.
func ParseFloat(field, s string) (float64, error) {
	v, err := strconv.ParseFloat(s, 64)
	if err != nil || math.IsNaN(v) || math.IsInf(v, 0) || strings.ContainsAny(s, "xX_") { // Go reads hexadecimal, too
		return 0, Reject(Malformed, field, s, "give a decimal number")
	}
	return v, nil
}

// SetText puts the text of one field into the record; a field's bounds are checked later, with the whole record.
// Empty text leaves an optional field absent. The error is a Rejection.
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

func setFloat(dst *Optional[float64], field, s string) error {
	v, err := ParseFloat(field, s)
	if err == nil {
		*dst = Some(v)
	}
	return err
}

// Battery rounds a charge in percent to the whole number that is stored. A value that is no percentage at all is
// refused here, before it could wrap around.
func Battery(pct float64, shown string) (Optional[int32], error) {
	if !(pct >= 0 && pct <= 100) {
		return Optional[int32]{}, Reject(BatteryRange, FieldBattery, shown, "give percent from 0 to 100")
	}
	return Some(int32(math.Round(pct))), nil
}

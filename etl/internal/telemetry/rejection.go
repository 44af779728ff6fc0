package telemetry

import (
	"fmt"
	"strings"
)

// Reason says why a record was refused. The list is closed: it is the label of a metric.
type Reason string

// The reasons. Each is one thing that a sender can mend.
const (
	Malformed     Reason = "malformed"      // not readable as a record at all, or a field is not of its type
	MissingField  Reason = "missing_field"  // a required field is absent or empty
	BadTimestamp  Reason = "bad_timestamp"  // the timestamp is in no known form
	Future        Reason = "future"         // more than MaxAhead ahead of the clock
	TooOld        Reason = "too_old"        // at least Retention old: it would expire at once
	LatRange      Reason = "lat_range"      // outside -90 to 90
	LonRange      Reason = "lon_range"      // outside -180 to 180
	ZeroPosition  Reason = "zero_position"  // exactly 0, 0: a receiver without a fix
	SpeedRange    Reason = "speed_range"    // outside 0 to MaxSpeedKmh
	HeadingRange  Reason = "heading_range"  // outside 0 to 360
	BatteryRange  Reason = "battery_range"  // outside 0 to 100
	TempRange     Reason = "temp_range"     // outside MinTempC to MaxTempC
	AccuracyRange Reason = "accuracy_range" // outside 0 to MaxAccuracyM
	BadID         Reason = "bad_id"         // a name that is not 1 to 128 characters of A-Za-z0-9._:-
	TooLarge      Reason = "too_large"      // longer than a record may be
	UnknownFleet  Reason = "unknown_fleet"  // a fleet that is not on the list of allowed fleets
)

// Reasons is every reason there is, so that metrics can be created at zero.
var Reasons = []Reason{
	Malformed, MissingField, BadTimestamp, Future, TooOld, LatRange, LonRange, ZeroPosition,
	SpeedRange, HeadingRange, BatteryRange, TempRange, AccuracyRange, BadID, TooLarge, UnknownFleet,
}

// Rejection is the error of a refused record: what is wrong, with which field and value, and what to do.
type Rejection struct {
	Reason Reason
	Field  string // the field's name, empty where no single field is at fault
	Value  string // the value as it came, cut to a readable length
	Remedy string // what the sender can do
}

// maxShownValue is the length in bytes to which a refused value is cut in messages; the raw record has it whole.
const maxShownValue = 64

// Reject makes a Rejection; a value longer than is readable is cut.
func Reject(reason Reason, field, value, remedy string) *Rejection {
	if len(value) > maxShownValue {
		value = strings.ToValidUTF8(value[:maxShownValue], "") + "…"
	}
	return &Rejection{Reason: reason, Field: field, Value: strings.Clone(value), Remedy: remedy}
}

// Error gives one line: the reason, the field with its value, and the remedy.
func (r *Rejection) Error() string {
	switch {
	case r.Field == "":
		return fmt.Sprintf("%s: %s", r.Reason, r.Remedy)
	case r.Reason == MissingField:
		return fmt.Sprintf("%s: %s: %s", r.Reason, r.Field, r.Remedy)
	default:
		return fmt.Sprintf("%s: %s %q: %s", r.Reason, r.Field, r.Value, r.Remedy)
	}
}

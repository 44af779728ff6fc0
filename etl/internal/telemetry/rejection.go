package telemetry

import (
	"crypto/sha256"
	"fmt"
	"strings"
)

// Reason is why a record was rejected. The list is closed, because it is a label of a metric.
type Reason string

// The reasons. A sender can fix each of them.
const (
	Malformed     Reason = "malformed"      // not parsable as a record, or a field has the wrong type
	MissingField  Reason = "missing_field"  // a required field is absent or empty
	BadTimestamp  Reason = "bad_timestamp"  // the timestamp has an unknown format
	Future        Reason = "future"         // more than MaxAhead ahead of the clock
	TooOld        Reason = "too_old"        // at least Retention old, so it would expire at once
	LatRange      Reason = "lat_range"      // outside -90 to 90
	LonRange      Reason = "lon_range"      // outside -180 to 180
	ZeroPosition  Reason = "zero_position"  // exactly 0, 0: a receiver without a GPS fix
	SpeedRange    Reason = "speed_range"    // outside 0 to MaxSpeedKmh
	HeadingRange  Reason = "heading_range"  // outside 0 to 360
	BatteryRange  Reason = "battery_range"  // outside 0 to 100
	TempRange     Reason = "temp_range"     // outside MinTempC to MaxTempC
	AccuracyRange Reason = "accuracy_range" // outside 0 to MaxAccuracyM
	BadID         Reason = "bad_id"         // a name that is not 1 to 128 characters of A-Za-z0-9._:-
	TooLarge      Reason = "too_large"      // above the maximum size of a record
	UnknownFleet  Reason = "unknown_fleet"  // a fleet that is not in the list of allowed fleets
	WrongFleet    Reason = "wrong_fleet"    // a device that belongs to another fleet
	UnknownDevice Reason = "unknown_device" // a device without an owner, where such devices are rejected
	HeldDevice    Reason = "held_device"    // a device without an owner, where such devices are held until they have one

	TooLate        Reason = "too_late"         // older than a sender of one fleet may send
	TooManyDevices Reason = "too_many_devices" // a new device of a fleet that has as many devices as it may have

	ForbiddenFleet Reason = "forbidden_fleet" // a fleet that the sender may not write to
)

// Reasons lists all reasons, so that metrics can be created at zero.
var Reasons = []Reason{
	Malformed, MissingField, BadTimestamp, Future, TooOld, LatRange, LonRange, ZeroPosition,
	SpeedRange, HeadingRange, BatteryRange, TempRange, AccuracyRange, BadID, TooLarge, UnknownFleet,
	WrongFleet, UnknownDevice, HeldDevice, TooLate, TooManyDevices, ForbiddenFleet,
}

// Rejection is the error of a rejected record.
type Rejection struct {
	Reason Reason
	Field  string // name of the field; empty if no single field is wrong
	Value  string // the original value, shortened
	Remedy string // what the sender can do
}

// maxShownValue is the length in bytes to which values in errors are shortened. The raw record has them in full.
const maxShownValue = 64

// Reject makes a Rejection and shortens a long value.
func Reject(reason Reason, field, value, remedy string) *Rejection {
	if len(value) > maxShownValue {
		value = strings.ToValidUTF8(value[:maxShownValue], "") + "…"
	}
	return &Rejection{Reason: reason, Field: field, Value: strings.Clone(value), Remedy: remedy}
}

// RejectTooLarge rejects a JSON record above the maximum size. Since only an excerpt of it is kept, the value has its length and
// its hash.
func RejectTooLarge(text []byte) *Rejection {
	return &Rejection{Reason: TooLarge, Value: fmt.Sprintf("%d bytes, SHA-256 %x", len(text), sha256.Sum256(text)), Remedy: "send at most 16 KiB per record"}
}

// Error returns one line: the reason, the field with its value, and the remedy.
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

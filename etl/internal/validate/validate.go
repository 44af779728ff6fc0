// Package validate decides which records are stored. It rejects records that make no sense, with a reason, finds
// duplicates and adds the geofence. It is pure: time is a parameter.
package validate

import "github.com/fleettracing/fleet-tracing/etl/internal/telemetry"

// Validator validates the records of one pipeline. It remembers records to find duplicates and is not safe for
// concurrent use.
type Validator struct {
	bounds   *Bounds
	dedupe   *Deduplicator
	geofence Geofence
}

// Geofence returns the smallest geofence of a fleet that contains a position in degrees; ok is false when none does.
type Geofence func(fleetID string, lat, lon float64) (name string, ok bool)

// New makes a validator that accepts records of the given fleets, or of any fleet when there are none. It remembers up to
// the given number of records to find duplicates. A record without a geofence gets the one that geofence returns; nil
// leaves it without.
func New(fleets []string, remembered int, geofence Geofence) *Validator {
	return &Validator{bounds: NewBounds(fleets), dedupe: NewDeduplicator(remembered), geofence: geofence}
}

// Validate implements pipeline.Validator.
func (v *Validator) Validate(r *telemetry.Record, nowMs int64) (payload uint64, seen telemetry.Seen, rejection *telemetry.Rejection) {
	if rejection := v.bounds.Check(r, nowMs); rejection != nil {
		return 0, telemetry.New, rejection
	}
	if r.Zone == "" && v.geofence != nil {
		if name, ok := v.geofence(r.FleetID, r.Lat, r.Lon); ok {
			r.Zone = name
		}
	}
	Normalize(r)
	return r.PayloadHash(), v.dedupe.Add(r), nil
}

// Normalize gives a valid record its one stored form: heading 360 becomes 0, -0 becomes 0, and a record outside every
// geofence gets the name that the store has for that.
func Normalize(r *telemetry.Record) {
	if r.HeadingDeg.Value == 360 {
		r.HeadingDeg.Value = 0
	}
	if r.Zone == "" {
		r.Zone = telemetry.UnknownZone
	}
	// -0 and 0 are the same number, but their bits, and so the payload hashes, differ.
	for _, v := range [...]*float64{&r.Lat, &r.Lon, &r.SpeedKmh.Value, &r.HeadingDeg.Value, &r.TempC.Value, &r.AccuracyM.Value} {
		if *v == 0 {
			*v = 0
		}
	}
}

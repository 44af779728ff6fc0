// Package transform turns what sources read into what is stored: it refuses records that make no sense, with a reason,
// finds duplicates, and adds what can be known of a record alone. It is pure: time is passed in.
package transform

import "github.com/fleettracing/fleet-tracing/etl/internal/telemetry"

// Transform is the whole of it for one pipeline. It remembers the records that it saw, so each pipeline has its own.
type Transform struct {
	validator *Validator
	deduper   *Deduper
	zone      Zone
}

// Zone finds the smallest zone of a fleet that a position in degrees lies in; ok is false when it lies in none.
type Zone func(fleetID string, lat, lon float64) (name string, ok bool)

// Locate has records without a zone get the one that is found.
func (t *Transform) Locate(zone Zone) { t.zone = zone }

// New makes a transform that takes records of the given fleets (none: of any) and remembers so many records as
// possible duplicates.
func New(fleets []string, remembered int) *Transform {
	return &Transform{validator: NewValidator(fleets), deduper: NewDeduper(remembered)}
}

// Valid tells whether a record could be stored at the time nowMs (Unix milliseconds).
func (t *Transform) Valid(r *telemetry.Record, nowMs int64) bool {
	return t.validator.Check(r, nowMs) == nil
}

// Apply implements pipeline.Transform.
func (t *Transform) Apply(r *telemetry.Record, nowMs int64) (uint64, telemetry.Seen, *telemetry.Rejection) {
	if rejection := t.validator.Check(r, nowMs); rejection != nil {
		return 0, telemetry.New, rejection
	}
	if r.Zone == "" && t.zone != nil {
		if name, ok := t.zone(r.FleetID, r.Lat, r.Lon); ok {
			r.Zone = name
		}
	}
	Complete(r)
	payload := r.PayloadHash()
	return payload, t.deduper.See(r.KeyHash(), payload), nil
}

// Complete fills in what a valid record leaves open: north has one heading, and a zone that nobody knows has a name.
func Complete(r *telemetry.Record) {
	if r.HeadingDeg.Value == 360 {
		r.HeadingDeg.Value = 0
	}
	if r.Zone == "" {
		r.Zone = telemetry.UnknownZone
	}
	// -0 and 0 are one number, but two payloads.
	for _, v := range [...]*float64{&r.Lat, &r.Lon, &r.SpeedKmh.Value, &r.HeadingDeg.Value, &r.TempC.Value, &r.AccuracyM.Value} {
		if *v == 0 {
			*v = 0
		}
	}
}

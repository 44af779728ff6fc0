// Package telemetry has the domain types of the pipeline: records, rejections and alerts. It depends on the standard library
// only and reads no clock.
package telemetry

import (
	"hash/maphash"
	"math"
	"time"
)

// Optional is a value that a record may lack. The zero value is absent.
type Optional[T any] struct {
	Value T    `cbor:"1,keyasint"`
	Valid bool `cbor:"2,keyasint"`
}

// Some returns a present value.
func Some[T any](v T) Optional[T] { return Optional[T]{Value: v, Valid: true} }

// FromPtr returns the value that p points to, absent if p is nil.
func FromPtr[T any](p *T) (o Optional[T]) {
	if p != nil {
		o = Some(*p)
	}
	return o
}

// Ptr returns a pointer to the value in o, or nil if it is absent. It does not copy: a change of o changes the value.
func (o *Optional[T]) Ptr() *T {
	if !o.Valid {
		return nil
	}
	return &o.Value
}

// UnknownZone is the zone of a record that has none and is in no geofence.
const UnknownZone = "unknown"

// Record is one telemetry message. DeviceID and TimeMs identify it: another record with the same two is a duplicate. The
// numbers in the tags are its format in the spool.
type Record struct {
	DeviceID string `cbor:"1,keyasint,omitzero"`
	FleetID  string `cbor:"2,keyasint,omitzero"`
	Zone     string `cbor:"3,keyasint,omitzero"` // empty until it is known
	TimeMs   int64  `cbor:"4,keyasint,omitzero"` // event time, Unix milliseconds, UTC

	Lat float64 `cbor:"5,keyasint,omitzero"` // WGS 84 degrees, -90 to 90
	Lon float64 `cbor:"6,keyasint,omitzero"` // WGS 84 degrees, -180 to 180

	SpeedKmh   Optional[float64] `cbor:"7,keyasint,omitzero"`  // km/h
	HeadingDeg Optional[float64] `cbor:"8,keyasint,omitzero"`  // degrees clockwise from north, 0 ≤ h < 360
	TempC      Optional[float64] `cbor:"9,keyasint,omitzero"`  // degrees Celsius
	BatteryPct Optional[int32]   `cbor:"10,keyasint,omitzero"` // percent, 0 to 100
	AccuracyM  Optional[float64] `cbor:"11,keyasint,omitzero"` // radius around Lat, Lon that contains the true position, meters, 0 to MaxAccuracyM
}

// Time returns the event time in UTC.
func (r *Record) Time() time.Time { return time.UnixMilli(r.TimeMs).UTC() }

// PayloadHash is a 64-bit hash, similar to FNV-1a, of everything in the record but its identity (DeviceID and TimeMs). It is
// the same in every process, so that all of them rank two payloads of one identity alike. It has no secret: who may write a
// device can also choose which of two payloads the store keeps. Use KeyedHash to decide whether two records are the same.
func (r *Record) PayloadHash() uint64 {
	h := hashString(fnvOffset, r.FleetID)
	h = hashString(h, r.Zone)
	h = hashUint64(h, math.Float64bits(r.Lat))
	h = hashUint64(h, math.Float64bits(r.Lon))
	for _, o := range [...]Optional[float64]{r.SpeedKmh, r.HeadingDeg, r.TempC} {
		h = hashOptional(h, math.Float64bits(o.Value), o.Valid)
	}
	h = hashOptional(h, uint64(uint32(r.BatteryPct.Value)), r.BatteryPct.Valid)
	// Without an accuracy, the hash equals that of rows stored before the field existed.
	if r.AccuracyM.Valid {
		h = hashUint64((h^2)*fnvPrime, math.Float64bits(r.AccuracyM.Value))
	}
	return h
}

// KeyedHash is a hash of the whole record, keyed with a secret of the process: two records with the same hash can't be made.
func (r *Record) KeyedHash(secret maphash.Seed) uint64 {
	n := *r
	for _, o := range [...]*Optional[float64]{&n.SpeedKmh, &n.HeadingDeg, &n.TempC, &n.AccuracyM} {
		if !o.Valid {
			o.Value = 0
		}
	}
	if !n.BatteryPct.Valid {
		n.BatteryPct.Value = 0
	}
	return maphash.Comparable(secret, n)
}

// Seen says whether an earlier record of the same fleet had the same device and time.
type Seen int

// The values of Seen.
const (
	New       Seen = iota // no record of this device and time was seen before
	Duplicate             // the same record was seen before
	Conflict              // a record of this device and time with another payload was seen before
)

const (
	fnvOffset = 14695981039346656037
	fnvPrime  = 1099511628211
)

func hashString(h uint64, s string) uint64 {
	for i := 0; i < len(s); i++ {
		h = (h ^ uint64(s[i])) * fnvPrime
	}
	return (h ^ 0xff) * fnvPrime // ends the string: "ab","c" differs from "a","bc"
}

// hashUint64 hashes a word at once instead of bytes. The shift mixes its high bits into the low ones.
func hashUint64(h, v uint64) uint64 {
	h = (h ^ v) * fnvPrime
	return h ^ h>>29
}

func hashOptional(h, bits uint64, valid bool) uint64 {
	if !valid {
		return (h ^ 1) * fnvPrime
	}
	return hashUint64((h^2)*fnvPrime, bits)
}

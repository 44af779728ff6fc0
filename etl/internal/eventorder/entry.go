// Package eventorder sorts the entries of files by event time with bounded memory. Entries are encoded into an arena of
// fixed size, spilled as sorted runs to one temporary file, and merged.
package eventorder

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"math"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Entry is one line of an input: a record, or text that was rejected.
type Entry struct {
	pipeline.Item
	Origin    string               // file that Position refers to
	Rejection *telemetry.Rejection // set for rejected text; then only Position, Raw and Origin are valid
}

// Order is a sort order. In either order, rejected text comes first, in input order. Entries of equal device and time are
// ordered by PayloadHash, then by origin (in order of first appearance) and position.
type Order int

// The orders.
const (
	ByDevice Order = iota // by device, then time
	ByTime                // by time, then device
)

// An encoded entry is its numbers as little-endian words at fixed places, so that sorting and merging need no decoding,
// and then its texts, each after its length. The device is the first text.
const (
	wordTime = iota
	wordHash
	wordOrigin
	wordPosition
	wordLat
	wordLon
	wordPresent // bits: isRecord, and one for each of the optional values
	wordOptional

	optionalValues = 5
	textsAt        = 8 * (wordOptional + optionalValues)
	isRecord       = 1 << optionalValues
)

var errCorrupt = errors.New("an entry is cut short: the temporary file was damaged")

// appendEntry appends an encoded entry to dst. A number identifies its origin.
func appendEntry(dst []byte, e *Entry, origin uint32) []byte {
	words := [textsAt / 8]uint64{
		wordTime: uint64(e.TimeMs), wordOrigin: uint64(origin), wordPosition: uint64(e.Position),
		wordLat: math.Float64bits(e.Lat), wordLon: math.Float64bits(e.Lon),
	}
	battery := telemetry.Optional[float64]{Value: float64(e.BatteryPct.Value), Valid: e.BatteryPct.Valid}
	for i, o := range [optionalValues]telemetry.Optional[float64]{e.SpeedKmh, e.HeadingDeg, e.TempC, e.AccuracyM, battery} {
		if o.Valid {
			words[wordPresent] |= 1 << i
			words[wordOptional+i] = math.Float64bits(o.Value)
		}
	}
	rejection := e.Rejection
	if rejection == nil {
		words[wordPresent] |= isRecord
		words[wordHash] = e.PayloadHash()
		rejection = &telemetry.Rejection{}
	}
	for _, w := range words {
		dst = binary.LittleEndian.AppendUint64(dst, w)
	}
	for _, text := range [...]string{
		e.DeviceID, e.FleetID, e.Zone, e.Raw, string(rejection.Reason), rejection.Field, rejection.Value, rejection.Remedy,
	} {
		dst = binary.AppendUvarint(dst, uint64(len(text)))
		dst = append(dst, text...)
	}
	return dst
}

// readEntry decodes an entry. Its strings share one allocation.
func readEntry(b []byte, origins []string) (Entry, error) {
	if len(b) < textsAt || word(b, wordOrigin) >= uint64(len(origins)) {
		return Entry{}, errCorrupt
	}
	e := Entry{Origin: origins[word(b, wordOrigin)]}
	var reason, field, value, remedy string
	all, at := string(b), textsAt
	for _, text := range [...]*string{
		&e.DeviceID, &e.FleetID, &e.Zone, &e.Raw, &reason, &field, &value, &remedy,
	} {
		n, width := binary.Uvarint(b[at:])
		at += max(0, width)
		if width <= 0 || n > uint64(len(b)-at) {
			return Entry{}, errCorrupt
		}
		*text = all[at:][:n]
		at += int(n)
	}
	e.TimeMs, e.Position = timeMs(b), int64(word(b, wordPosition))
	e.Lat, e.Lon = math.Float64frombits(word(b, wordLat)), math.Float64frombits(word(b, wordLon))
	var battery telemetry.Optional[float64]
	for i, o := range [optionalValues]*telemetry.Optional[float64]{&e.SpeedKmh, &e.HeadingDeg, &e.TempC, &e.AccuracyM, &battery} {
		if word(b, wordPresent)&(1<<i) != 0 {
			*o = telemetry.Some(math.Float64frombits(word(b, wordOptional+i)))
		}
	}
	e.BatteryPct = telemetry.Optional[int32]{Value: int32(battery.Value), Valid: battery.Valid}
	if word(b, wordPresent)&isRecord == 0 {
		e.Rejection = &telemetry.Rejection{Reason: telemetry.Reason(reason), Field: field, Value: value, Remedy: remedy}
	}
	return e, nil
}

func word(e []byte, i int) uint64 { return binary.LittleEndian.Uint64(e[8*i:]) }

func timeMs(e []byte) int64 { return int64(word(e, wordTime)) }

func device(e []byte) []byte {
	n, width := binary.Uvarint(e[textsAt:])
	return e[textsAt+width:][:n]
}

// compare orders two encoded entries.
func (o Order) compare(a, b []byte) int {
	if c := cmp.Compare(word(a, wordPresent)&isRecord, word(b, wordPresent)&isRecord); c != 0 {
		return c
	}
	if word(a, wordPresent)&isRecord == 0 {
		return compareRest(a, b)
	}
	byDevice, byTime := bytes.Compare(device(a), device(b)), cmp.Compare(timeMs(a), timeMs(b))
	if o == ByTime {
		return cmp.Or(byTime, byDevice, compareRest(a, b))
	}
	return cmp.Or(byDevice, byTime, compareRest(a, b))
}

// compareRest orders two encoded entries of equal device and time, or two rejected ones.
func compareRest(a, b []byte) int {
	return cmp.Or(
		cmp.Compare(word(a, wordHash), word(b, wordHash)),
		cmp.Compare(word(a, wordOrigin), word(b, wordOrigin)),
		cmp.Compare(word(a, wordPosition), word(b, wordPosition)),
	)
}

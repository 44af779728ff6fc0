// Package eventorder sorts the entries of files by event time with bounded memory. Entries are encoded into an arena of
// fixed size, spilled as sorted runs to one temporary file, and merged.
package eventorder

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"errors"
	"math"

	"github.com/fleettracing/fleet-tracing/etl/internal/pipeline"
	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Entry is one line of an input: a record, or text that was rejected.
type Entry struct {
	pipeline.Item
	Origin    string               // file that Position refers to
	Rejection *telemetry.Rejection // set for rejected text; then only Position, Raw, Origin and Fields are valid
	Fields    map[string]string    // of rejected text, as in pipeline.Rejected
}

// AddTo adds the entry to a batch.
func (e *Entry) AddTo(b *pipeline.Batch) {
	if e.Rejection != nil {
		b.Rejected = append(b.Rejected, pipeline.Rejected{Rejection: e.Rejection, Position: e.Position, Raw: e.Raw, Fields: e.Fields})
	} else {
		b.Items = append(b.Items, e.Item)
	}
}

// Order is a sort order. In either order, rejected text comes first, in input order. Entries of equal device and time are
// ordered by PayloadHash, then by origin (in order of first appearance) and position.
type Order int

// The orders.
const (
	ByDevice Order = iota // by device, then time
	ByTime                // by time, then device
)

// An encoded entry is a key after its length, then numbers as little-endian words at fixed places, and then texts, each
// after its length. The bytes of two keys compare like their entries, so that sorting and merging need no decoding.
const (
	wordTime = iota
	wordOrigin
	wordPosition
	wordLat
	wordLon
	wordPresent // bits: isRecord, and one for each of the optional values
	wordOptional

	optionalValues = 5
	textsAt        = 8 * (wordOptional + optionalValues)
	isRecord       = 1 << optionalValues

	keySize = 4 // bytes of the length of a key
)

var errCorrupt = errors.New("an entry is cut short: the temporary file was damaged")

// appendEntry appends an encoded entry to dst. A number identifies its origin.
func (o Order) appendEntry(dst []byte, e *Entry, origin uint32) []byte {
	at := len(dst) + keySize
	dst = o.appendKey(append(dst, make([]byte, keySize)...), e, origin)
	binary.LittleEndian.PutUint32(dst[at-keySize:], uint32(len(dst)-at))
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
	rejection, fields := &telemetry.Rejection{}, []byte(nil)
	if e.Rejection == nil {
		words[wordPresent] |= isRecord
	} else {
		rejection = e.Rejection
		fields, _ = json.Marshal(e.Fields) // a map of strings always has JSON
	}
	for _, w := range words {
		dst = binary.LittleEndian.AppendUint64(dst, w)
	}
	for _, text := range [...]string{
		e.DeviceID, e.FleetID, e.Zone, e.Raw, string(rejection.Reason), rejection.Field, rejection.Value, rejection.Remedy, string(fields),
	} {
		dst = binary.AppendUvarint(dst, uint64(len(text)))
		dst = append(dst, text...)
	}
	return dst
}

// appendKey appends the key of an entry. The NUL after a device, which has none, sorts it before longer names.
func (o Order) appendKey(dst []byte, e *Entry, origin uint32) []byte {
	if e.Rejection != nil {
		dst = append(dst, 0)
	} else {
		dst = append(dst, 1)
		at := uint64(e.TimeMs) ^ 1<<63 // negative times first
		if o == ByTime {
			dst = binary.BigEndian.AppendUint64(dst, at)
		}
		dst = append(append(dst, e.DeviceID...), 0)
		if o == ByDevice {
			dst = binary.BigEndian.AppendUint64(dst, at)
		}
		dst = binary.BigEndian.AppendUint64(dst, e.PayloadHash())
	}
	dst = binary.BigEndian.AppendUint32(dst, origin)
	return binary.BigEndian.AppendUint64(dst, uint64(e.Position))
}

// split returns the key of an encoded entry and the rest.
func split(b []byte) (key, rest []byte) {
	if len(b) < keySize {
		return nil, nil
	}
	end := keySize + int(binary.LittleEndian.Uint32(b))
	if end > len(b) {
		return nil, nil
	}
	return b[keySize:end], b[end:]
}

// compare orders two encoded entries.
func compare(a, b []byte) int {
	first, _ := split(a)
	second, _ := split(b)
	return bytes.Compare(first, second)
}

// readEntry decodes an entry. Its strings share one allocation.
func readEntry(encoded []byte, origins []string) (Entry, error) {
	_, b := split(encoded)
	if len(b) < textsAt || word(b, wordOrigin) >= uint64(len(origins)) {
		return Entry{}, errCorrupt
	}
	e := Entry{Origin: origins[word(b, wordOrigin)]}
	var reason, field, value, remedy, fields string
	all, at := string(b), textsAt
	for _, text := range [...]*string{
		&e.DeviceID, &e.FleetID, &e.Zone, &e.Raw, &reason, &field, &value, &remedy, &fields,
	} {
		n, width := binary.Uvarint(b[at:])
		at += max(0, width)
		if width <= 0 || n > uint64(len(b)-at) {
			return Entry{}, errCorrupt
		}
		*text = all[at:][:n]
		at += int(n)
	}
	e.TimeMs, e.Position = int64(word(b, wordTime)), int64(word(b, wordPosition))
	e.Lat, e.Lon = math.Float64frombits(word(b, wordLat)), math.Float64frombits(word(b, wordLon))
	var battery telemetry.Optional[float64]
	for i, o := range [optionalValues]*telemetry.Optional[float64]{&e.SpeedKmh, &e.HeadingDeg, &e.TempC, &e.AccuracyM, &battery} {
		if word(b, wordPresent)&(1<<i) != 0 {
			*o = telemetry.Some(math.Float64frombits(word(b, wordOptional+i)))
		}
	}
	e.BatteryPct = telemetry.Optional[int32]{Value: int32(battery.Value), Valid: battery.Valid}
	if word(b, wordPresent)&isRecord != 0 {
		return e, nil
	}
	e.Rejection = &telemetry.Rejection{Reason: telemetry.Reason(reason), Field: field, Value: value, Remedy: remedy}
	return e, json.Unmarshal([]byte(fields), &e.Fields)
}

func word(e []byte, i int) uint64 { return binary.LittleEndian.Uint64(e[8*i:]) }

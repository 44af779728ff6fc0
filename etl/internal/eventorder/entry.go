// Package eventorder sorts the entries of files by event time with bounded memory. Entries are encoded into an arena of
// fixed size, spilled as sorted runs to one temporary file, and merged.
package eventorder

import (
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

// An encoded entry starts with its sort keys at fixed offsets, so that sorting and merging need no decoding:
//
//	flags 1 | time 8 | payload hash 8 | origin 4 | position 8 | length of device 4 | device | the rest
const (
	atTime     = 1
	atHash     = atTime + 8
	atOrigin   = atHash + 8
	atPosition = atOrigin + 4
	atDevice   = atPosition + 8 + 4
)

const (
	isRecord byte = 1 << iota
	hasSpeed
	hasHeading
	hasTemp
	hasBattery
	hasAccuracy
)

var errCorrupt = errors.New("an entry is cut short: the temporary file was damaged")

// appendEntry appends an encoded entry to dst. A number identifies its origin.
func appendEntry(dst []byte, e *Entry, origin uint32) []byte {
	var flags byte
	var hash uint64
	if e.Rejection == nil {
		flags = isRecord | present(hasSpeed, e.SpeedKmh.Valid) | present(hasHeading, e.HeadingDeg.Valid) |
			present(hasTemp, e.TempC.Valid) | present(hasBattery, e.BatteryPct.Valid) |
			present(hasAccuracy, e.AccuracyM.Valid)
		hash = e.PayloadHash()
	}
	le := binary.LittleEndian
	dst = append(dst, flags)
	dst = le.AppendUint64(dst, uint64(e.TimeMs))
	dst = le.AppendUint64(dst, hash)
	dst = le.AppendUint32(dst, origin)
	dst = le.AppendUint64(dst, uint64(e.Position))
	dst = le.AppendUint32(dst, uint32(len(e.DeviceID)))
	dst = append(dst, e.DeviceID...)
	if r := e.Rejection; r != nil {
		for _, s := range [...]string{string(r.Reason), r.Field, r.Value, r.Remedy, e.Raw} {
			dst = appendText(dst, s)
		}
		return dst
	}
	dst = le.AppendUint64(dst, math.Float64bits(e.Lat))
	dst = le.AppendUint64(dst, math.Float64bits(e.Lon))
	for _, o := range [...]telemetry.Optional[float64]{e.SpeedKmh, e.HeadingDeg, e.TempC, e.AccuracyM} {
		if o.Valid {
			dst = le.AppendUint64(dst, math.Float64bits(o.Value))
		}
	}
	if e.BatteryPct.Valid {
		dst = le.AppendUint32(dst, uint32(e.BatteryPct.Value))
	}
	dst = appendText(dst, e.FleetID)
	dst = appendText(dst, e.Zone)
	return appendText(dst, e.Raw)
}

func present(flag byte, yes bool) byte {
	if yes {
		return flag
	}
	return 0
}

func appendText(dst []byte, s string) []byte {
	dst = binary.AppendUvarint(dst, uint64(len(s)))
	return append(dst, s...)
}

// readEntry decodes an entry. Its strings share one allocation.
func readEntry(b []byte, origins []string) (Entry, error) {
	var e Entry
	d := decoder{text: string(b)}
	flags := d.byte()
	e.TimeMs = int64(d.uint64())
	d.uint64() // the hash
	origin := d.uint32()
	e.Position = int64(d.uint64())
	e.DeviceID = d.take(int(d.uint32()))
	if flags&isRecord == 0 {
		e.Rejection = &telemetry.Rejection{
			Reason: telemetry.Reason(d.string()), Field: d.string(), Value: d.string(), Remedy: d.string(),
		}
	} else {
		e.Lat, e.Lon = d.float64(), d.float64()
		if flags&hasSpeed != 0 {
			e.SpeedKmh = telemetry.Some(d.float64())
		}
		if flags&hasHeading != 0 {
			e.HeadingDeg = telemetry.Some(d.float64())
		}
		if flags&hasTemp != 0 {
			e.TempC = telemetry.Some(d.float64())
		}
		if flags&hasAccuracy != 0 {
			e.AccuracyM = telemetry.Some(d.float64())
		}
		if flags&hasBattery != 0 {
			e.BatteryPct = telemetry.Some(int32(d.uint32()))
		}
		e.FleetID, e.Zone = d.string(), d.string()
	}
	e.Raw = d.string()
	if d.short || len(d.text) > 0 || int(origin) >= len(origins) {
		return Entry{}, errCorrupt
	}
	e.Origin = origins[origin]
	return e, nil
}

// decoder decodes values from the front of text. Beyond its end it returns zeros and sets short.
type decoder struct {
	text  string
	short bool
}

func (d *decoder) take(n int) string {
	if n < 0 || n > len(d.text) {
		d.short, d.text = true, ""
		return ""
	}
	s := d.text[:n]
	d.text = d.text[n:]
	return s
}

func (d *decoder) byte() byte {
	if s := d.take(1); s != "" {
		return s[0]
	}
	return 0
}

func (d *decoder) uint32() uint32 {
	s := d.take(4)
	if s == "" {
		return 0
	}
	return uint32(s[0]) | uint32(s[1])<<8 | uint32(s[2])<<16 | uint32(s[3])<<24
}

func (d *decoder) uint64() uint64 {
	return uint64(d.uint32()) | uint64(d.uint32())<<32
}

func (d *decoder) float64() float64 { return math.Float64frombits(d.uint64()) }

func (d *decoder) string() string {
	var n uint64
	for shift := 0; shift < 64; shift += 7 {
		c := d.byte()
		n |= uint64(c&0x7f) << shift
		if c < 0x80 {
			break
		}
	}
	return d.take(int(n))
}

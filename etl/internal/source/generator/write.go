package generator

import (
	"context"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"

	"github.com/fleettracing/fleet-tracing/etl/internal/telemetry"
)

// Counts is what was written, in lines.
type Counts struct {
	Good      int                      // distinct valid records, including late ones
	Late      int                      // valid records that arrive late
	Duplicate int                      // second copies of valid records
	Broken    map[telemetry.Reason]int // broken records by reason
}

// Lines is how many records were written in all, not counting a header.
func (c Counts) Lines() int {
	n := c.Good + c.Duplicate
	for _, broken := range c.Broken {
		n += broken
	}
	return n
}

func (c *Counts) add(e *Emission) {
	switch {
	case e.Broken():
		c.Broken[e.Reason]++
	case e.Duplicate:
		c.Duplicate++
	default:
		c.Good++
		if e.Late {
			c.Late++
		}
	}
}

// WriteCSV writes what a simulator yields as CSV: a header, the fields in their order, timestamps in
// RFC 3339 UTC with milliseconds, absent fields empty. It ends with the simulator, or with an error when ctx ends or w fails.
// The counts are valid in any case.
func WriteCSV(ctx context.Context, w io.Writer, s *Simulator) (Counts, error) {
	return write(ctx, w, s, appendCSV, []byte(strings.Join(fields, ",")+"\n"))
}

// WriteNDJSON is WriteCSV with one JSON object a line, without absent fields.
func WriteNDJSON(ctx context.Context, w io.Writer, s *Simulator) (Counts, error) {
	return write(ctx, w, s, appendJSON, nil)
}

// writeSize is how many bytes are handed to the writer at once.
const writeSize = 64 << 10

func write(ctx context.Context, w io.Writer, s *Simulator, encode func([]byte, *Emission) []byte, buf []byte) (Counts, error) {
	counts := Counts{Broken: map[telemetry.Reason]int{}}
	var e Emission
	for more := true; more; {
		if more = s.Next(&e); more {
			buf = append(encode(buf, &e), '\n')
			counts.add(&e)
		}
		if more && len(buf) < writeSize {
			continue
		}
		err := ctx.Err()
		if err == nil {
			_, err = w.Write(buf)
		}
		if err != nil {
			return counts, fmt.Errorf("write after %d records: %w", counts.Lines(), err)
		}
		buf = buf[:0]
	}
	return counts, nil
}

// fields are the fields of a simulated record in the order of telemetry.Fields. Simulated positions have no accuracy.
var fields = slices.DeleteFunc(slices.Clone(telemetry.Fields), func(field string) bool { return field == telemetry.FieldAccuracy })

// timeLayout is RFC 3339 with milliseconds.
const timeLayout = "2006-01-02T15:04:05.000Z07:00"

// appendCSV appends an emission as a sender would transmit it, as a CSV row without a newline. No simulated text needs
// quotes.
func appendCSV(dst []byte, e *Emission) []byte {
	start := len(dst)
	for i, field := range fields {
		if i > 0 {
			dst = append(dst, ',')
		}
		dst, _ = e.appendValue(dst, field)
	}
	return e.cut(dst, start)
}

// appendJSON is appendCSV for a JSON object. No simulated text needs escapes.
func appendJSON(dst []byte, e *Emission) []byte {
	start := len(dst)
	dst = append(dst, '{')
	for _, field := range fields {
		before := len(dst)
		if before > start+1 {
			dst = append(dst, ',')
		}
		dst = append(append(append(dst, '"'), field...), `":"`...)
		value := len(dst)
		var number bool
		switch dst, number = e.appendValue(dst, field); {
		case len(dst) == value:
			dst = dst[:before] // absent
		case number:
			dst = slices.Delete(dst, value-1, value)
		default:
			dst = append(dst, '"')
		}
	}
	return e.cut(append(dst, '}'), start)
}

func (e *Emission) cut(dst []byte, start int) []byte {
	if e.Cut {
		return dst[:start+(len(dst)-start)/2]
	}
	return dst
}

// appendValue appends the value of a field, or nothing if it is absent, and returns whether it is a number.
func (e *Emission) appendValue(dst []byte, field string) (text []byte, number bool) {
	r := &e.Record
	var v telemetry.Optional[float64]
	switch field {
	case e.Field:
		return append(dst, e.Text...), false
	case telemetry.FieldDeviceID:
		return append(dst, r.DeviceID...), false
	case telemetry.FieldFleetID:
		return append(dst, r.FleetID...), false
	case telemetry.FieldTimestamp:
		return r.Time().AppendFormat(dst, timeLayout), false
	case telemetry.FieldZone:
		return append(dst, r.Zone...), false
	case telemetry.FieldLat:
		v = telemetry.Some(r.Lat)
	case telemetry.FieldLon:
		v = telemetry.Some(r.Lon)
	case telemetry.FieldSpeed:
		v = r.SpeedKmh
	case telemetry.FieldHeading:
		v = r.HeadingDeg
	case telemetry.FieldBattery:
		v = telemetry.Optional[float64]{Value: float64(r.BatteryPct.Value), Valid: r.BatteryPct.Valid}
	case telemetry.FieldTemp:
		v = r.TempC
	}
	if v.Valid {
		dst = strconv.AppendFloat(dst, v.Value, 'f', -1, 64)
	}
	return dst, true
}

package cassandra

import (
	"encoding/binary"
	"fmt"
	"math"
	"time"

	"github.com/gocql/gocql"
)

// Destinations that the driver fills without reflection, and without a pointer for each optional value.
type (
	bigintCell int64
	numberCell float64 // NaN for null; a CQL double or int
	nameCell   struct{ text string }
	timeCell   struct{ time.Time } // zero for null
)

var absent = numberCell(math.NaN())

func (c numberCell) orZero() float64 {
	if math.IsNaN(float64(c)) {
		return 0
	}
	return float64(c)
}

// UnmarshalCQL implements gocql.Unmarshaler.
func (c *timeCell) UnmarshalCQL(_ gocql.TypeInfo, data []byte) error {
	switch len(data) {
	case 0:
		c.Time = time.Time{}
	case 8:
		c.Time = time.UnixMilli(int64(binary.BigEndian.Uint64(data))).UTC()
	default:
		return fmt.Errorf("timestamp of %d bytes", len(data))
	}
	return nil
}

// UnmarshalCQL implements gocql.Unmarshaler.
func (c *bigintCell) UnmarshalCQL(_ gocql.TypeInfo, data []byte) error {
	if len(data) != 8 {
		return fmt.Errorf("timestamp of %d bytes", len(data))
	}
	*c = bigintCell(binary.BigEndian.Uint64(data))
	return nil
}

// UnmarshalCQL implements gocql.Unmarshaler.
func (c *numberCell) UnmarshalCQL(_ gocql.TypeInfo, data []byte) error {
	switch len(data) {
	case 0:
		*c = numberCell(math.NaN())
	case 4:
		*c = numberCell(int32(binary.BigEndian.Uint32(data)))
	case 8:
		*c = numberCell(math.Float64frombits(binary.BigEndian.Uint64(data)))
	default:
		return fmt.Errorf("number of %d bytes", len(data))
	}
	return nil
}

// UnmarshalCQL implements gocql.Unmarshaler. A text that repeats costs no allocation.
func (c *nameCell) UnmarshalCQL(_ gocql.TypeInfo, data []byte) error {
	if c.text != string(data) {
		c.text = string(data)
	}
	return nil
}

// optionals allocates optional values in groups.
type optionals struct {
	doubles slab[float64]
	ints    slab[int32]
}

func (o *optionals) double(c numberCell) *float64 {
	if math.IsNaN(float64(c)) {
		return nil
	}
	return o.doubles.keep(float64(c))
}

func (o *optionals) int(c numberCell) *int32 {
	if math.IsNaN(float64(c)) {
		return nil
	}
	return o.ints.keep(int32(c))
}

// slab allocates values that are pointed at, in groups. A full group stays with its pointers.
type slab[T any] []T

// slabAtOnce is the size of the largest group. Groups double up to it, so that a single row does not keep a large one.
const slabAtOnce = 256

func (s *slab[T]) keep(v T) *T {
	if len(*s) == cap(*s) {
		*s = make(slab[T], 0, min(max(2*cap(*s), 4), slabAtOnce))
	}
	*s = append(*s, v)
	return &(*s)[len(*s)-1]
}

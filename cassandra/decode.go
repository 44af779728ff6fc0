package cassandra

import (
	"encoding/binary"
	"fmt"
	"math"

	"github.com/gocql/gocql"
)

// Destinations that the driver fills without reflection, and without a pointer for each optional value.
type (
	numberCell float64 // NaN for null; a CQL double or int
	nameCell   struct{ text string }
)

func (c numberCell) absent() bool { return math.IsNaN(float64(c)) }

func (c numberCell) orZero() float64 {
	if c.absent() {
		return 0
	}
	return float64(c)
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

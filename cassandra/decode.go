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
	nameCell   struct {
		text string
		seen map[string]string // nil: only a text that equals the one before it is shared
	}
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

// UnmarshalCQL implements gocql.Unmarshaler. A text that repeats costs no allocation, and no search through the others.
func (c *nameCell) UnmarshalCQL(_ gocql.TypeInfo, data []byte) error {
	if c.text == string(data) {
		return nil
	}
	text, ok := c.seen[string(data)]
	if !ok {
		text = string(data)
		if c.seen != nil {
			c.seen[text] = text
		}
	}
	c.text = text
	return nil
}

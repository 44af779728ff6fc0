package cassandra

import (
	"encoding/binary"
	"math"

	"github.com/gocql/gocql"
)

// cell is an encoded value. The driver takes a pointer to it as a Marshaler and copies the bytes, which saves reflection
// on each value and a heap allocation to box it.
type cell []byte

// MarshalCQL implements gocql.Marshaler.
func (c *cell) MarshalCQL(gocql.TypeInfo) ([]byte, error) { return *c, nil }

// arena holds the encoded values and arguments of one request in a few allocations. An absent value is unset and writes
// no cell; a null would write a tombstone.
type arena struct {
	bytes []byte
	cells []cell
	args  []any
}

// newArena allocates space for n rows of at most width values each.
func newArena(n, width int) *arena {
	return &arena{
		bytes: make([]byte, 0, n*width*12),
		cells: make([]cell, 0, n*width),
		args:  make([]any, 0, n*width),
	}
}

// row returns the arguments that were added since from.
func (a *arena) row(from int) []any { return a.args[from:len(a.args):len(a.args)] }

// add turns the bytes that were appended since from into a value. Values do not move: when bytes or cells grow, earlier
// values keep their old array.
func (a *arena) add(from int) {
	a.cells = append(a.cells, a.bytes[from:len(a.bytes):len(a.bytes)])
	a.args = append(a.args, &a.cells[len(a.cells)-1])
}

func (a *arena) unset() { a.args = append(a.args, gocql.UnsetValue) }

// null deletes a stored value: a recomputed row may have lost it.
func (a *arena) null() { a.args = append(a.args, nil) }

func (a *arena) nullableDouble(v *float64) {
	if v == nil {
		a.null()
		return
	}
	a.double(*v)
}

func (a *arena) text(s string) {
	from := len(a.bytes)
	a.bytes = append(a.bytes, s...)
	a.add(from)
}

func (a *arena) int(v int32) {
	from := len(a.bytes)
	a.bytes = binary.BigEndian.AppendUint32(a.bytes, uint32(v))
	a.add(from)
}

func (a *arena) bigint(v int64) {
	from := len(a.bytes)
	a.bytes = binary.BigEndian.AppendUint64(a.bytes, uint64(v))
	a.add(from)
}

func (a *arena) double(v float64) { a.bigint(int64(math.Float64bits(v))) }

func (a *arena) optionalText(s string) {
	if s == "" {
		a.unset()
		return
	}
	a.text(s)
}

func (a *arena) optionalInt(v *int32) {
	if v == nil {
		a.unset()
		return
	}
	a.int(*v)
}

func (a *arena) optionalBigint(v *int64) {
	if v == nil {
		a.unset()
		return
	}
	a.bigint(*v)
}

func (a *arena) bool(v bool) {
	from := len(a.bytes)
	if v {
		a.bytes = append(a.bytes, 1)
	} else {
		a.bytes = append(a.bytes, 0)
	}
	a.add(from)
}

func (a *arena) optionalDouble(v *float64) {
	if v == nil {
		a.unset()
		return
	}
	a.double(*v)
}

// timestamp is a CQL timestamp: milliseconds since 1970.
func (a *arena) timestamp(ms int64) { a.bigint(ms) }

func (a *arena) optionalTimestamp(ms *int64) {
	if ms == nil {
		a.unset()
		return
	}
	a.timestamp(*ms)
}

// date is a CQL date: days since 1970, counted from the middle of the unsigned range.
func (a *arena) date(d Day) { a.int(int32(uint32(d) + 1<<31)) }

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

// optional is a text that is absent if it is empty.
type optional string

// add adds values: pointers to the fields of a row. A field that is absent writes no cell.
func (a *arena) add(fields ...any) { a.encode(gocql.UnsetValue, fields) }

// set adds values, and deletes the stored value of an absent field: a recomputed row may have lost it.
func (a *arena) set(fields ...any) { a.encode(nil, fields) }

func (a *arena) encode(absent any, fields []any) {
	for _, field := range fields {
		from, present := len(a.bytes), true
		switch v := field.(type) {
		case *string:
			a.bytes = append(a.bytes, *v...)
		case *optional:
			a.bytes, present = append(a.bytes, *v...), *v != ""
		case *int32:
			a.bytes = binary.BigEndian.AppendUint32(a.bytes, uint32(*v))
		case *int64: // a bigint, or a timestamp in Unix milliseconds
			a.bytes = binary.BigEndian.AppendUint64(a.bytes, uint64(*v))
		case *float64:
			a.bytes = binary.BigEndian.AppendUint64(a.bytes, math.Float64bits(*v))
		case *Day:
			a.bytes = binary.BigEndian.AppendUint32(a.bytes, uint32(*v)+dateOfEpoch)
		case *bool:
			if *v {
				a.bytes = append(a.bytes, 1)
			} else {
				a.bytes = append(a.bytes, 0)
			}
		case **int32:
			if present = *v != nil; present {
				a.bytes = binary.BigEndian.AppendUint32(a.bytes, uint32(**v))
			}
		case **int64:
			if present = *v != nil; present {
				a.bytes = binary.BigEndian.AppendUint64(a.bytes, uint64(**v))
			}
		case **float64:
			if present = *v != nil; present {
				a.bytes = binary.BigEndian.AppendUint64(a.bytes, math.Float64bits(**v))
			}
		default:
			panic("cassandra: a field of an unknown type")
		}
		if !present {
			a.args = append(a.args, absent)
			continue
		}
		// Values do not move: when bytes or cells grow, earlier values keep their old array.
		a.cells = append(a.cells, a.bytes[from:len(a.bytes):len(a.bytes)])
		a.args = append(a.args, &a.cells[len(a.cells)-1])
	}
}

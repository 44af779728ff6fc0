// Package cqlvalue decodes CQL values of any type for display: scalars as Go values, collections, tuples and user types as
// JSON texts that keep the order of the stored elements.
package cqlvalue

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gocql/gocql"
	"gopkg.in/inf.v0"
)

// Cell receives a value of any type from the driver. Value is nil, bool, int64, float64, time.Time, string, *big.Int
// (varint) or *inf.Dec (decimal). A decimal with very many digits is a text such as 1E2000000.
type Cell struct{ Value any }

// UnmarshalCQL implements gocql.Unmarshaler.
func (c *Cell) UnmarshalCQL(info gocql.TypeInfo, data []byte) (err error) {
	c.Value, err = decode(info, data)
	switch c.Value.(type) {
	case []any, object:
		c.Value = toJSON(c.Value)
	}
	return err
}

// Column returns where the driver scans the values of a column to, and a function that returns the latest value. The driver
// scans the elements of a tuple one by one; the tuple is nil if all are null.
func Column(info gocql.TypeInfo) (dest []any, value func() any) {
	tuple, ok := info.(gocql.TupleTypeInfo)
	if !ok {
		cell := &Cell{}
		return []any{cell}, func() any { return cell.Value }
	}
	cells := make([]Cell, len(tuple.Elems))
	for i := range cells {
		dest = append(dest, &cells[i])
	}
	return dest, func() any {
		values := make([]any, len(cells))
		null := true
		for i, cell := range cells {
			values[i] = jsonValue(cell.Value)
			null = null && cell.Value == nil
		}
		if null {
			return nil
		}
		return toJSON(values)
	}
}

// decode reads one value of the native protocol, version 4 (section 6). Nil data is a null.
func decode(info gocql.TypeInfo, data []byte) (any, error) {
	if data == nil {
		return nil, nil
	}
	switch info.Type() {
	case gocql.TypeAscii, gocql.TypeText, gocql.TypeVarchar:
		return string(data), nil
	case gocql.TypeBlob, gocql.TypeCustom: // version 4 sends vectors as custom types
		return blobText(data), nil
	}
	if len(data) == 0 { // an empty value is not a null, but has no number
		return nil, nil
	}
	if n := sizes[info.Type()]; n != 0 && len(data) != n { // the driver would panic or return zero
		return nil, badLength(info, data)
	}
	switch info.Type() {
	case gocql.TypeBoolean:
		return scalar[bool](info, data)
	case gocql.TypeTinyInt, gocql.TypeSmallInt, gocql.TypeInt, gocql.TypeBigInt, gocql.TypeCounter:
		return scalar[int64](info, data)
	case gocql.TypeVarint:
		v := new(big.Int)
		return v, gocql.Unmarshal(info, data, v)
	case gocql.TypeDecimal:
		v := new(inf.Dec)
		if err := gocql.Unmarshal(info, data, v); err != nil || abs(v.Scale()) <= maxScale {
			return v, err
		}
		return fmt.Sprintf("%sE%d", v.UnscaledBig(), -int64(v.Scale())), nil
	case gocql.TypeDouble:
		return scalar[float64](info, data)
	case gocql.TypeFloat:
		var v float32
		if err := gocql.Unmarshal(info, data, &v); err != nil {
			return nil, err
		}
		// The shortest text of the float, not of the nearest double: 0.1 stays 0.1.
		f, err := strconv.ParseFloat(strconv.FormatFloat(float64(v), 'g', -1, 32), 64)
		return f, err
	case gocql.TypeTimestamp, gocql.TypeDate:
		return scalar[time.Time](info, data)
	case gocql.TypeTime:
		var v time.Duration
		err := gocql.Unmarshal(info, data, &v)
		return fmt.Sprintf("%02d:%02d:%02d.%09d", v/time.Hour, v/time.Minute%60, v/time.Second%60, v%time.Second), err
	case gocql.TypeUUID, gocql.TypeTimeUUID, gocql.TypeInet:
		return scalar[string](info, data)
	case gocql.TypeDuration:
		var v gocql.Duration
		err := gocql.Unmarshal(info, data, &v)
		return durationText(v), err
	}
	// The driver could decode the others as well, but it loses nulls in tuples and user types, and the order of maps.
	switch info := info.(type) {
	case gocql.CollectionType:
		return decodeCollection(info, data)
	case gocql.TupleTypeInfo:
		return decodeElements(data, info.Elems)
	case gocql.UDTTypeInfo:
		return decodeUDT(info, data)
	}
	return blobText(data), nil
}

// maxScale bounds the digits that a decimal is written with after its significant ones. A few bytes can hold a number of two
// billion digits.
const maxScale = 1000

func abs(scale inf.Scale) int64 { return max(int64(scale), -int64(scale)) }

// sizes are the bytes of values of a fixed size.
var sizes = map[gocql.Type]int{
	gocql.TypeTinyInt: 1, gocql.TypeSmallInt: 2, gocql.TypeInt: 4, gocql.TypeBigInt: 8, gocql.TypeCounter: 8,
	gocql.TypeFloat: 4, gocql.TypeDouble: 8, gocql.TypeDate: 4, gocql.TypeTimestamp: 8, gocql.TypeTime: 8,
}

func scalar[T any](info gocql.TypeInfo, data []byte) (any, error) {
	var v T
	err := gocql.Unmarshal(info, data, &v)
	return v, err
}

func badLength(info gocql.TypeInfo, data []byte) error {
	return fmt.Errorf("value of type %s has %d bytes", TypeName(info), len(data))
}

// decodeElements decodes values for JSON that each follow their length. The last ones may be missing: older values of user
// types lack fields that were added later.
func decodeElements(data []byte, types []gocql.TypeInfo) ([]any, error) {
	values := make([]any, len(types))
	for i, info := range types {
		if len(data) == 0 {
			break
		}
		if len(data) < 4 {
			return nil, badLength(info, data)
		}
		n := int(int32(binary.BigEndian.Uint32(data)))
		if data = data[4:]; n < 0 {
			continue // null
		}
		if n > len(data) {
			return nil, badLength(info, data)
		}
		value, err := decode(info, data[:n:n])
		if err != nil {
			return nil, err
		}
		values[i], data = jsonValue(value), data[n:]
	}
	return values, nil
}

// decodeCollection decodes a list, a set or a map. They begin with the number of their elements.
func decodeCollection(info gocql.CollectionType, data []byte) (any, error) {
	types := []gocql.TypeInfo{info.Elem}
	if info.Type() == gocql.TypeMap {
		types = []gocql.TypeInfo{info.Key, info.Elem}
	}
	if len(data) < 4 {
		return nil, badLength(info, data)
	}
	n := int(int32(binary.BigEndian.Uint32(data)))
	if n < 0 || 4*n*len(types) > len(data)-4 {
		return nil, badLength(info, data)
	}
	values, err := decodeElements(data[4:], slices.Repeat(types, n))
	if err != nil || info.Type() != gocql.TypeMap {
		return values, err
	}
	result := object{}
	for pair := range slices.Chunk(values, 2) {
		key, isText := pair[0].(string)
		if !isText {
			key = toJSON(pair[0])
		}
		result = append(result, member{key, pair[1]})
	}
	return result, nil
}

func decodeUDT(info gocql.UDTTypeInfo, data []byte) (any, error) {
	var types []gocql.TypeInfo
	for _, field := range info.Elements {
		types = append(types, field.Type)
	}
	values, err := decodeElements(data, types)
	if err != nil {
		return nil, err
	}
	result := object{}
	for i, field := range info.Elements {
		result = append(result, member{field.Name, values[i]})
	}
	return result, nil
}

// object is a map or a user type, in the stored order.
type object []member

type member struct {
	key   string
	value any
}

// MarshalJSON implements json.Marshaler.
func (o object) MarshalJSON() ([]byte, error) {
	var members []string
	for _, m := range o {
		members = append(members, toJSON(m.key)+":"+toJSON(m.value))
	}
	return []byte("{" + strings.Join(members, ",") + "}"), nil
}

// jsonValue converts a value to a form that JSON represents without loss.
func jsonValue(v any) any {
	switch v := v.(type) {
	case time.Time:
		if v.Equal(v.Truncate(24 * time.Hour)) {
			return v.Format(time.DateOnly)
		}
		return v.Format("2006-01-02T15:04:05.000Z")
	case *big.Int:
		return json.Number(v.String())
	case *inf.Dec:
		return json.Number(v.String())
	case float64:
		if math.IsNaN(v) || math.IsInf(v, 0) {
			return fmt.Sprint(v)
		}
	}
	return v
}

func toJSON(v any) string {
	var b bytes.Buffer
	encoder := json.NewEncoder(&b)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(b.String(), "\n")
}

// blobShown is the number of bytes of a blob that are displayed.
const blobShown = 1024

func blobText(data []byte) string {
	if len(data) > blobShown {
		return "0x" + hex.EncodeToString(data[:blobShown]) + fmt.Sprintf("… (%d bytes)", len(data))
	}
	return "0x" + hex.EncodeToString(data)
}

// durationText formats a duration like CQL, for example 1mo2d3h.
func durationText(d gocql.Duration) string {
	var b strings.Builder
	months, days, ns := int64(d.Months), int64(d.Days), d.Nanoseconds
	if months < 0 || days < 0 || ns < 0 {
		b.WriteByte('-')
		months, days, ns = -months, -days, -ns
	}
	if months == 0 && days == 0 && ns == 0 {
		return "0s"
	}
	for _, part := range []struct {
		n    int64
		unit string
	}{
		{months / 12, "y"}, {months % 12, "mo"}, {days, "d"}, {ns / 3.6e12, "h"}, {ns / 6e10 % 60, "m"}, {ns / 1e9 % 60, "s"},
		{ns / 1e6 % 1000, "ms"}, {ns / 1e3 % 1000, "us"}, {ns % 1000, "ns"},
	} {
		if part.n != 0 {
			fmt.Fprintf(&b, "%d%s", part.n, part.unit)
		}
	}
	return b.String()
}

// TypeName is the CQL name of a type, for example list<int>.
func TypeName(info gocql.TypeInfo) string {
	switch info := info.(type) {
	case gocql.CollectionType:
		if info.Type() == gocql.TypeMap {
			return "map<" + TypeName(info.Key) + ", " + TypeName(info.Elem) + ">"
		}
		return info.Type().String() + "<" + TypeName(info.Elem) + ">"
	case gocql.UDTTypeInfo:
		return info.Name
	case gocql.TupleTypeInfo:
		names := make([]string, len(info.Elems))
		for i, elem := range info.Elems {
			names[i] = TypeName(elem)
		}
		return "tuple<" + strings.Join(names, ", ") + ">"
	}
	if info.Type() == gocql.TypeVarchar {
		return "text"
	}
	return info.Type().String()
}

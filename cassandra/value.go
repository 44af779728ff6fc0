package cassandra

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"math/big"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/gocql/gocql"
	"gopkg.in/inf.v0"
)

func tupleText(parts []*anyCell) any {
	values := make([]any, len(parts))
	empty := true
	for i, part := range parts {
		values[i] = jsonValue(part.value)
		empty = empty && part.value == nil
	}
	if empty {
		return nil
	}
	return toJSON(values)
}

// anyCell takes a value of any type.
type anyCell struct{ value any }

// UnmarshalCQL implements gocql.Unmarshaler.
func (c *anyCell) UnmarshalCQL(info gocql.TypeInfo, data []byte) (err error) {
	c.value, err = decode(info, data)
	switch c.value.(type) {
	case []any, *object:
		c.value = toJSON(c.value)
	}
	return err
}

// decode reads one value in the native protocol's version 4 (its section 6). nil data is a null.
func decode(info gocql.TypeInfo, data []byte) (any, error) {
	if data == nil {
		return nil, nil
	}
	switch info.Type() {
	case gocql.TypeAscii, gocql.TypeText, gocql.TypeVarchar:
		return string(data), nil
	case gocql.TypeBlob:
		return blobText(data), nil
	case gocql.TypeBoolean:
		return len(data) > 0 && data[0] != 0, nil
	case gocql.TypeCustom: // vectors among them: the protocol's version 4 has no form for them
		return blobText(data), nil
	}
	if len(data) == 0 { // an empty value, which is not a null, has no number in it
		return nil, nil
	}
	switch info.Type() {
	case gocql.TypeTinyInt, gocql.TypeSmallInt, gocql.TypeInt, gocql.TypeBigInt, gocql.TypeCounter:
		return signed(data), nil
	case gocql.TypeVarint:
		return bigInt(data), nil
	case gocql.TypeFloat:
		if len(data) != 4 {
			return nil, badLength(info, data)
		}
		// The shortest text of the float, not of the double nearest to it: 0.1 stays 0.1.
		f, err := strconv.ParseFloat(strconv.FormatFloat(float64(math.Float32frombits(binary.BigEndian.Uint32(data))), 'g', -1, 32), 64)
		return f, err
	case gocql.TypeDouble:
		if len(data) != 8 {
			return nil, badLength(info, data)
		}
		return math.Float64frombits(binary.BigEndian.Uint64(data)), nil
	case gocql.TypeDecimal:
		if len(data) < 4 {
			return nil, badLength(info, data)
		}
		return inf.NewDecBig(bigInt(data[4:]), inf.Scale(int32(binary.BigEndian.Uint32(data)))), nil
	case gocql.TypeTimestamp:
		return time.UnixMilli(signed(data)).UTC(), nil
	case gocql.TypeDate:
		if len(data) != 4 {
			return nil, badLength(info, data)
		}
		return Day(int32(binary.BigEndian.Uint32(data) - 1<<31)).Time(), nil
	case gocql.TypeTime:
		ns := signed(data)
		return fmt.Sprintf("%02d:%02d:%02d.%09d", ns/3.6e12, ns/6e10%60, ns/1e9%60, ns%1e9), nil
	case gocql.TypeUUID, gocql.TypeTimeUUID:
		id, err := gocql.UUIDFromBytes(data)
		return id.String(), err
	case gocql.TypeInet:
		return net.IP(data).String(), nil
	case gocql.TypeDuration:
		var d gocql.Duration
		if err := gocql.Unmarshal(info, data, &d); err != nil {
			return nil, err
		}
		return durationText(d), nil
	case gocql.TypeList, gocql.TypeSet:
		return decodeList(info.(gocql.CollectionType), data)
	case gocql.TypeMap:
		return decodeMap(info.(gocql.CollectionType), data)
	case gocql.TypeUDT:
		return decodeUDT(info.(gocql.UDTTypeInfo), data)
	case gocql.TypeTuple:
		var values []any
		for _, elem := range info.(gocql.TupleTypeInfo).Elems {
			var value any
			var err error
			if len(data) > 0 {
				if value, data, err = decodeNext(elem, data); err != nil {
					return nil, err
				}
			}
			values = append(values, jsonValue(value))
		}
		return values, nil
	}
	return blobText(data), nil
}

func badLength(info gocql.TypeInfo, data []byte) error {
	return fmt.Errorf("value of type %s has %d bytes", typeName(info), len(data))
}

// signed reads a whole number of 1 to 8 bytes.
func signed(data []byte) int64 {
	v := int64(int8(data[0]))
	for _, b := range data[1:] {
		v = v<<8 | int64(b)
	}
	return v
}

func bigInt(data []byte) *big.Int {
	v := new(big.Int).SetBytes(data)
	if len(data) > 0 && data[0]&0x80 != 0 {
		v.Sub(v, new(big.Int).Lsh(big.NewInt(1), uint(len(data))*8))
	}
	return v
}

// decodeNext reads a value that stands behind its length, and gives what is left.
func decodeNext(info gocql.TypeInfo, data []byte) (any, []byte, error) {
	if len(data) < 4 {
		return nil, nil, badLength(info, data)
	}
	n := int(int32(binary.BigEndian.Uint32(data)))
	data = data[4:]
	if n < 0 {
		return nil, data, nil
	}
	if n > len(data) {
		return nil, nil, badLength(info, data)
	}
	value, err := decode(info, data[:n:n])
	return value, data[n:], err
}

func decodeList(info gocql.CollectionType, data []byte) (any, error) {
	n, data, err := count(info, data)
	if err != nil {
		return nil, err
	}
	values := []any{}
	for range n {
		var value any
		if value, data, err = decodeNext(info.Elem, data); err != nil {
			return nil, err
		}
		values = append(values, jsonValue(value))
	}
	return values, nil
}

// object is a map or user type whose fields keep their order.
type object struct {
	keys   []string
	values []any
}

func (o *object) add(key string, value any) {
	o.keys, o.values = append(o.keys, key), append(o.values, jsonValue(value))
}

// MarshalJSON implements json.Marshaler.
func (o *object) MarshalJSON() ([]byte, error) {
	var b bytes.Buffer
	b.WriteByte('{')
	for i, key := range o.keys {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(toJSON(key) + ":" + toJSON(o.values[i]))
	}
	b.WriteByte('}')
	return b.Bytes(), nil
}

func decodeMap(info gocql.CollectionType, data []byte) (any, error) {
	n, data, err := count(info, data)
	if err != nil {
		return nil, err
	}
	result := &object{}
	for range n {
		var key, value any
		if key, data, err = decodeNext(info.Key, data); err != nil {
			return nil, err
		}
		if value, data, err = decodeNext(info.Elem, data); err != nil {
			return nil, err
		}
		name, isText := jsonValue(key).(string)
		if !isText {
			name = toJSON(jsonValue(key))
		}
		result.add(name, value)
	}
	return result, nil
}

func decodeUDT(info gocql.UDTTypeInfo, data []byte) (any, error) {
	result := &object{}
	for _, field := range info.Elements {
		var value any
		if len(data) > 0 { // values written before a field was added end early
			var err error
			if value, data, err = decodeNext(field.Type, data); err != nil {
				return nil, err
			}
		}
		result.add(field.Name, value)
	}
	return result, nil
}

func count(info gocql.TypeInfo, data []byte) (int, []byte, error) {
	if len(data) < 4 {
		return 0, nil, badLength(info, data)
	}
	n := int(int32(binary.BigEndian.Uint32(data)))
	if n < 0 || n > len(data) {
		return 0, nil, badLength(info, data)
	}
	return n, data[4:], nil
}

// jsonValue turns a value into what JSON can say without loss.
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

// blobShown is how many bytes of a blob are shown.
const blobShown = 1024

func blobText(data []byte) string {
	if len(data) > blobShown {
		return "0x" + hex.EncodeToString(data[:blobShown]) + fmt.Sprintf("… (%d bytes)", len(data))
	}
	return "0x" + hex.EncodeToString(data)
}

// durationText writes a duration as CQL does, for example 1mo2d3h.
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

func typeName(info gocql.TypeInfo) string {
	switch info := info.(type) {
	case gocql.CollectionType:
		if info.Type() == gocql.TypeMap {
			return "map<" + typeName(info.Key) + ", " + typeName(info.Elem) + ">"
		}
		return info.Type().String() + "<" + typeName(info.Elem) + ">"
	case gocql.UDTTypeInfo:
		return info.Name
	case gocql.TupleTypeInfo:
		names := make([]string, len(info.Elems))
		for i, elem := range info.Elems {
			names[i] = typeName(elem)
		}
		return "tuple<" + strings.Join(names, ", ") + ">"
	}
	if info.Type() == gocql.TypeVarchar {
		return "text"
	}
	return info.Type().String()
}

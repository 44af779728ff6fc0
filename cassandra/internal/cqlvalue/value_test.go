package cqlvalue

import (
	"encoding/binary"
	"math"
	"math/big"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/gocql/gocql"
	"github.com/stretchr/testify/require"
	"gopkg.in/inf.v0"
)

func native(t gocql.Type) gocql.TypeInfo { return gocql.NewNativeType(4, t, "") }

func listOf(elem gocql.TypeInfo) gocql.CollectionType {
	return gocql.CollectionType{NativeType: gocql.NewNativeType(4, gocql.TypeList, ""), Elem: elem}
}

func mapOf(key, elem gocql.TypeInfo) gocql.CollectionType {
	return gocql.CollectionType{NativeType: gocql.NewNativeType(4, gocql.TypeMap, ""), Key: key, Elem: elem}
}

var (
	tuple = gocql.TupleTypeInfo{
		NativeType: gocql.NewNativeType(4, gocql.TypeTuple, ""), Elems: []gocql.TypeInfo{native(gocql.TypeInt), native(gocql.TypeText)},
	}
	udt = gocql.UDTTypeInfo{
		NativeType: gocql.NewNativeType(4, gocql.TypeUDT, ""), Name: "address",
		Elements: []gocql.UDTField{{Name: "street", Type: native(gocql.TypeText)}, {Name: "number", Type: native(gocql.TypeInt)}},
	}
)

// sequence joins values behind their lengths. Nil is a null.
func sequence(values ...[]byte) []byte {
	var data []byte
	for _, v := range values {
		n := uint32(len(v))
		if v == nil {
			n = math.MaxUint32
		}
		data = append(binary.BigEndian.AppendUint32(data, n), v...)
	}
	return data
}

func encode(t *testing.T, info gocql.TypeInfo, value any) []byte {
	t.Helper()
	data, err := gocql.Marshal(info, value)
	require.NoError(t, err)
	return data
}

func TestScalars(t *testing.T) {
	instant := time.Date(2026, 11, 24, 8, 30, 0, 1e6, time.UTC)
	id := gocql.UUID{0x12, 0x34, 0x56, 0x78, 0x9a, 0xbc, 0x4d, 0xef, 0x80, 1, 2, 3, 4, 5, 6, 7}
	huge, _ := new(big.Int).SetString("-123456789012345678901234567890", 10)
	for _, c := range []struct {
		typ         gocql.Type
		value, want any
	}{
		{gocql.TypeText, "Zürich", "Zürich"},
		{gocql.TypeText, "", ""},
		{gocql.TypeBoolean, true, true},
		{gocql.TypeTinyInt, int8(-7), int64(-7)},
		{gocql.TypeSmallInt, int16(-300), int64(-300)},
		{gocql.TypeInt, int32(math.MinInt32), int64(math.MinInt32)},
		{gocql.TypeBigInt, int64(math.MaxInt64), int64(math.MaxInt64)},
		{gocql.TypeCounter, int64(12), int64(12)},
		{gocql.TypeVarint, *huge, huge},
		{gocql.TypeVarint, int64(-1), big.NewInt(-1)},
		{gocql.TypeDecimal, *inf.NewDec(-12345, 2), inf.NewDec(-12345, 2)},
		{gocql.TypeDecimal, *inf.NewDec(1, -2_000_000_000), "1E2000000000"}, // two billion digits
		{gocql.TypeDecimal, *inf.NewDec(-5, 2_000_000_000), "-5E-2000000000"},
		{gocql.TypeFloat, float32(0.1), 0.1},
		{gocql.TypeDouble, 62.5, 62.5},
		{gocql.TypeTimestamp, instant, instant},
		{gocql.TypeDate, instant, instant.Truncate(24 * time.Hour)},
		{gocql.TypeTime, 8*time.Hour + 5*time.Minute + 3*time.Second + 7, "08:05:03.000000007"},
		{gocql.TypeUUID, id, "12345678-9abc-4def-8001-020304050607"},
		{gocql.TypeInet, "127.0.0.1", "127.0.0.1"},
		{gocql.TypeInet, "2001:db8::1", "2001:db8::1"},
		{gocql.TypeDuration, gocql.Duration{Months: 14, Days: 3, Nanoseconds: 3_605_000_000_000}, "1y2mo3d1h5s"},
		{gocql.TypeDuration, gocql.Duration{Days: -1}, "-1d"},
		{gocql.TypeDuration, gocql.Duration{}, "0s"},
		{gocql.TypeBlob, []byte{0, 255}, "0x00ff"},
	} {
		info := native(c.typ)
		var got Cell
		require.NoError(t, got.UnmarshalCQL(info, encode(t, info, c.value)), c.typ)
		require.Equal(t, c.want, got.Value, c.typ)
		require.NoError(t, got.UnmarshalCQL(info, nil))
		require.Nil(t, got.Value, "a null %s", c.typ)
	}
}

func TestEmptyNumbersAreNull(t *testing.T) {
	for _, typ := range []gocql.Type{gocql.TypeInt, gocql.TypeDouble, gocql.TypeTimestamp, gocql.TypeUUID, gocql.TypeVarint} {
		got := Cell{Value: "before"}
		require.NoError(t, got.UnmarshalCQL(native(typ), []byte{}))
		require.Nil(t, got.Value, typ)
	}
}

func TestLongBlobsAreCut(t *testing.T) {
	var got Cell
	require.NoError(t, got.UnmarshalCQL(native(gocql.TypeBlob), make([]byte, blobShown+1)))
	require.Equal(t, "0x"+strings.Repeat("00", blobShown)+"… (1025 bytes)", got.Value)
}

func TestCollectionsAreJSON(t *testing.T) {
	number := func(v int32) []byte { return encode(t, native(gocql.TypeInt), v) }
	timestamp := native(gocql.TypeTimestamp)
	day := time.Date(2026, 11, 24, 0, 0, 0, 0, time.UTC)
	for name, c := range map[string]struct {
		info gocql.TypeInfo
		data []byte
		want string
	}{
		"list":                {listOf(native(gocql.TypeInt)), encode(t, listOf(native(gocql.TypeInt)), []int{3, 1, 2}), `[3,1,2]`},
		"empty list":          {listOf(native(gocql.TypeInt)), encode(t, listOf(native(gocql.TypeInt)), []int{}), `[]`},
		"list of text":        {listOf(native(gocql.TypeText)), encode(t, listOf(native(gocql.TypeText)), []string{"a<b"}), `["a<b"]`},
		"instants and days":   {listOf(timestamp), encode(t, listOf(timestamp), []time.Time{day, day.Add(time.Second)}), `["2026-11-24","2026-11-24T00:00:01.000Z"]`},
		"no number":           {listOf(native(gocql.TypeDouble)), encode(t, listOf(native(gocql.TypeDouble)), []float64{math.NaN(), math.Inf(1)}), `["NaN","+Inf"]`},
		"exact decimal":       {listOf(native(gocql.TypeDecimal)), encode(t, listOf(native(gocql.TypeDecimal)), []inf.Dec{*inf.NewDec(110, 2)}), `[1.10]`},
		"map in stored order": {mapOf(native(gocql.TypeInt), native(gocql.TypeText)), append([]byte{0, 0, 0, 2}, sequence(number(10), []byte("x"), number(9), nil)...), `{"10":"x","9":null}`},
		"user type":           {udt, sequence([]byte("Main St"), number(5)), `{"street":"Main St","number":5}`},
		"user type, null":     {udt, sequence(nil, number(5)), `{"street":null,"number":5}`},
		"older user type":     {udt, sequence([]byte("Main St")), `{"street":"Main St","number":null}`},
		"nested":              {listOf(tuple), append([]byte{0, 0, 0, 1}, sequence(sequence(number(1), nil))...), `[[1,null]]`},
	} {
		var got Cell
		require.NoError(t, got.UnmarshalCQL(c.info, c.data), name)
		require.Equal(t, c.want, got.Value, name)
	}
}

func TestTupleIsJSONUnlessAllElementsAreNull(t *testing.T) {
	dest, value := Column(tuple)
	require.Nil(t, value())
	dest[0].(*Cell).Value = int64(1)
	require.Equal(t, `[1,null]`, value())
	dest[1].(*Cell).Value = "a"
	require.Equal(t, `[1,"a"]`, value())
}

func TestTypeNames(t *testing.T) {
	for want, info := range map[string]gocql.TypeInfo{
		"text": native(gocql.TypeVarchar), "timestamp": native(gocql.TypeTimestamp), "list<int>": listOf(native(gocql.TypeInt)),
		"map<text, list<double>>": mapOf(native(gocql.TypeVarchar), listOf(native(gocql.TypeDouble))),
		"address":                 udt, "tuple<int, text>": tuple,
	} {
		require.Equal(t, want, TypeName(info))
	}
}

func TestMalformedValuesAreErrors(t *testing.T) {
	for _, c := range []struct {
		info gocql.TypeInfo
		data []byte
	}{
		{native(gocql.TypeDouble), []byte{1}},
		{native(gocql.TypeDate), []byte{1}},
		{native(gocql.TypeDecimal), []byte{1}},
		{native(gocql.TypeUUID), []byte{1}},
		{listOf(native(gocql.TypeInt)), []byte{1}},
		{listOf(native(gocql.TypeInt)), []byte{255, 255, 255, 255}},
		{listOf(native(gocql.TypeInt)), []byte{0, 0, 0, 1, 0, 0, 0, 9}},
		{udt, []byte{0, 0, 0, 9}},
	} {
		require.Error(t, new(Cell).UnmarshalCQL(c.info, c.data), "%s %x", TypeName(c.info), c.data)
	}
}

func TestRandomBytesDoNotPanic(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	types := []gocql.TypeInfo{listOf(native(gocql.TypeTimestamp)), mapOf(native(gocql.TypeInt), udt), udt, tuple}
	for typ := gocql.Type(0); typ < gocql.TypeList; typ++ {
		types = append(types, native(typ))
	}
	for range 20_000 {
		data := make([]byte, r.IntN(24))
		for i := range data {
			data[i] = byte(r.IntN(4)) * 85
		}
		_ = new(Cell).UnmarshalCQL(types[r.IntN(len(types))], data)
	}
}

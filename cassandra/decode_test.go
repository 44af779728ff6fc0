package cassandra

import (
	"math"
	"testing"
	"unsafe"

	"github.com/gocql/gocql"
	"github.com/stretchr/testify/require"
)

func TestCellsDecodeNumbersAndTexts(t *testing.T) {
	encode := func(typ gocql.Type, value any) []byte {
		data, err := gocql.Marshal(gocql.NewNativeType(4, typ, ""), value)
		require.NoError(t, err)
		return data
	}
	var number numberCell
	require.NoError(t, number.UnmarshalCQL(nil, encode(gocql.TypeDouble, 62.5)))
	require.EqualValues(t, 62.5, number)
	require.NoError(t, number.UnmarshalCQL(nil, encode(gocql.TypeInt, -7)))
	require.EqualValues(t, -7, number)
	require.NoError(t, number.UnmarshalCQL(nil, nil))
	require.True(t, math.IsNaN(float64(number)), "a null is NaN")
	require.Zero(t, number.orZero())
	require.EqualError(t, number.UnmarshalCQL(nil, []byte{1}), "number of 1 bytes")

	var name nameCell
	require.NoError(t, name.UnmarshalCQL(nil, []byte("depot")))
	require.Equal(t, "depot", name.text)
}

func TestNamesThatAlternateAreShared(t *testing.T) {
	name := nameCell{seen: map[string]string{}}
	read := func(text string) string {
		require.NoError(t, name.UnmarshalCQL(nil, []byte(text)))
		return name.text
	}
	first := read("depot")
	require.Equal(t, "port", read("port"))
	require.Same(t, unsafe.StringData(first), unsafe.StringData(read("depot")))
	require.Len(t, name.seen, 2)
	data := []byte("port")
	require.Zero(t, testing.AllocsPerRun(100, func() {
		_ = name.UnmarshalCQL(nil, []byte("depot"))
		_ = name.UnmarshalCQL(nil, data)
	}))
}

package cassandra

import (
	"math"
	"testing"
	"time"

	"github.com/gocql/gocql"
	"github.com/stretchr/testify/require"
)

func TestCellsDecodeNumbersTimesAndTexts(t *testing.T) {
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

	instant := time.UnixMilli(1_795_478_400_123).UTC()
	var at timeCell
	require.NoError(t, at.UnmarshalCQL(nil, encode(gocql.TypeTimestamp, instant)))
	require.Equal(t, instant, at.Time)
	require.NoError(t, at.UnmarshalCQL(nil, nil))
	require.True(t, at.IsZero())
	require.Error(t, at.UnmarshalCQL(nil, []byte{1}))
	var ms bigintCell
	require.NoError(t, ms.UnmarshalCQL(nil, encode(gocql.TypeTimestamp, instant)))
	require.EqualValues(t, instant.UnixMilli(), ms)
	require.Error(t, ms.UnmarshalCQL(nil, nil))
	var name nameCell
	require.NoError(t, name.UnmarshalCQL(nil, []byte("depot")))
	require.Equal(t, "depot", name.text)
}

func TestOptionalsStayWhereTheyAre(t *testing.T) {
	var o optionals
	require.Nil(t, o.double(absent))
	require.Nil(t, o.int(absent))
	var doubles []*float64
	for i := range 1000 {
		doubles = append(doubles, o.double(numberCell(i)))
	}
	for i, d := range doubles {
		require.EqualValues(t, i, *d)
	}
	require.EqualValues(t, 77, *o.int(77))
}

package cassandra

import (
	"testing"
	"time"

	"github.com/gocql/gocql"
	"github.com/stretchr/testify/require"
)

// The arena must encode as the driver does, since the driver sends its values unchanged.
func TestArenaEncodesLikeTheDriver(t *testing.T) {
	instant := time.Date(2026, 11, 24, 23, 59, 59, 999e6, time.UTC)
	day := DayOf(instant.UnixMilli())
	a := newArena(1, 1) // too small on purpose: earlier values must survive that it grows
	city, number, bigNumber, negative, yes, no, ms, before := "Zürich", int32(-7), int64(1<<40), -18.25, true, false, instant.UnixMilli(), Day(-1)
	a.add(&city, &number, &bigNumber, &negative, &yes, &no, &ms, &day, &before)
	for i, c := range []struct {
		typ   gocql.Type
		value any
	}{
		{gocql.TypeVarchar, "Zürich"}, {gocql.TypeInt, int32(-7)}, {gocql.TypeBigInt, int64(1 << 40)}, {gocql.TypeDouble, -18.25},
		{gocql.TypeBoolean, true}, {gocql.TypeBoolean, false}, {gocql.TypeTimestamp, instant}, {gocql.TypeDate, instant},
		{gocql.TypeDate, time.Date(1969, 12, 31, 0, 0, 0, 0, time.UTC)},
	} {
		info := gocql.NewNativeType(4, c.typ, "")
		want, err := gocql.Marshal(info, c.value)
		require.NoError(t, err)
		got, err := gocql.Marshal(info, a.args[i])
		require.NoError(t, err)
		require.Equal(t, want, got, c.typ)
	}
}

func TestArenaEncodesPresentOptionalValues(t *testing.T) {
	text, number, bigNumber, double := optional("a"), new(int32), new(int64), new(float64)
	a := newArena(1, 4)
	a.add(&text, &number, &bigNumber, &double)
	for i, want := range []string{"a", "\x00\x00\x00\x00", "\x00\x00\x00\x00\x00\x00\x00\x00", "\x00\x00\x00\x00\x00\x00\x00\x00"} {
		require.Equal(t, want, string(*a.args[i].(*cell)))
	}
}

func TestArenaLeavesAbsentValuesUnset(t *testing.T) {
	a := newArena(1, 8)
	var text optional
	var number *int32
	var bigNumber *int64
	var double *float64
	a.add(&text, &number, &bigNumber, &double)
	for _, arg := range a.row(0) {
		require.Equal(t, gocql.UnsetValue, arg, "an absent value writes no cell")
	}
	a.set(&double)
	require.Nil(t, a.args[len(a.args)-1], "a null deletes the cell")
	require.Len(t, a.row(4), 1)
}

func TestBucketsAreStableAndEven(t *testing.T) {
	require.EqualValues(t, 2, Bucket("truck-1"), "stored rows depend on the function")
	require.EqualValues(t, bucketOf("truck-1", FleetBuckets), Bucket("truck-1"))
	counts := make([]int, FleetBuckets)
	for i := range 8000 {
		counts[Bucket(time.Unix(int64(i), 0).String())]++
	}
	for _, n := range counts {
		require.InDelta(t, 1000, n, 200)
	}
	require.Equal(t, []int32{0, 1, 2}, buckets(3))
}

func TestEarliestActivationHasTheHighestWriteTime(t *testing.T) {
	now := time.Now().UnixMilli()
	require.Greater(t, earliestWins(now-1), earliestWins(now))
	require.Less(t, earliestWins(0), int64(4_000_000_000_000_000))
	require.Less(t, earliestWins(now), now*1000, "a deletion by hand takes effect")
}

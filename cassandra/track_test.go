package cassandra

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func track(ms ...int64) *Track {
	t := &Track{}
	t.grow(len(ms))
	for _, at := range ms {
		t.TsMs = append(t.TsMs, at)
		for _, column := range t.numbers() {
			*column = append(*column, float64(at))
		}
		t.Zones.Add([]string{"depot", "road"}[at%2])
		t.Fleets.Add("north")
	}
	return t
}

func TestTrackBetween(t *testing.T) {
	whole := track(10, 11, 12, 13)
	whole.More = true
	part := whole.Between(11, 12)
	require.Equal(t, []int64{11, 12}, part.TsMs)
	require.Equal(t, []float64{11, 12}, part.SpeedKmh)
	require.Equal(t, "road", part.Zones.At(0))
	require.Equal(t, "depot", part.Zones.At(1))
	require.Equal(t, "north", part.Fleets.At(1))
	require.False(t, part.More, "the missing positions are older than the part")
	require.True(t, whole.Between(0, 12).More)
	require.Zero(t, whole.Between(14, 20).Len())
	require.Zero(t, whole.Between(12, 11).Len())
	require.Equal(t, 4, whole.Len(), "the track is unchanged")
}

func TestTrackReverse(t *testing.T) {
	tr := track(13, 12, 11)
	tr.reverse()
	require.Equal(t, []int64{11, 12, 13}, tr.TsMs)
	require.Equal(t, []float64{11, 12, 13}, tr.Lat)
	require.Equal(t, "road", tr.Zones.At(0))
	require.Equal(t, "depot", tr.Zones.At(1))
}
